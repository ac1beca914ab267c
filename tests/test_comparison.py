"""Two runs side by side: what is read of their folders, and since when a triple fails."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from pipeline.changes import Cause, ChangeKind, Changes
from pipeline.comparison import (
    Side,
    compare,
    published_side,
    staged_side,
    write_failing,
)
from pipeline.errors import InputUnusable
from pipeline.evidence import BASE_POLICY_FILE
from pipeline.judgements import Cluster, Finding, Judgement, Outcome
from pipeline.outcomes import Verdict
from pipeline.policy import Policy
from pipeline.published import PublishedRun, read_run
from pipeline.report.summary import RunFacts
from pipeline.staging import Staging
from pipeline.tables import CLUSTERS, FAILING, FINDINGS, OUTCOMES, Table

PASS, FAIL, ABSENT, INCONCLUSIVE = Verdict
GROUP = "5f" * 12
FIRST = date(2026, 11, 20)

#: Laid over nothing.
POLICY = Policy(text="", rules={})

#: One cluster's triples, told as the verdict of each, which `*` behind it excuses.
Told = dict[str, str]


def facts(number: int, **changes: Any) -> RunFacts:
    night = FIRST + timedelta(days=number)
    at = datetime(night.year, night.month, night.day, 3, tzinfo=UTC)
    known = dict.fromkeys(RunFacts.__struct_fields__, "-") | {
        "run_id": f"run-{number}",
        "audit_date": night,
        "parent_run_id": None,
        "started_at": at,
        "finished_at": at,
        "rules_version": "1",
        "policy_sha256": POLICY.sha256,
    }
    counts = {name: 1 for name in RunFacts.__struct_fields__ if name.endswith("_count")}
    return RunFacts(**(known | counts | changes))


def outcome(checkpoint_id: str, told: str, cluster_name: str = "orders") -> Outcome:
    verdict, excused_by = Verdict(told.rstrip("*")), "W-1" if told.endswith("*") else None
    of_a_reply = (None, 200, None, None, 1, "get", 2, "{}", None, None, None)
    return Outcome(GROUP, cluster_name, checkpoint_id, verdict, excused_by, *of_a_reply)


def judgement(told: Told) -> Judgement:
    outcomes = tuple(outcome(*row) for row in told.items())
    worst = min((each.verdict for each in outcomes), key=[FAIL, INCONCLUSIVE, ABSENT, PASS].index)
    cluster = Cluster(GROUP, "orders", worst, len(told), 0, 0, 0, 0, None, None, None, None, None)
    return Judgement(cluster, outcomes, ())


def finding(rule_id: str, waiver_id: str | None = None) -> Finding:
    said = ("cluster", rule_id, "high", "-", "-", "-", "-")
    return Finding(GROUP, "orders", None, *said, waiver_id=waiver_id)


class Nights(NamedTuple):
    """A folder in which runs are staged and sealed, each after the one before."""

    folder: Path

    def stage(self, told: Told, facts: RunFacts, *, findings: tuple[Finding, ...] = ()) -> Staging:
        """Stage what a run derives before it compares."""
        staging = Staging(self.folder / facts.run_id, facts.run_id)
        found = judgement(told)
        rows: dict[Table, Any] = {
            OUTCOMES: found.outcomes,
            CLUSTERS: [found.cluster],
            FINDINGS: findings,
        }
        for table, items in rows.items():
            constants = (facts.run_id, facts.audit_name, facts.audit_date)
            with staging.table(table, facts.audit_date, constants) as sink:
                sink.extend(items)
        return staging

    def publish(
        self,
        told: Told,
        number: int = 0,
        before: PublishedRun | None = None,
        *,
        findings: tuple[Finding, ...] = (),
        policy: str = POLICY.text,
        **changes: Any,
    ) -> PublishedRun:
        known = facts(number, **changes)
        staging = self.stage(told, known, findings=findings)
        write_failing(staging, staged(staging, known), known.audit_name, before)
        staging.write("evidence/policy.toml", policy)
        return seal(staging, known)


def staged(staging: Staging, known: RunFacts) -> Side:
    return staged_side(staging, known, POLICY)


def seal(staging: Staging, known: RunFacts) -> PublishedRun:
    manifest = {name: getattr(known, name) for name in RunFacts.__struct_fields__}
    for name in ("started_at", "finished_at"):
        manifest[name] = manifest[name].isoformat()
    staging.seal({**manifest, "complete": True, "exit_code": 0})
    return read_run(staging.path)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


def never(_: PublishedRun) -> Iterator[Judgement]:
    raise AssertionError("nothing is to be judged again")


def diff(older: PublishedRun, newer: PublishedRun, **options: Any) -> Changes:
    return compare(older, published_side(newer), options.pop("rejudge", never), **options)


def since(run: PublishedRun) -> dict[str, int]:
    """Since which night each failing triple of a run fails."""
    (path,) = run.files("failing")
    rows = pq.ParquetFile(path).read().to_pylist()
    return {row["checkpoint_id"]: (row["failing_since"] - FIRST).days for row in rows}


# --- since when ---------------------------------------------------------------------------------


def test_since_when_over_four_nights(nights: Nights) -> None:
    """The first of the consecutive nights; excused or not; unknown or passing breaks the row."""
    told = [
        {"a": "FAIL", "b": "ABSENT", "c": "PASS", "d": "FAIL", "e": "FAIL*", "f": "PASS"},
        {"a": "FAIL", "b": "ABSENT", "c": "FAIL", "d": "INCONCLUSIVE", "e": "FAIL*", "f": "PASS"},
        {"a": "ABSENT", "b": "PASS", "c": "FAIL", "d": "FAIL", "e": "FAIL", "f": "PASS"},
        {"a": "FAIL", "b": "ABSENT", "c": "FAIL", "d": "FAIL", "f": "PASS", "g": "FAIL"},
    ]
    runs: list[PublishedRun] = []
    for number, each in enumerate(told):
        runs.append(nights.publish(each, number, runs[-1] if runs else None))

    assert [since(run) for run in runs] == [
        {"a": 0, "b": 0, "d": 0, "e": 0},
        {"a": 0, "b": 0, "c": 1, "e": 0},
        {"a": 0, "c": 1, "d": 2, "e": 0},
        {"a": 0, "b": 3, "c": 1, "d": 2, "g": 3},
    ]


def test_changes_tell_since_when(nights: Nights) -> None:
    """Of what fails now, by the newer run; of what recovered, since when it had failed."""
    first = nights.publish({"a": "FAIL", "b": "FAIL", "c": "PASS"})
    second = nights.publish({"a": "FAIL", "b": "FAIL", "c": "FAIL"}, 1, first)
    third = nights.publish({"a": "FAIL", "b": "PASS", "c": "FAIL"}, 2, second)
    found = {each.checkpoint_id: (each.kind, each.since) for each in diff(second, third).shown}

    assert found == {
        "a": (ChangeKind.STILL_FAILING, "2026-11-20"),
        "b": (ChangeKind.RECOVERED, "2026-11-20"),
        "c": (ChangeKind.STILL_FAILING, "2026-11-21"),
    }
    # c passed on the first night, and runs that are not neighbours know what was between them.
    assert diff(first, third).shown[0].since == "2026-11-21"


def test_a_run_that_does_not_say_since_when(nights: Nights) -> None:
    """What failed in a run of an earlier version is failing since that run's own night."""
    known = facts(0)
    first = seal(nights.stage({"a": "FAIL", "b": "PASS"}, known), known)
    second = nights.publish({"a": "FAIL", "b": "FAIL"}, 2, first)

    assert first.files("failing") == []
    assert since(second) == {"a": 0, "b": 2}


