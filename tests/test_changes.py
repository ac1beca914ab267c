"""What changed between two runs: every pair of verdicts, the merge, counts that add up."""

import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.changes import (
    Cause,
    Change,
    ChangeCount,
    ChangeKind,
    Changes,
    ClusterChange,
    Key,
    Standing,
    cause_of,
    kind_of,
    side_by_side,
)
from pipeline.diff import ComparedRun
from pipeline.history import Night, NightState
from pipeline.outcomes import Verdict

PASS, FAIL, ABSENT, INCONCLUSIVE = Verdict
ROOT = Path(__file__).parents[1]

#: Rows: the verdict before. Columns: PASS, FAIL, ABSENT, INCONCLUSIVE, not there. "": as it was.
TABLE: dict[Verdict | None, str] = {
    PASS: ", became_unrestorable, became_unrestorable, newly_inconclusive, gone",
    FAIL: "recovered, still_failing, still_failing, newly_inconclusive, gone",
    ABSENT: "recovered, still_failing, still_failing, newly_inconclusive, gone",
    INCONCLUSIVE: "determined, became_unrestorable, became_unrestorable, , gone",
    None: "new, new, new, new, ",
}
PAIRS = [
    (before, after, kind)
    for before, line in TABLE.items()
    for after, kind in zip((*Verdict, None), line.split(","), strict=True)
]

Run = dict[Key, Standing]


@pytest.mark.parametrize(("before", "after", "kind"), PAIRS)
def test_every_pair_of_verdicts(before: Verdict | None, after: Verdict | None, kind: str) -> None:
    assert (kind_of(before, after) or "") == kind.strip()


def test_the_table_in_the_docs_is_this_one() -> None:
    text = (ROOT / "docs/changes.md").read_text("utf-8")
    table = text.partition("| before, below")[2].partition("\n\n")[0]
    cells = [re.sub(r"[`\s]", "", cell) for cell in table.split("|")]
    wanted = [
        [before or "notthere", *(kind.strip() or "unchanged" for kind in line.split(","))]
        for before, line in TABLE.items()
    ]

    for row in wanted:
        assert any(cells[i : i + 6] == row for i in range(len(cells))), row


def test_the_docs_name_every_field_and_value() -> None:
    text = (ROOT / "docs/changes.md").read_text("utf-8")
    structs: tuple[type[msgspec.Struct], ...] = (Changes, Change, ClusterChange, ComparedRun, Night)
    names = {name for struct in structs for name in struct.__struct_fields__}

    for name in names | set(ChangeKind) | set(NightState):
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize(
    ("before", "rejudged", "after", "cause"),
    [
        (PASS, None, FAIL, "atlas"),  # the same rules, or not known
        (PASS, PASS, FAIL, "atlas"),
        (PASS, FAIL, FAIL, "rules"),
        (PASS, FAIL, ABSENT, "rules"),  # Atlas changed its answer, and that turned nothing
        (FAIL, PASS, PASS, "rules"),
        (FAIL, FAIL, PASS, "atlas"),
        (FAIL, PASS, ABSENT, "atlas"),  # still failing: nothing turned
        (PASS, FAIL, INCONCLUSIVE, "atlas"),
        (PASS, FAIL, PASS, "atlas"),
        (PASS, FAIL, None, "atlas"),
        (None, None, FAIL, "atlas"),
    ],
)
def test_who_changed_it(
    before: Verdict | None, rejudged: Verdict | None, after: Verdict | None, cause: str
) -> None:
    assert cause_of(before, rejudged, after) == cause


@given(st.lists(st.dictionaries(st.tuples(st.text(max_size=2)), st.integers()), max_size=4))
def test_streams_are_merged_as_dictionaries_would_be(streams: list[dict[Key, int]]) -> None:
    keys = sorted({key for stream in streams for key in stream})

    assert list(side_by_side(*(sorted(stream.items()) for stream in streams))) == [
        (key, [stream.get(key) for stream in streams]) for key in keys
    ]


STANDINGS = st.builds(
    Standing, st.sampled_from(Verdict), st.one_of(st.none(), st.sampled_from(["W-1", "retention"]))
)
KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from("012345"))
RUNS = st.dictionaries(KEYS, STANDINGS)


def compared(older: Run, newer: Run, most: int = 0) -> Changes:
    count = ChangeCount(most)
    for key, (before, after) in side_by_side(sorted(older.items()), sorted(newer.items())):
        count.add(key, before, after)
    return count.changes("older", "2026-11-20")


def naive(older: Run, newer: Run) -> Counter[ChangeKind | None]:
    def verdict(run: Run, key: Key) -> Verdict | None:
        return run[key].verdict if key in run else None

    return Counter(
        kind_of(verdict(older, key), verdict(newer, key)) for key in older.keys() | newer.keys()
    )


