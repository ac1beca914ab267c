"""Two runs side by side: their tables are read in key order, a few rows at a time.

The older one is published; the newer one may still be staged, and is then told since when each of
its triples fails (the table `failing`), which is what the next run goes on from. Where rules or
policy are others than the older run's, its evidence is judged again by today's, so that Atlas's
doing and the rules' can be told apart; the judging itself comes in as a function.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.changes import (
    SHOWN_CHANGES,
    ChangeCount,
    Changes,
    Key,
    Standing,
    side_by_side,
)
from pipeline.errors import AuditError, InputUnusable
from pipeline.evidence import BASE_POLICY_FILE, batches_of, policy_of
from pipeline.judgements import Judgement
from pipeline.outcomes import Verdict
from pipeline.policy import Policy
from pipeline.published import AS_IT_WAS, PublishedRun
from pipeline.report.summary import RunFacts
from pipeline.staging import Staging
from pipeline.tables import FAILING

#: Triples after which whoever waits is told that it goes on.
_TICK_EVERY = 10_000

_CLUSTER = ("group_id", "cluster_name")
_TRIPLE = (*_CLUSTER, "checkpoint_id")
_VERDICTS = {verdict.value: verdict for verdict in Verdict}

#: Judges the evidence of a published run again, in key order. It raises an `AuditError` where the
#: evidence cannot be used.
Rejudge = Callable[[PublishedRun], Iterator[Judgement]]


class Side(NamedTuple):
    """One of two runs: who it is, what judged it, and where the files of a table are.

    `judged_by` are the version of the rules and the digests of the policy and of the default that
    it was laid over. `fails` says whether what a rule objects to was a FAIL by that policy, and
    `trouble` why that is not known. `files` raises `InputUnusable` for one that is not as it was
    published.
    """

    run_id: str
    audit_date: date
    judged_by: tuple[str, str, str]
    fails: Callable[[str], bool]
    files: Callable[[str], Sequence[Path]]
    trouble: str = ""


def published_side(run: PublishedRun) -> Side:
    """Give a published run to be compared.

    Where its policy cannot be read, nothing that its rules object to counts as failing: of two
    runs, what the newer one's object to is then new.
    """
    told, trouble = run.manifest, ""
    try:
        fails = fails_by(policy_of(run))
    except AuditError as error:
        fails, trouble = _never, f"the policy of {run.run_id} cannot be read: {error}"
    judged_by = (told.rules_version, told.policy_sha256, run.digest_of(BASE_POLICY_FILE))
    return Side(told.run_id, told.audit_date, judged_by, fails, run.files, trouble)


def _never(_: str) -> bool:
    return False


def staged_side(staging: Staging, facts: RunFacts, policy: Policy) -> Side:
    """Give a run whose tables are staged; nobody else has had hands on its files."""

    def files(folder: str) -> list[Path]:
        return sorted((staging.path / folder).rglob("*.parquet"))

    base = sha256(policy.base_text.encode()).hexdigest() if policy.base_text else ""
    judged_by = (facts.rules_version, policy.sha256, base)
    return Side(facts.run_id, facts.audit_date, judged_by, fails_by(policy), files)


def fails_by(policy: Policy) -> Callable[[str], bool]:
    """Say of rules whether what they object to is a FAIL by a policy; an unknown one's is."""
    return lambda rule_id: rule_id not in policy.rules or policy.rules[rule_id].fails


class _NotRejudged(Exception):
    """The older evidence cannot be judged by today's rules; `str()` says why.

    It ends one attempt; the next one goes without.
    """


def compare(
    run: PublishedRun,
    newer: Side,
    rejudge: Rejudge,
    *,
    most: int = SHOWN_CHANGES,
    tick: Callable[[], None] = lambda: None,
) -> Changes:
    """Say what changed from `run` to `newer`; `most`: rows of each kind that are shown, 0 for all.

    `rejudge` is asked where rules or policy differ. `tick` is called now and then, and may raise.
    Raises `InputUnusable` where a table cannot be read.
    """
    older = published_side(run)
    comparison = _Comparison(older, newer, most, tick)
    if older.judged_by == newer.judged_by:
        return comparison.run(())
    try:
        return comparison.run(_rejudged(rejudge, run), is_rejudged=True)
    except _NotRejudged as error:
        note = f"whether Atlas or the rules made the difference is not known: {error}"
        return comparison.run((), note=note)


def write_failing(staging: Staging, newer: Side, audit_name: str, run: PublishedRun | None) -> None:
    """Write since when each failing triple of a staged run fails, going on from `run` where given.

    Raises `InputUnusable` where `run` cannot be read; once more without it then writes all anew.
    """
    before = _failing_since(published_side(run)) if run else ()
    constants = (newer.run_id, audit_name, newer.audit_date)
    with staging.table(FAILING, newer.audit_date, constants) as sink:
        for key, (now, since) in side_by_side(_standings(newer), before):
            if now is not None and now.is_failing:
                sink.add((*key, since or newer.audit_date))


