"""The CSV reader: every line that is not blank is one triple or one bad line."""

import csv
from collections.abc import Iterable, Sequence
from io import BytesIO, StringIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoints import CheckpointRef
from pipeline.errors import InputUnusable
from pipeline.triples import UNRESOLVED_COLUMNS, BadLine, Fault, Triple, TripleReader

G, C = "5f" * 12, "5e" * 12
REF = CheckpointRef(G, "orders", C)
HEADER = "project_id,cluster_name,checkpoint_id"
LINE = f"{G},orders,{C}"


def reader(text: str | bytes) -> TripleReader:
    return TripleReader(BytesIO(text.encode() if isinstance(text, str) else text))


def read(text: str | bytes) -> list[Triple | BadLine]:
    return list(reader(text))


def triples(lines: Iterable[Triple | BadLine]) -> list[Triple]:
    return [line for line in lines if isinstance(line, Triple)]


def only_bad(text: str | bytes) -> BadLine:
    (bad,) = read(text)
    assert isinstance(bad, BadLine)
    return bad


# --- the header ---------------------------------------------------------------------------------

HEADERS = [
    "project_id,cluster_name,checkpoint_id",
    "group_id,cluster_name,checkpoint_id",
    "groupId,clusterName,checkpointId",
    "Project ID,Cluster,Checkpoint ID",
    "PROJECT-ID,CLUSTER-NAME,CHECKPOINT-ID",
    " project id , cluster , checkpoint id ",
    '"project_id","cluster_name","checkpoint_id"',
    "_-project_id,cluster__name,--checkpoint-id",
    "project_id;cluster_name;checkpoint_id",
    "project_id\tcluster_name\tcheckpoint_id",
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_header_variants(header: str, mark: str, end: str) -> None:
    delimiter = next(one for one in ";\t," if one in header)
    line = LINE.replace(",", delimiter)

    assert read(f"{mark}{header}{end}{line}{end}") == [Triple(2, REF, {})]


def test_columns_stand_in_any_order_and_others_are_labels() -> None:
    text = f"team,checkpoint_id,owner,cluster,project_id\n red ,{C},Ann,orders,{G}\n"

    assert read(text) == [Triple(2, REF, {"team": " red ", "owner": "Ann"})]


def test_labels_with_one_name_or_none_are_told_apart() -> None:
    text = f"{HEADER},team,,team,team (2),,column 5\n{LINE},a,b,c,d,e,f\n"
    labels = {
        "team": "a",
        "column 5": "b",
        "team (2)": "c",
        "team (2) (2)": "d",
        "column 8": "e",
        "column 5 (2)": "f",
    }

    assert read(text) == [Triple(2, REF, labels)]


def test_columns_that_unresolved_csv_adds_are_no_labels() -> None:
    names = ",".join(UNRESOLVED_COLUMNS)
    text = f"{HEADER},team,{names}\n{LINE},red,throttled,429,CODE,words\n"

    assert read(text) == [Triple(2, REF, {"team": "red"})]


def test_blank_lines_may_stand_before_the_header() -> None:
    assert read(f"\n  \n{HEADER}\n{LINE}") == [Triple(4, REF, {})]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        (LINE + "\n", "a triple, not a header"),
        (f"{G};orders;{C}\n", "a triple, not a header"),
        ("project_id,cluster_name\n", "needs a header"),
        ("project_id|cluster_name|checkpoint_id\n", "needs a header"),
        ("project_id,cluster_name,checkpoint_id_2\n", "needs a header"),
        ('"project_id,cluster_name,checkpoint_id\n', "needs a header"),
        (f"{HEADER}\r{LINE}\r", "needs a header"),
        (f"group_id,{HEADER}\n", "two columns for group_id"),
        (f"{HEADER},Cluster\n", "two columns for cluster_name"),
        (b"\xff\xfe" + HEADER.encode("utf-16-le"), "not UTF-8 text"),
        (b"caf\xe9," + HEADER.encode(), "not UTF-8 text"),
        (b"x" * (1 << 20) + b"x", "at most 1048576 bytes"),
    ],
)
def test_without_a_header_the_input_is_unusable(text: str | bytes, words: str) -> None:
    with pytest.raises(InputUnusable, match=words) as caught:
        reader(text)

    assert caught.value.hint
    assert len(str(caught.value)) < 300


# --- lines --------------------------------------------------------------------------------------


def test_ids_are_trimmed_and_lower_cased_and_names_only_trimmed() -> None:
    text = f"{HEADER}\n  {G.upper()} ,\torders-A_1 , {C.upper()}  \n"

    assert read(text) == [Triple(2, CheckpointRef(G, "orders-A_1", C), {})]


