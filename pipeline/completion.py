"""Completing a run: its definite answers are taken over, with the replies that they rest on.

All is read from the run's own folder, whose digests are checked first. Its outcomes and its
evidence are sorted by the triples' keys, and so are the triples of a journal that holds the same
input: everything is read side by side, a few rows at a time.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.checkpoints import CheckpointRef
from pipeline.errors import InputUnusable
from pipeline.evidence import BYTES_AT_ONCE, ROWS_AT_ONCE, Evidence
from pipeline.journal import Journal, Taken
from pipeline.outcomes import FailureKind, Verdict
from pipeline.published import AS_IT_WAS, PublishedRun


class _Definite(NamedTuple):
    """A triple of the new run with the answer that it has already."""

    triple_id: int
    ref: CheckpointRef
    reply_id: int
    kind: FailureKind | None
    attempts: int
    fetched_by: str


def take_answers(parent: PublishedRun, journal: Journal) -> int:
    """Lay the definite answers of `parent` into a journal that holds its input; gives their number.

    Raises `InputUnusable` where the run's folder is not as it was published.
    """
    evidence = Evidence(parent)
    journal.set_facts(taken_replies=str(_take_replies(evidence, journal)))
    count = 0
    for count, definite in enumerate(_definite(evidence, journal), 1):
        triple_id, ref, reply_id, kind, attempts, fetched_by = definite
        item = evidence.item_of(ref, reply_id) if fetched_by == "list" else None
        journal.take_answer(triple_id, Taken(reply_id, item, kind, attempts, fetched_by))
        if count % ROWS_AT_ONCE == 0:
            journal.flush()
    journal.flush()
    return count


def _take_replies(evidence: Evidence, journal: Journal) -> int:
    """Take the replies that definite answers rest on; gives their number."""
    pages = {each.reply_id for each in _definite(evidence, journal) if each.fetched_by == "list"}
    single = (each for each in _definite(evidence, journal) if each.fetched_by != "list")
    wanted = next(single, None)
    count, size = 0, 0
    for stored in evidence.replies():
        if stored.group_id is None and stored.reply_id in pages:
            journal.take(stored, None)
        elif wanted is not None and stored.reply_id == wanted.reply_id:
            journal.take(stored, wanted.triple_id)
            wanted = next(single, None)
        else:
            continue
        count, size = count + 1, size + len(stored.body)
        if count % ROWS_AT_ONCE == 0 or size > BYTES_AT_ONCE:
            journal.flush()
            size = 0
    if wanted is not None:
        raise InputUnusable(
            f"the evidence of {evidence.run.run_id} lacks reply {wanted.reply_id}",
            hint=AS_IT_WAS,
        )
    journal.flush()
    return count


def _definite(evidence: Evidence, journal: Journal) -> Iterator[_Definite]:
    for (triple_id, ref), told in zip(journal.triples(), evidence.told(), strict=True):
        if ref != told.ref:
            raise InputUnusable(
                f"the outcomes of {evidence.run.run_id} are not those of its input", hint=AS_IT_WAS
            )
        if told.verdict != Verdict.INCONCLUSIVE and told.reply_id is not None:
            kind = FailureKind(told.failure_kind) if told.failure_kind else None
            yield _Definite(triple_id, ref, told.reply_id, kind, told.attempts, told.fetched_by)