def test_a_run_without_failures_has_the_file(nights: Nights) -> None:
    """Else it would be taken for one that does not say."""
    (path,) = nights.publish({"a": "PASS"}).files("failing")

    assert pq.ParquetFile(path).read().num_rows == 0
    assert pq.ParquetFile(path).schema_arrow.equals(FAILING.schema)


# --- what is compared ---------------------------------------------------------------------------


def test_triples_clusters_and_findings(nights: Nights) -> None:
    older = nights.publish({"a": "PASS", "b": "FAIL"}, findings=(finding("r-1"),))
    newer = nights.publish(
        {"a": "ABSENT*", "c": "FAIL"},
        1,
        older,
        findings=(finding("r-1"), finding("r-2"), finding("r-3", "W-1")),
    )
    changes = diff(older, newer)

    assert (changes.since_run_id, changes.since_audit_date) == ("run-0", "2026-11-20")
    assert {kind: count for kind, count in changes.counts.items() if count} == {
        ChangeKind.BECAME_UNRESTORABLE: 1,
        ChangeKind.NEW: 1,
        ChangeKind.GONE: 1,
    }
    assert changes.newly_open == changes.newly_open_findings == 1
    assert changes.cluster_counts[ChangeKind.STILL_FAILING] == 1
    assert not changes.rules_changed