@pytest.mark.parametrize("blank", ["", " ", "\t", ",,", " , , ", '"",""', ",,,,,", '"\n\n"', "\r"])
def test_blank_lines_are_no_lines(blank: str) -> None:
    assert [line.line for line in read(f"{HEADER}\n{blank}\n{LINE}\n")] == [3 + blank.count("\n")]


def test_the_last_line_needs_no_end() -> None:
    assert read(f"{HEADER}\n{LINE}") == [Triple(2, REF, {})]


def test_a_short_line_lacks_its_last_labels() -> None:
    assert read(f"{HEADER},team,owner\n{LINE},red\n") == [Triple(2, REF, {"team": "red"})]


@pytest.mark.parametrize("name", ["a", "A", "0", "a-b", "a_b", "a-", "x" * 64])
def test_names_that_clusters_have(name: str) -> None:
    assert triples(read(f"{HEADER}\n{G},{name},{C}\n"))


@pytest.mark.parametrize("name", ["", "-a", "_a", "a.b", "a b", "a/b", "..", "ä", "a\u200b", "a\0"])
def test_names_that_no_cluster_has(name: str) -> None:
    rule = "letters, digits, '-' and '_', a letter or digit first"
    bad = only_bad(f"{HEADER}\n{G},{name},{C}\n")

    assert bad == BadLine(2, (Fault("cluster_name", name.strip(), rule),))


IDS = ["", "x", G[:-1], G + "0", "g" * 24, f"{G[:12]} {G[12:]}", "\uff10" * 24, f"0x{G[:22]}"]


@pytest.mark.parametrize("text", IDS)
def test_ids_that_are_none(text: str) -> None:
    rule = "24 hexadecimal digits"

    assert only_bad(f"{HEADER}\n{text},orders,{C}\n").faults == (Fault("project_id", text, rule),)
    assert only_bad(f"{HEADER}\n{G},orders,{text}\n").faults == (
        Fault("checkpoint_id", text, rule),
    )


def test_a_bad_line_tells_everything_that_is_wrong_with_it() -> None:
    bad = only_bad("Project ID,Cluster,checkpoint_id\nx,.,y,z\n")

    assert [fault.column for fault in bad.faults] == [
        "Project ID",
        "Cluster",
        "checkpoint_id",
        "(beyond the header)",
    ]
    assert str(bad).startswith("line 2, column Project ID: 'x'; wanted: 24 hexadecimal digits; ")


def test_a_line_that_ends_early_lacks_columns() -> None:
    bad = only_bad(f"{HEADER}\n{G}\n")

    assert [(fault.column, fault.rule) for fault in bad.faults] == [
        ("cluster_name", "the line has this column"),
        ("checkpoint_id", "the line has this column"),
    ]


def test_fields_beyond_the_header_count_unless_they_are_empty() -> None:
    """A spreadsheet leaves empty ones; others mean that the columns are not where we think."""
    assert triples(read(f"{HEADER}\n{LINE}, ,\n"))
    assert only_bad(f"{HEADER}\n{LINE},,x\n").faults == (
        Fault("(beyond the header)", "x", "no more than the header's 3 fields"),
    )


def test_what_a_bad_line_shows_is_short() -> None:
    bad = only_bad(f"{HEADER}\n{'x' * 5000},{'.' * 5000},{'y' * 5000}\n")

    assert len(str(bad)) < 600


def test_a_bad_line_never_stops_the_others() -> None:
    text = f"{HEADER}\nx\n{LINE}\n".encode() + b"\xff\xfe,\xfd\n" + f'"x"y\n{LINE}\n'.encode()

    assert [(line.line, type(line)) for line in read(text)] == [
        (2, BadLine),
        (3, Triple),
        (4, BadLine),
        (5, BadLine),
        (6, Triple),
    ]


def test_what_is_not_utf_8_is_shown_around_the_fault() -> None:
    bad = only_bad(f"{HEADER}\n".encode() + b"x" * 500 + b"caf\xe9" + b"y" * 500)

    assert bad.faults == (Fault("(whole line)", r"b'xxxxxxxcaf\xe9yyyyyyyyy'", "UTF-8 text"),)


def test_a_line_too_long_to_be_one_is_bad() -> None:
    longest = 1 << 20
    head, start = f"{HEADER},note\n", f"{LINE},"
    fits = "x" * (longest - len(start) - 1)

    assert triples(read(f"{head}{start}{fits}\n"))
    assert only_bad(f"{head}{start}{fits}x\n").faults[0].rule == f"at most {longest} bytes"


