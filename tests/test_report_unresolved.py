"""`unresolved.csv`: an input of its own audit, and nothing that a spreadsheet would run."""

import csv
from collections.abc import Sequence
from io import BytesIO, StringIO
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pipeline.cells import inert
from pipeline.checkpoints import CheckpointRef
from pipeline.errors import InputUnusable
from pipeline.judgements import Outcome
from pipeline.outcomes import FailureKind, Verdict
from pipeline.report.unresolved import unresolved_writer
from pipeline.triples import UNRESOLVED_COLUMNS, Header, Triple, TripleReader

G, C = "5f" * 12, "5e" * 12
LINE = f"{G},orders,{C}"
HEADER = "project_id,cluster_name,checkpoint_id"


def read(text: str) -> tuple[Header, list[Triple]]:
    reader = TripleReader(BytesIO(text.encode()))
    lines = list(reader)
    assert all(isinstance(line, Triple) for line in lines), lines
    return reader.header, [line for line in lines if isinstance(line, Triple)]


def outcome(triple: Triple, **changes: Any) -> Outcome:
    known: dict[str, Any] = {
        "verdict": Verdict.INCONCLUSIVE,
        "excused_by": None,
        "failure_kind": FailureKind.THROTTLED,
        "http_status": 429,
        "error_code": "RATE_LIMITED",
        "error_detail": "Too often.",
        "attempts": 1,
        "fetched_by": "get",
        "input_line": triple.line,
        "labels": msgspec.json.encode(triple.labels).decode(),
        "fetched_at": None,
        "reply_id": None,
        "reply_sha256": None,
    }
    return Outcome(*msgspec.structs.astuple(triple.ref), **known | changes)


def unresolved(text: str, **changes: Any) -> str:
    """Give the `unresolved.csv` of an input of which nothing could be determined."""
    header, triples = read(text)
    file = StringIO(newline="")
    unresolved_writer(file, header)(outcome(triple, **changes) for triple in triples)
    return file.getvalue()


def cells(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True))


# --- what it holds ------------------------------------------------------------------------------


def test_it_begins_with_the_inputs_columns_in_their_order() -> None:
    text = f"team,checkpoint_id,Owner,cluster,project_id\nred,{C},Ann,orders,{G}\n"

    assert cells(unresolved(text)) == [
        ["team", "checkpoint_id", "Owner", "cluster", "project_id", *UNRESOLVED_COLUMNS],
        ["red", C, "Ann", "orders", G, "throttled", "429", "RATE_LIMITED", "Too often."],
    ]


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_what_is_inconclusive_is_in_it(verdict: Verdict) -> None:
    rows = cells(unresolved(f"{HEADER}\n{LINE}\n", verdict=verdict))

    assert len(rows) == (2 if verdict is Verdict.INCONCLUSIVE else 1)


def test_what_is_not_known_is_empty() -> None:
    text = unresolved(
        f"{HEADER}\n{LINE}\n",
        failure_kind=FailureKind.UNREACHABLE,
        http_status=None,
        error_code=None,
        error_detail=None,
    )

    assert cells(text)[1][3:] == ["unreachable", "", "", ""]


def test_names_that_are_odd_keep_their_places() -> None:
    """Names given twice or not at all, and columns of an earlier unresolved.csv in between."""
    text = f"a,unresolved_detail,{HEADER},a,,unresolved_reason\n1,old words,{LINE},2,3,old reason\n"

    assert cells(unresolved(text)) == [
        ["a", *HEADER.split(","), "a", "", *UNRESOLVED_COLUMNS],
        ["1", G, "orders", C, "2", "3", "throttled", "429", "RATE_LIMITED", "Too often."],
    ]


def test_a_label_that_a_short_line_lacks_is_empty() -> None:
    assert cells(unresolved(f"{HEADER},a,b\n{LINE},1\n"))[1][3:5] == ["1", ""]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_inputs_delimiter_is_kept(delimiter: str) -> None:
    """What opened well in somebody's spreadsheet does so again."""
    text = f"{HEADER},note\n{LINE},a\n".replace(",", delimiter)
    first = unresolved(text).splitlines()[0]

    assert first == delimiter.join([*HEADER.split(","), "note", *UNRESOLVED_COLUMNS])