def test_a_rule_that_fails_nobody_opens_nothing(nights: Nights) -> None:
    older = nights.publish({"a": "PASS"})
    found = (finding("rpo-age"), finding("rpo-gap"))
    newer = nights.publish({"a": "PASS"}, 1, older, findings=found, policy=soft("rpo-gap"))
    softer = nights.publish(
        {"a": "PASS"}, 2, older, findings=found, policy=soft("rpo-gap") + soft("rpo-age")
    )

    assert diff(older, newer).newly_open_findings == 1
    assert not diff(older, softer).has_newly_open


def test_what_the_policy_of_its_day_bore_was_not_open(nights: Nights) -> None:
    """The policy says again that a rule fails: its findings of last night are new all the same."""
    found = (finding("rpo-gap"),)
    older = nights.publish({"a": "PASS"}, findings=found, policy=soft("rpo-gap"))
    newer = nights.publish({"a": "PASS"}, 1, older, findings=found)

    assert diff(older, newer).newly_open_findings == 1
    assert not diff(newer, nights.publish({"a": "PASS"}, 2, newer, findings=found)).has_newly_open


def test_under_an_older_policy_that_cannot_be_read_all_is_new(nights: Nights) -> None:
    found = (finding("rpo-gap"),)
    older = nights.publish({"a": "PASS"}, findings=found, policy="[")
    newer = nights.publish({"a": "PASS"}, 1, older, findings=found)
    changes = diff(older, newer)

    assert changes.newly_open_findings == 1
    assert changes.note.startswith(f"the policy of {older.run_id} cannot be read: ")


def soft(rule_id: str) -> str:
    """A policy by which a rule fails nothing; laid over the default."""
    return f"[rules.{rule_id}]\nfails = false\n"


def test_a_staged_run_is_compared_as_it_will_be_published(nights: Nights) -> None:
    older = nights.publish({"a": "PASS", "b": "FAIL"})
    known = facts(1)
    staging = nights.stage({"a": "FAIL", "b": "FAIL"}, known)
    newer = staged(staging, known)
    write_failing(staging, newer, known.audit_name, older)

    assert compare(older, newer, never) == diff(older, seal(staging, known))


def test_it_can_be_stopped(nights: Nights) -> None:
    run = nights.publish({"a": "PASS"})

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diff(run, run, tick=stop)


# --- who changed it -----------------------------------------------------------------------------


@pytest.mark.parametrize("changed", ["rules_version", "policy_sha256"])
def test_rules_are_told_from_atlas(nights: Nights, changed: str) -> None:
    other: dict[str, Any] = {changed: "2"}
    older = nights.publish({"a": "PASS", "b": "PASS", "c": "FAIL", "d": "PASS"})
    newer = nights.publish({"a": "FAIL", "b": "FAIL", "c": "PASS", "d": "PASS"}, 1, older, **other)
    asked = []

    def rejudge(run: PublishedRun) -> Iterator[Judgement]:
        asked.append(run.run_id)
        yield judgement({"a": "FAIL", "b": "PASS", "c": "PASS", "d": "PASS"})

    changes = diff(older, newer, rejudge=rejudge)

    assert asked == ["run-0"]
    assert (changes.rules_changed, changes.is_rejudged, changes.note) == (True, True, "")
    assert {each.checkpoint_id: each.cause for each in changes.shown} == {
        "a": Cause.RULES,
        "b": Cause.ATLAS,
        "c": Cause.RULES,
    }
    assert changes.by_rules[ChangeKind.BECAME_UNRESTORABLE] == 1
    assert changes.by_rules[ChangeKind.RECOVERED] == 1