# --- quotes -------------------------------------------------------------------------------------


def test_quoted_fields_hold_delimiters_quotes_and_line_breaks() -> None:
    text = f'{HEADER},note\n"{G}","orders","{C}","a, ""b""\r\n\r\nc"\r\n{LINE},d\n'
    first, second = read(text)

    assert first == Triple(2, REF, {"note": 'a, "b"\r\n\r\nc'})
    assert second == Triple(5, REF, {"note": "d"})


def test_a_quote_within_a_field_is_a_character() -> None:
    assert read(f'{HEADER},size\n{LINE},5" disk\n') == [Triple(2, REF, {"size": '5" disk'})]


def test_a_label_with_line_breaks_may_stand_before_the_ids() -> None:
    """The line that ends the label holds the ids, behind the quote that closes."""
    text = f'note,{HEADER}\n"a\nb",{LINE}\n'

    assert read(text) == [Triple(2, REF, {"note": "a\nb"})]


UNCLOSED = "a quote that opens is closed"
#: What is wrong, the lines from number 2 on, and the numbers of those that are triples.
STRAY: list[tuple[str, list[str], list[int]]] = [
    ("never closed", [f'{LINE},"x', LINE, LINE], [3, 4]),
    ("never closed, in front", [f'"{LINE}', LINE, LINE], [3, 4]),
    ("closed by the next line's quotes", [f'{LINE},"x', f'{LINE},"y"', LINE], [3, 4]),
    ("closed by the next line's first", [f'"{LINE}', f'"{G}","orders","{C}"', LINE], [3, 4]),
    ("two, last in their lines", [f'{LINE},"', LINE, f'{LINE},"', LINE], [3, 5]),
    ("two in a row", [f'{LINE},"', f'{LINE},"', LINE], [4]),
    ("empty quotes behind it", [f'{LINE},"x', f'{LINE},""', f'{LINE},"z"'], [3, 4]),
    ("a line that is not UTF-8 behind it", [f'{LINE},"x', "\udcff", LINE], [4]),
]


@pytest.mark.parametrize(("what", "lines", "whole"), STRAY)
def test_a_stray_quote_hides_no_line_but_its_own(
    what: str, lines: list[str], whole: list[int]
) -> None:
    text = "\n".join([f"{HEADER},note", *lines, ""]).encode("utf-8", "surrogateescape")
    first, *others = read(text)

    assert isinstance(first, BadLine), what
    assert first.faults[0].rule == UNCLOSED
    assert [line.line for line in others] == list(range(3, 2 + len(lines)))
    assert [line.line for line in triples(others)] == whole


def test_a_label_may_speak_of_another_triple() -> None:
    """What stands elsewhere than in the columns for it names no checkpoint."""
    note = f"see {LINE},\nand, {LINE}"
    text = f'{HEADER},note\n{LINE},"{LINE}\n{note}"\n'

    assert read(text) == [Triple(2, REF, {"note": f"{LINE}\n{note}"})]


#: As above, with the label in the first column.
STRAY_IN_FRONT: list[tuple[str, list[str], list[int]]] = [
    ("closed in the next line", [f'"x,{LINE}', f'y",{LINE}'], [3]),
    ("escaped quotes between", ['"x', f'a ""b"",{LINE}', f'y",{LINE}'], [3, 4]),
    ("empty quotes between", ['"x', f'"",{LINE}', f'y",{LINE}'], [3, 4]),
]


@pytest.mark.parametrize(("what", "lines", "whole"), STRAY_IN_FRONT)
def test_a_stray_quote_before_the_ids_hides_none(
    what: str, lines: list[str], whole: list[int]
) -> None:
    found = read("\n".join([f"note,{HEADER}", *lines]))

    assert [line.line for line in found] == list(range(2, 2 + len(lines))), what
    assert [line.line for line in triples(found)] == whole


def test_a_record_has_at_most_so_many_lines() -> None:
    most = "\n" * 100
    text = f'{HEADER},note\n{LINE},"{most}"\n{LINE},"{most}\n"\n{LINE},end\n'
    first, second, *_, last = read(text)

    assert first == Triple(2, REF, {"note": most})
    assert second == BadLine(103, (Fault("(whole line)", f'{LINE},"', UNCLOSED),))
    assert last == Triple(205, REF, {"note": "end"})


@pytest.mark.parametrize("line", [f"{LINE}\r{LINE}", f'{LINE}\r"x"', f'"{G}","orders","{C}"\rx'])
def test_a_carriage_return_alone_ends_no_line(line: str) -> None:
    """Else what stands behind it would vanish among the labels."""
    bad = only_bad(f"{HEADER},a,b,c\n{line}\n")

    assert bad.faults[0].rule == "no line break outside quotes"