# --- it is an input -----------------------------------------------------------------------------


def test_its_own_columns_are_no_labels_when_it_is_read_again() -> None:
    once = unresolved(f"{HEADER},team\n{LINE},red\n")
    _, (triple,) = read(once)

    assert triple.labels == {"team": "red"}
    assert unresolved(once) == once


#: An error's words may hold anything; too many lines of them would not be read as one record.
DETAILS = ['"', '",\n', "a\rb", "x\n" * 500, f"\n{LINE}\n", "=1+1", "", None]


@pytest.mark.parametrize("detail", DETAILS)
def test_whatever_an_error_says_the_triple_is_read_again(detail: str | None) -> None:
    text = unresolved(f"{HEADER}\n{LINE}\n{LINE}\n", error_detail=detail, error_code=detail)
    _, triples = read(text)

    assert [triple.ref for triple in triples] == [CheckpointRef(G, "orders", C)] * 2


SPECIAL = st.sampled_from([*"\"',;=+-@_ \t\r|", "\uff1d", "\ufeff", "\u2028"])
PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters="\n")
CELLS = st.text(PLAIN | SPECIAL | st.just("\n"), max_size=10)
LABEL_NAMES = st.sampled_from([*UNRESOLVED_COLUMNS, "", "a", "a (2)", "column 4"]) | st.text(
    PLAIN | SPECIAL, max_size=8
)
ID_NAMES = st.tuples(
    st.sampled_from(["project_id", "Group ID", "-group-id", "__project__id", "-\tgroup id"]),
    st.sampled_from(["cluster", "Cluster Name", "--cluster"]),
    st.sampled_from(["checkpoint_id", "checkpointId", "-- checkpoint-id"]),
)
IDS = st.tuples(
    st.text("0123456789abcdef", min_size=24, max_size=24),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True),
    st.text("0123456789abcdef", min_size=24, max_size=24),
)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[str, list[tuple[str, str, str]]]:
    """Draw an input with any columns beside the triple's, and its triples."""
    labels = draw(st.lists(LABEL_NAMES, max_size=4))
    order = draw(st.permutations(range(3 + len(labels))))
    names = [*draw(ID_NAMES), *labels]
    triples = draw(st.lists(IDS, max_size=4))
    rows = [[*triple, *(draw(CELLS) for _ in labels)] for triple in triples]
    delimiter = draw(st.sampled_from([",", ";", "\t"]))
    file = StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([row[place] for place in order] for row in (names, *rows))
    return file.getvalue(), triples


@settings(max_examples=300, deadline=None)
@given(inputs(), CELLS)
@example((f"-group-id,--cluster,-checkpoint-id,=a\n{LINE},\r\n", [(G, "orders", C)]), "x")
def test_it_names_the_same_triples_as_the_input(
    drawn: tuple[str, Sequence[tuple[str, str, str]]], detail: str
) -> None:
    text, triples = drawn
    try:
        read(text)
    except InputUnusable:
        assume(False)  # a label that is called like an id
    once = unresolved(text, error_detail=detail)
    header, again = read(once)

    assert [msgspec.structs.astuple(one.ref) for one in again] == list(triples)
    assert not set(UNRESOLVED_COLUMNS).intersection(name for _, name in header.labels)
    assert [list(one.labels.values()) for one in again] == [
        [inert(value) for value in one.labels.values()] for one in read(text)[1]
    ]


@settings(max_examples=200, deadline=None)
@given(inputs(), CELLS)
def test_no_cell_of_it_is_a_formula(
    drawn: tuple[str, Sequence[tuple[str, str, str]]], detail: str
) -> None:
    text, _ = drawn
    try:
        header, _ = read(text)
    except InputUnusable:
        assume(False)
    once = unresolved(text, error_detail=detail, error_code=detail)

    for row in cells(once, header.delimiter):
        assert not [cell for cell in row if cell.startswith(tuple("=+-@\t\r\n"))]