class _Comparison(NamedTuple):
    """What is compared, and how."""

    older: Side
    newer: Side
    most: int
    tick: Callable[[], None]

    def run(
        self, rejudged: Iterable[tuple[Key, Verdict]], *, is_rejudged: bool = False, note: str = ""
    ) -> Changes:
        """Read both runs once; `rejudged` are the older one's triples by today's rules."""
        older, newer = self.older, self.newer
        count = ChangeCount(self.most)
        self._add_triples(count, rejudged)
        for key, verdicts in side_by_side(_clusters(older), _clusters(newer)):
            count.add_cluster(key, *verdicts)
        for _, rules in side_by_side(_open_findings(older), _open_findings(newer)):
            count.add_findings(*(found or frozenset() for found in rules))
        return count.changes(
            older.run_id,
            older.audit_date.isoformat(),
            rules_changed=older.judged_by != newer.judged_by,
            is_rejudged=is_rejudged,
            note="; ".join(filter(None, (note, older.trouble))),
        )

    def _add_triples(self, count: ChangeCount, rejudged: Iterable[tuple[Key, Verdict]]) -> None:
        older, newer = self.older, self.newer
        streams = (_standings(older), _standings(newer), rejudged)
        dates = (_failing_since(older), _failing_since(newer))
        for number, (key, found) in enumerate(side_by_side(*streams, *dates)):
            before, after, again, was_since, since = found
            if before is None and after is None:
                raise InputUnusable(
                    f"{older.run_id} or {newer.run_id} tells of {'/'.join(key)}, which is not "
                    "among its outcomes",
                    hint=AS_IT_WAS,
                )
            count.add(key, before, after, again, since or was_since)
            if number % _TICK_EVERY == 0:
                self.tick()


def _rejudged(rejudge: Rejudge, run: PublishedRun) -> Iterator[tuple[Key, Verdict]]:
    try:
        for judgement in rejudge(run):
            for outcome in judgement.outcomes:
                key = (outcome.group_id, outcome.cluster_name, outcome.checkpoint_id)
                yield key, outcome.verdict
    except AuditError as error:
        raise _NotRejudged(str(error)) from error


# --- reading ------------------------------------------------------------------------------------


def _standings(side: Side) -> Iterator[tuple[Key, Standing]]:
    """How each triple ended."""
    rows = _rows(side, "outcomes", (*_TRIPLE, "verdict", "excused_by"))
    found = (
        ((group_id, cluster_name, checkpoint_id), Standing(_verdict(side, verdict), excused_by))
        for group_id, cluster_name, checkpoint_id, verdict, excused_by in rows
    )
    return _ascending(side, found)


def _failing_since(side: Side) -> Iterator[tuple[Key, date]]:
    """Since when each failing triple fails; of a run that does not say so, since that run."""
    if side.files(FAILING.name):
        rows = _rows(side, FAILING.name, (*_TRIPLE, "failing_since"))
        return _ascending(side, (((*key,), since) for *key, since in rows))
    return ((key, side.audit_date) for key, found in _standings(side) if found.is_failing)


def _clusters(side: Side) -> Iterator[tuple[Key, Verdict]]:
    rows = _rows(side, "clusters", (*_CLUSTER, "verdict"))
    return _ascending(side, (((*key,), _verdict(side, verdict)) for *key, verdict in rows))


def _open_findings(side: Side) -> Iterator[tuple[Key, frozenset[str]]]:
    """The rules that a cluster as a whole failed by, by the policy of its day, and not waived."""
    columns = (*_CLUSTER, "scope", "waiver_id", "rule_id")
    found = (row for row in _rows(side, "findings", columns) if row[2:4] == ("cluster", None))
    rows = (row for row in found if side.fails(row[4]))
    by_cluster = groupby(rows, key=itemgetter(0, 1))
    return _ascending(side, ((key, frozenset(row[4] for row in of)) for key, of in by_cluster))


def _rows(side: Side, folder: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Read some columns of a table, row by row."""
    for path in side.files(folder):
        for batch in batches_of(path, columns):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _verdict(side: Side, text: str) -> Verdict:
    found = _VERDICTS.get(text)
    if found is None:
        raise InputUnusable(f"{text!r} in {side.run_id} is no verdict", hint=AS_IT_WAS)
    return found


def _ascending(side: Side, rows: Iterable[tuple[Key, Any]]) -> Iterator[tuple[Key, Any]]:
    """Pass rows on as long as each key is above the last: else the merge would miss some."""
    last: Key = ()
    for row in rows:
        if row[0] <= last:
            raise InputUnusable(
                f"the rows of {side.run_id} are not in order at {'/'.join(row[0])}", hint=AS_IT_WAS
            )
        last = row[0]
        yield row