@given(RUNS, RUNS)
def test_every_triple_is_in_one_place(older: Run, newer: Run) -> None:
    """Counts are those of a comparison without streams, and add up to the triples of either run."""
    changes, wanted = compared(older, newer), naive(older, newer)

    assert changes.unchanged == wanted.pop(None, 0)
    assert {kind: n for kind, n in changes.counts.items() if n} == wanted
    assert sum(changes.counts.values()) + changes.unchanged == len(older.keys() | newer.keys())
    assert Counter(change.kind for change in changes.shown) == wanted
    assert changes.left_out == 0


@given(RUNS, RUNS)
def test_what_is_open_is_a_change(older: Run, newer: Run) -> None:
    """Whatever makes a run end with 1 is counted open in one kind; what is new in that is told."""
    is_open = {key for key, found in newer.items() if found.is_open}
    was_open = {key for key, found in older.items() if found.is_open}
    changes = compared(older, newer)

    assert sum(changes.open_counts.values()) == len(is_open)
    assert changes.newly_open == len(is_open - was_open)
    assert changes.has_newly_open == bool(is_open - was_open)


@given(RUNS, RUNS, st.integers(1, 4))
def test_the_first_few_are_the_worst(older: Run, newer: Run, most: int) -> None:
    every, few = compared(older, newer), compared(older, newer, most)
    by_kind = [[each for each in every.shown if each.kind is kind] for kind in ChangeKind]

    assert few.shown == tuple(each for found in by_kind for each in found[:most])
    assert few.left_out == len(every.shown) - len(few.shown)
    assert few.counts == every.counts


def test_worst_first() -> None:
    """What is new and fails comes before what is new and passes, what is open before the excused.

    Within the same, the order is that of the keys.
    """
    found: Run = {
        ("a", "x", "1"): Standing(PASS),
        ("a", "x", "2"): Standing(INCONCLUSIVE),
        ("a", "x", "3"): Standing(ABSENT, "retention"),
        ("a", "x", "4"): Standing(FAIL, "W-1"),
        ("a", "x", "5"): Standing(ABSENT),
        ("a", "x", "6"): Standing(FAIL),
        ("a", "x", "7"): Standing(FAIL),
    }
    shown = compared({}, found).shown

    assert [change.checkpoint_id for change in shown] == list("6754321"), shown


def test_a_waiver_that_is_gone_makes_newly_open() -> None:
    """A verdict that stays is not a new one; that nothing excuses it any more is."""
    key: Key = ("a", "x", "1")
    changes = compared({key: Standing(FAIL, "W-1")}, {key: Standing(FAIL)})

    assert changes.counts[ChangeKind.STILL_FAILING] == changes.newly_open == 1
    assert changes.shown[0].excused_before == "W-1"
    assert compared({key: Standing(FAIL)}, {key: Standing(FAIL)}).newly_open == 0


def test_causes_are_counted() -> None:
    count = ChangeCount()
    for number, (was, again) in enumerate([(PASS, FAIL), (PASS, PASS), (PASS, None)]):
        count.add(("a", "x", str(number)), Standing(was), Standing(FAIL), again)
    changes = count.changes("older", "2026-11-20")

    assert changes.counts[ChangeKind.BECAME_UNRESTORABLE] == 3
    assert changes.by_rules == {kind: kind == "became_unrestorable" for kind in ChangeKind}
    assert [(change.cause, change.rejudged) for change in changes.shown] == [
        (Cause.RULES, FAIL),
        (Cause.ATLAS, None),
        (Cause.ATLAS, None),
    ]


def test_clusters_and_their_findings() -> None:
    count = ChangeCount(most=2)
    for name, before, after in [
        ("a", PASS, PASS),
        ("b", None, PASS),
        ("c", None, FAIL),
        ("d", None, FAIL),
        ("e", FAIL, None),
    ]:
        count.add_cluster(("p", name), before, after)
    count.add_findings(frozenset({"R-1", "R-2"}), frozenset({"R-2", "R-3"}))
    changes = count.changes("older", "2026-11-20")

    assert (changes.clusters_unchanged, changes.clusters_left_out) == (1, 1)
    assert changes.cluster_counts[ChangeKind.NEW] == 3
    assert [change.cluster_name for change in changes.clusters_shown] == ["c", "d", "e"]
    assert changes.newly_open_findings == 1
    assert changes.has_newly_open


def test_json_and_back() -> None:
    """As in summary.json."""
    older: Run = {("a", "x", str(number)): Standing(each) for number, each in enumerate(Verdict)}
    newer: Run = {key: Standing(PASS) for key in older}
    changes = compared(older, newer)

    assert msgspec.json.decode(msgspec.json.encode(changes), type=Changes) == changes
    assert set(changes.counts) == set(ChangeKind)
