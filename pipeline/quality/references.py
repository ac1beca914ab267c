"""What one table says of another: in each zone every reference leads to what it names."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ProgramFault
from pipeline.outcomes import ABSENT_KINDS, Verdict
from pipeline.quality.files import fault
from pipeline.quality.rows import OF_NO_TRIPLE, keys_of, readable
from pipeline.quality.zones import Zone
from pipeline.tables import CHECKPOINTS, CLUSTERS, FAILING, FINDINGS, OUTCOMES, PARTS, REPLIES

#: What an outcome says of the reply that counts for it, and how `replies` calls that.
_REPLY = {"reply_id": "reply_id", "body_sha256": "reply_sha256", "received_at": "fetched_at"}
_ANSWER = tuple(_REPLY.values())

#: Columns of `clusters` that count outcomes, and the verdict; without one: all of them.
_COUNTED = {
    "pass_count": Verdict.PASS,
    "fail_count": Verdict.FAIL,
    "absent_count": Verdict.ABSENT,
    "inconclusive_count": Verdict.INCONCLUSIVE,
}


class References:
    """Checks zone after zone; each check raises `ProgramFault`.

    What is kept from zone to zone: replies that answer no single triple (pages of lists), ids of
    all replies, and the counts of the cluster whose end is not reached.
    """

    def __init__(self) -> None:
        self._pages: pa.Table | None = None
        self._reply_ids: list[pa.ChunkedArray] = []
        self._open: pa.Table | None = None

    def check(self, zone: Zone) -> None:
        """Check one zone."""
        outcomes = zone[OUTCOMES.name]
        _check_outcomes(outcomes)
        _check_checkpoints(zone)
        self._check_clusters(outcomes, zone[CLUSTERS.name])
        _check_findings(zone)
        self._check_replies(outcomes, zone[REPLIES.name])

    def check_end(self) -> None:
        """Check what can only be known when all zones were checked."""
        if self._open is not None and self._open.num_rows:
            raise fault(CLUSTERS.name, f"lacks {_first_key(self._open)}, which has outcomes")
        ids = pa.chunked_array(self._reply_ids, pa.int64()).combine_chunks()
        self._reply_ids = []
        ids = ids.take(pc.array_sort_indices(ids))
        twice = ids[1:].filter(pc.equal(ids[1:], ids[: max(len(ids) - 1, 0)]))
        if len(twice):
            raise fault(REPLIES.name, f"reply_id {twice[0].as_py()} is there twice")

    # --- clusters ---

    def _check_clusters(self, outcomes: pa.Table, clusters: pa.Table) -> None:
        """A cluster's key is above those of its triples: these are all in the zone, or before."""
        counted = _count_by_cluster(outcomes)
        if self._open is not None:
            counted = _summed(pa.concat_tables([self._open, counted]))
        closed = clusters.num_rows
        self._open = counted.slice(closed)
        _check_same(clusters, counted.slice(0, closed), CLUSTERS.name)

    # --- replies ---

    def _check_replies(self, outcomes: pa.Table, replies: pa.Table) -> None:
        self._reply_ids.append(replies["reply_id"])
        is_own = pc.not_equal(replies["key"], OF_NO_TRIPLE)
        if self._pages is None:  # the first zone has them all
            self._pages = replies.filter(pc.invert(is_own)).select(list(_REPLY))
        own = replies.filter(is_own)
        _check_within(own, REPLIES.name, outcomes["key"], OUTCOMES.name)
        is_listed = pc.equal(outcomes["fetched_by"], "list")
        told = pc.is_valid(outcomes["reply_id"])
        _check_answers(outcomes.filter(pc.and_(told, pc.invert(is_listed))), own)
        _check_answers(outcomes.filter(pc.and_(told, is_listed)), self._pages)


# --- one zone ------------------------------------------------------------------------------------


def _check_outcomes(outcomes: pa.Table) -> None:
    """The columns of an outcome agree with one another."""
    verdict, kind, excused = (outcomes[n] for n in ("verdict", "failure_kind", "excused_by"))
    is_judged, is_absent = _is_one_of(verdict, _JUDGED), pc.equal(verdict, Verdict.ABSENT)
    has_reply, has_kind = pc.is_valid(outcomes["reply_id"]), pc.is_valid(kind)
    wrong = {
        "has a checkpoint and a failure_kind": pc.and_(is_judged, has_kind),
        "has neither a checkpoint nor a failure_kind": pc.invert(pc.or_(is_judged, has_kind)),
        "was judged without a reply": pc.and_(is_judged, pc.invert(has_reply)),
        "is ABSENT by no word of Atlas, or is not ABSENT though there is one": pc.xor(
            is_absent, _is_one_of(kind, ABSENT_KINDS)
        ),
        "passed and is excused": pc.and_(pc.equal(verdict, Verdict.PASS), pc.is_valid(excused)),
        "was never asked and has a reply": pc.and_(
            pc.equal(outcomes["fetched_by"], "none"), has_reply
        ),
        **{
            f"has only one of reply_id and {name}": pc.xor(has_reply, pc.is_valid(outcomes[name]))
            for name in ("reply_sha256", "fetched_at")
        },
    }
    for what, mask in wrong.items():
        found = outcomes.filter(mask)
        if found.num_rows:
            raise fault(OUTCOMES.name, f"{_first_key(found)} {what}")


_JUDGED = (Verdict.PASS, Verdict.FAIL)
_FAILING = (Verdict.FAIL, Verdict.ABSENT)