def test_another_default_under_the_same_policy(nights: Nights) -> None:
    """A policy's text says only what is not as in the default that it is laid over."""
    policy = Policy(text="", base_text="severity", rules={})
    older, known = nights.publish({"a": "PASS"}), facts(1)
    staging = nights.stage({"a": "FAIL"}, known)
    newer = staged_side(staging, known, policy)
    write_failing(staging, newer, known.audit_name, older)
    changes = compare(older, newer, lambda _: iter([judgement({"a": "FAIL"})]))
    assert changes.by_rules[ChangeKind.BECAME_UNRESTORABLE] == 1

    staging.write(BASE_POLICY_FILE, policy.base_text)
    published = seal(staging, known)
    assert published_side(published).judged_by == newer.judged_by


def test_evidence_that_cannot_be_judged_again_is_said(nights: Nights) -> None:
    """Then nothing is guessed, and nothing counted twice."""
    older = nights.publish({"a": "PASS", "b": "PASS"})
    newer = nights.publish({"a": "FAIL", "b": "FAIL"}, 1, older, rules_version="2")

    def rejudge(_: PublishedRun) -> Iterator[Judgement]:
        yield judgement({"a": "FAIL"})
        raise InputUnusable("the evidence is gone")

    changes = diff(older, newer, rejudge=rejudge)

    assert (changes.rules_changed, changes.is_rejudged) == (True, False)
    assert "the evidence is gone" in changes.note
    assert changes.counts[ChangeKind.BECAME_UNRESTORABLE] == 2
    assert not any(changes.by_rules.values())


# --- what cannot be read ------------------------------------------------------------------------


def test_a_table_that_is_not_as_it_was(nights: Nights) -> None:
    older, newer = nights.publish({"a": "PASS"}), nights.publish({"a": "PASS"}, 1)
    (path,) = older.files("outcomes")
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(InputUnusable, match="not as it was published"):
        diff(older, newer)


def test_no_table_at_all(nights: Nights) -> None:
    """A digest that is right proves no Parquet file."""
    known = facts(0)
    staging = nights.stage({"a": "PASS"}, known)
    next((staging.path / "outcomes").rglob("*.parquet")).write_bytes(b"no table")
    older = seal(staging, known)

    with pytest.raises(InputUnusable, match=r"outcomes-run-0-00000\.parquet cannot be read"):
        diff(older, older)


@pytest.mark.parametrize("names", ["ba", "aa"])
def test_rows_out_of_order(names: str, nights: Nights) -> None:
    """A merge would take them for new and gone."""
    known = facts(0)
    staging = nights.stage({"z": "PASS"}, known)
    constants = (known.run_id, known.audit_name, known.audit_date)
    with staging.table(OUTCOMES, known.audit_date, constants) as sink:
        sink.extend([outcome(name, "PASS") for name in names])
    run = seal(staging, known)

    with pytest.raises(InputUnusable, match="not in order"):
        diff(run, run)


def test_what_fails_and_is_no_outcome(nights: Nights) -> None:
    known = facts(0)
    staging = nights.stage({"a": "PASS"}, known)
    constants = (known.run_id, known.audit_name, known.audit_date)
    with staging.table(FAILING, known.audit_date, constants) as sink:
        sink.add((GROUP, "orders", "b", FIRST))
    run = seal(staging, known)

    with pytest.raises(InputUnusable, match="orders/b"):
        diff(run, run)


def test_no_verdict(nights: Nights) -> None:
    known = facts(0)
    staging = nights.stage({"a": "PASS"}, known)
    constants = (known.run_id, known.audit_name, known.audit_date)
    with staging.table(CLUSTERS, known.audit_date, constants) as sink:
        sink.add(Cluster(GROUP, "orders", "MAYBE", *[0] * 5, *[None] * 5))  # type: ignore[arg-type]
    run = seal(staging, known)

    with pytest.raises(InputUnusable, match="'MAYBE'"):
        diff(run, run)