# --- laws ---------------------------------------------------------------------------------------

#: Pieces that make trouble together more often than bytes drawn one by one.
PIECES = st.sampled_from(
    [b'"', b'""', b",", b";", b"\t", b"\r", b" ", b"x", b"\xff", b"\0", b"\xef\xbb\xbf", G.encode()]
) | st.binary(max_size=8).map(lambda data: data.replace(b"\n", b""))
GARBAGE = st.lists(PIECES, max_size=8).map(b"".join)
HEAD = f"{HEADER},note\n".encode()
GOOD = {
    HEAD: [
        LINE.encode(),
        f"{LINE},label".encode(),
        f'{LINE},"x"'.encode(),
        f'"{G}","orders","{C}"'.encode(),
    ],
    f"note,{HEADER}\n".encode(): [
        f",{LINE}".encode(),
        f"label,{LINE}".encode(),
        f'"x",{LINE}'.encode(),
        f'a ""b"",{LINE}'.encode(),
    ],
}
FILES = st.sampled_from(sorted(GOOD)).flatmap(
    lambda head: st.tuples(
        st.just(head), st.lists(GARBAGE | st.sampled_from(GOOD[head]), max_size=12)
    )
)


@settings(max_examples=400, deadline=None)
@given(FILES)
def test_whatever_stands_around_it_no_triple_is_swallowed(file: tuple[bytes, list[bytes]]) -> None:
    """Every line that names a checkpoint is found under its number, after any bytes at all."""
    head, lines = file
    found = read(head + b"\n".join(lines))
    numbers = [line.line for line in found]
    wanted = {number for number, line in enumerate(lines, start=2) if line in GOOD[head]}

    assert wanted <= {line.line for line in triples(found)}
    assert numbers == sorted(set(numbers))


@settings(max_examples=300, deadline=None)
@given(st.lists(GARBAGE.map(lambda line: line.replace(b'"', b"")) | st.binary(max_size=40)))
def test_without_quotes_every_line_that_is_not_blank_is_one_record(lines: list[bytes]) -> None:
    data = b"\n".join(line.replace(b'"', b"") for line in lines)
    wanted = [n for n, line in enumerate(data.split(b"\n"), start=2) if not _is_blank(line)]

    assert [line.line for line in read(HEAD + data)] == wanted


def _is_blank(line: bytes) -> bool:
    """Nothing but white space and delimiters; a bare CR within makes a record nobody can split."""
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        return False
    return not text.replace(",", "").strip() and "\r" not in text


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = read(data)
    except InputUnusable:
        return

    assert all(isinstance(line, Triple | BadLine) for line in found)


HEX = st.text("0123456789abcdef", min_size=24, max_size=24)
CLUSTERS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,12}", fullmatch=True)
LABELS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('",;\t\n\r '), max_size=12
)
ROWS = st.lists(st.tuples(HEX, CLUSTERS, HEX, LABELS, LABELS), max_size=8)
COLUMNS = ("Project ID", "cluster-name", "checkpointId", "team", "a, b; c")
FORMS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from([",", ";", "\t"]),
        "end": st.sampled_from(["\n", "\r\n"]),
        "quotes_all": st.booleans(),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig"]),
        "columns": st.permutations(COLUMNS),
    }
)


@settings(max_examples=300, deadline=None)
@given(ROWS, FORMS)
def test_what_was_written_as_csv_is_read_again(
    rows: list[tuple[str, ...]], form: dict[str, Any]
) -> None:
    """Delimiters, line ends, quotes, byte order marks, columns in any order, any labels."""
    found = read(written(rows, **form))

    assert [line.ref for line in triples(found)] == [CheckpointRef(*row[:3]) for row in rows]
    assert [line.labels for line in triples(found)] == [
        {"team": row[3], "a, b; c": row[4]} for row in rows
    ]
    assert len(found) == len(rows)


def written(
    rows: list[tuple[str, ...]],
    *,
    delimiter: str,
    end: str,
    quotes_all: bool,
    encoding: str,
    columns: Sequence[str],
) -> bytes:
    file = StringIO(newline="")
    writer = csv.DictWriter(
        file,
        columns,
        delimiter=delimiter,
        lineterminator=end if quotes_all else "\r\n",  # some Pythons leave a CR bare otherwise
        quoting=csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL,
    )
    writer.writeheader()
    writer.writerows(dict(zip(COLUMNS, row, strict=True)) for row in rows)
    return file.getvalue().encode(encoding)