def _check_checkpoints(zone: Zone) -> None:
    """Checkpoints, their parts and what fails are what the outcomes say."""
    outcomes, checkpoints = zone[OUTCOMES.name], zone[CHECKPOINTS.name]
    judged = outcomes.filter(_is_one_of(outcomes["verdict"], _JUDGED))
    _check_same(checkpoints, judged.select(["key", *_ANSWER]), CHECKPOINTS.name)
    with_parts = checkpoints.filter(pc.greater(checkpoints["part_count"], 0))
    _check_same(zone[PARTS.name], with_parts.select(["key", "part_count"]), PARTS.name)
    failing = outcomes.filter(_is_one_of(outcomes["verdict"], _FAILING))
    _check_same(zone[FAILING.name], failing.select(["key"]), FAILING.name)


def _check_findings(zone: Zone) -> None:
    """Findings are about what was judged, and nothing fails without one."""
    findings, outcomes = zone[FINDINGS.name], zone[OUTCOMES.name]
    on_cluster = pc.equal(findings["scope"], "cluster")
    wrong = findings.filter(pc.xor(on_cluster, pc.is_null(findings["checkpoint_id"])))
    if wrong.num_rows:
        raise fault(FINDINGS.name, f"one on {_first_key(wrong)} has the wrong scope")
    on_checkpoints = findings.filter(pc.invert(on_cluster))
    _check_within(on_checkpoints, FINDINGS.name, outcomes["key"], OUTCOMES.name)
    clusters = zone[CLUSTERS.name]["key"]
    _check_within(findings.filter(on_cluster), FINDINGS.name, clusters, CLUSTERS.name)
    failed = outcomes.filter(pc.equal(outcomes["verdict"], Verdict.FAIL))
    _check_within(failed, OUTCOMES.name, findings["key"], FINDINGS.name)


def _check_answers(outcomes: pa.Table, replies: pa.Table) -> None:
    """The reply that counts for an outcome is there, as the outcome describes it."""
    places = pc.index_in(outcomes["reply_id"], replies["reply_id"].combine_chunks())
    found = replies.take(places)
    is_own, what = pc.is_valid(places), "is no page of a list"
    if "key" in found.column_names:
        is_own = pc.fill_null(pc.equal(found["key"], outcomes["key"]), fill_value=False)
        what = "is none of its replies"
    lost = outcomes.filter(pc.invert(is_own))
    if lost.num_rows:
        said = f"reply {lost['reply_id'][0]}, on which {_first_key(lost)} rests, {what}"
        raise fault(REPLIES.name, said)
    told = found.select(list(_REPLY)).rename_columns(list(_REPLY.values()))
    _check_columns(outcomes, told, OUTCOMES.name)


def _count_by_cluster(outcomes: pa.Table) -> pa.Table:
    verdicts = outcomes["verdict"]
    counts = {name: pc.equal(verdicts, verdict) for name, verdict in _COUNTED.items()}
    every = pa.repeat(pa.scalar(1, pa.int64()), outcomes.num_rows)
    keys = keys_of(outcomes.drop_columns(["checkpoint_id"]))
    ones = {name: is_one.cast(pa.int8()).cast(pa.int64()) for name, is_one in counts.items()}
    return _summed(pa.table({"key": keys, "triple_count": every, **ones}))


def _summed(counts: pa.Table) -> pa.Table:
    """Give one row a key, in order; grouping alone promises none."""
    names = counts.column_names[1:]
    found = counts.group_by("key", use_threads=False).aggregate([(name, "sum") for name in names])
    summed = found.select(["key", *(f"{name}_sum" for name in names)])
    return summed.rename_columns(["key", *names]).sort_by("key")


# --- comparing -----------------------------------------------------------------------------------


def _check_same(found: pa.Table, wanted: pa.Table, table: str) -> None:
    """Compare some columns of rows that should be about the same keys."""
    if found["key"] != wanted["key"]:
        raise _other_keys(found, wanted, table)
    _check_columns(found, wanted, table)


def _check_columns(found: pa.Table, wanted: pa.Table, table: str) -> None:
    """Compare the columns of `wanted` in rows about the same."""
    for name in wanted.column_names:
        if found[name] != wanted[name]:
            pairs = zip(found[name].to_pylist(), wanted[name].to_pylist(), strict=True)
            row, pair = next(each for each in enumerate(pairs) if each[1][0] != each[1][1])
            key = readable(found["key"][row].as_py())
            raise fault(table, f"{name} of {key} is {pair[0]}, wanted {pair[1]}")


def _other_keys(found: pa.Table, wanted: pa.Table, table: str) -> ProgramFault:
    lacking = wanted.filter(pc.invert(_is_one_of(wanted["key"], found["key"])))
    if lacking.num_rows:
        return fault(table, f"lacks {_first_key(lacking)}")
    excess = found.filter(pc.invert(_is_one_of(found["key"], wanted["key"])))
    return fault(table, f"{_first_key(excess)} should not be there")


def _check_within(rows: pa.Table, table: str, keys: pa.ChunkedArray, other: str) -> None:
    """Check that all rows are about keys of another table."""
    lost = rows.filter(pc.invert(_is_one_of(rows["key"], keys)))
    if lost.num_rows:
        raise fault(table, f"{_first_key(lost)} is not in {other}")


def _is_one_of(values: pa.ChunkedArray, among: Iterable[str] | pa.ChunkedArray) -> pa.ChunkedArray:
    known = among if isinstance(among, pa.ChunkedArray) else pa.chunked_array([list(among)])
    return pc.is_in(values, known.combine_chunks())


def _first_key(rows: pa.Table) -> str:
    return readable(rows["key"][0].as_py())
