"""Derive: what was collected, and a policy → tables, findings, verdicts, evidence, reports.

What was collected is in a journal, or in the folder of a run that was published. Nothing here asks
anybody anything: the same replies give the same rows. Reading goes in key order, a cluster at a
time, so memory does not grow with the input.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import date, datetime
from functools import lru_cache
from itertools import groupby
from typing import Any, Protocol, TextIO, TypeVar
from urllib.parse import urlsplit

import msgspec

from pipeline.addresses import is_loopback
from pipeline.atlas import read_item, read_reply
from pipeline.bodies import read_documented
from pipeline.changes import Changes
from pipeline.checkpoints import Checkpoint, CheckpointRef
from pipeline.columns import RUN_COLUMNS
from pipeline.errors import InputUnusable, ProgramFault
from pipeline.evidence import Evidence
from pipeline.findings import judge
from pipeline.journal import PAGES_AT_HAND, Answered, Batch, StoredReply
from pipeline.judgements import Judgement
from pipeline.listing import Entry, read_page
from pipeline.notices import Clocks, announcements
from pipeline.outcomes import Answer, Failure
from pipeline.policy import Policy
from pipeline.published import AS_IT_WAS, PublishedRun
from pipeline.report import Summary, Tally, render_html, render_markdown
from pipeline.report.summary import RunFacts
from pipeline.report.timeline import Replies
from pipeline.report.unresolved import unresolved_writer
from pipeline.tables import CHECKPOINTS, CLUSTERS, FINDINGS, OUTCOMES, PARTS, REPLIES, RUNS, Table
from pipeline.triples import BadLine, Header


class Collected(Protocol):
    """What is derived from: a `Journal`, or the `Evidence` of a published run."""

    def header(self) -> Header:
        """Give the header of the input."""
        ...

    def bad_lines(self) -> Iterable[BadLine]:
        """Give the bad lines in the input's order."""
        ...

    def replies_of_no_triple(self) -> Iterable[StoredReply]:
        """Give, in the order of arrival, the replies to what was not asked for one triple."""
        ...

    def batches(self) -> Iterable[Batch]:
        """Give every triple in key order, with its answer and all replies, some at a time."""
        ...

    def reply_count(self) -> int:
        """Count all replies."""
        ...


class Rows(Protocol):
    """Takes the rows of one table: see `staging.Sink`."""

    def add(self, item: Any, size: int = 0) -> None:
        """Take one item of the table."""
        ...

    def extend(self, items: Iterable[Any], size: int = 0) -> None:
        """Take items of the table; of evidence, `size` are the bytes of their bodies."""
        ...


class Desk(Protocol):
    """Takes what is derived: `staging.Staging` writes it, `rederived` compares it."""

    def table(
        self, table: Table, audit_date: date, constants: Sequence[Any]
    ) -> AbstractContextManager[Rows]:
        """Begin a table; `constants` are the values of its first columns."""
        ...

    def evidence(self, table: Table, constants: Sequence[Any]) -> AbstractContextManager[Rows]:
        """Begin a table of evidence."""
        ...

    def open_text(self, name: str) -> AbstractContextManager[TextIO]:
        """Begin a text that comes line by line."""
        ...

    def write(self, name: str, content: str | bytes) -> None:
        """Take a small file."""
        ...

    def rows(self, table: Table) -> int:
        """Tell how many rows of a table were taken."""
        ...


AnyDesk = TypeVar("AnyDesk", bound=Desk)


def facts_of(run: PublishedRun) -> RunFacts:
    """Read the facts of a published run back from its manifest; raises `InputUnusable`."""
    manifest = run.path / "manifest.json"
    try:
        return msgspec.json.decode(manifest.read_bytes(), type=RunFacts)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputUnusable(f"{manifest} cannot be read: {error}", hint=AS_IT_WAS) from error


def judgements(collected: Collected, policy: Policy, as_of: datetime) -> Iterator[Judgement]:
    """Judge every cluster in key order; `as_of`, an aware time, is when the run began."""
    for answers in _by_cluster(row for batch in collected.batches() for row in batch.answered):
        yield judge(answers, policy, as_of)


def rejudge(run: PublishedRun, policy: Policy) -> Iterator[Judgement]:
    """Judge the evidence of a published run anew, by today's rules and as of its own start.

    Raises `InputUnusable` where the run's folder is not as it was published.
    """
    return judgements(Evidence(run), policy, run.manifest.started_at)


def derive(
    collected: Collected,
    policy: Policy,
    facts: RunFacts,
    staging: AnyDesk,
    tally: Tally,
    see: Callable[[Judgement | None], None] = lambda _: None,
    compare: Callable[[AnyDesk], Changes | None] = lambda _: None,
) -> Summary:
    """Write everything but the manifest into `staging`; gives the summary that `tally` makes.

    `see` is shown every judgement, and None now and then; it may raise to stop. `compare` tells
    what changed since an earlier run, when the tables are written. Raises `ProgramFault` where a
    law breaks.
    """
    if is_loopback(urlsplit(facts.base_url).hostname or ""):
        tally.notice("The answers came from this machine itself: a simulator, or a proxy to Atlas.")
    seen, clocks = Replies(facts.started_at, facts.finished_at), Clocks()
    with ExitStack() as stack:
        tables = _Tables(stack, staging, facts, seen)
        file = stack.enter_context(staging.open_text("unresolved.csv"))
        write_unresolved = unresolved_writer(file, collected.header())
        for stored in collected.replies_of_no_triple():
            tables.add_replies([stored])
            clocks.see([stored])
        for answers in _by_cluster(_keep_evidence(collected.batches(), tables, clocks, tally)):
            judgement = judge(answers, policy, facts.started_at)
            see(judgement)
            tally.add(judgement)
            tables.add(answers, judgement)
            write_unresolved(judgement.outcomes)
    if clocks.notice:
        tally.notice(clocks.notice)
    tally.timeline = seen.timeline()
    tally.changes = compare(staging)
    summary = tally.summary(facts, collected.bad_lines())
    _write_run(summary, staging)
    _check_replies(staging, collected.reply_count())
    _write_reports(summary, staging)
    return summary


def _keep_evidence(
    batches: Iterable[Batch], tables: "_Tables", clocks: Clocks, tally: Tally
) -> Iterator[Answered]:
    """Give what is answered; on the way every reply goes into the evidence."""
    for batch in batches:
        tables.add_replies(batch.replies)
        clocks.see(batch.replies)
        for row in batch.answered:
            if row.reply is not None:
                for said in announcements(row.reply):
                    tally.notice(said)
            yield row


def _by_cluster(answered: Iterable[Answered]) -> Iterator[list[Answer]]:
    rows = groupby(answered, key=lambda row: (row.ref.group_id, row.ref.cluster_name))
    for _, cluster in rows:
        yield list(map(answer_of, cluster))


def answer_of(row: Answered) -> Answer:
    """Read the stored reply again: what is published comes from there and nowhere else."""
    stored = row.reply
    if stored is None:
        if row.failure is None:
            raise ProgramFault(f"{row.ref} has neither a reply nor a failure")
        return Answer(row.ref, row.line, row.labels, row.failure, row.attempts, row.fetched_by)
    return Answer(
        row.ref,
        row.line,
        row.labels,
        _read_stored(row.ref, stored, row.item),
        row.attempts,
        row.fetched_by,
        stored.received_at,
        stored.reply_id,
        stored.body_sha256,
    )


def _read_stored(ref: CheckpointRef, stored: StoredReply, item: int | None) -> Checkpoint | Failure:
    if item is not None:
        return _read_listed(ref, stored, item)
    if stored.failure_kind is None and (found := read_documented(ref, stored.body)) is not None:
        return found  # which nearly all are; the rest is read with all that the reply says
    return read_reply(ref, stored.reply())


def _read_listed(ref: CheckpointRef, stored: StoredReply, item: int) -> Checkpoint:
    entries = _entries(stored)
    found = read_item(ref, bytes(entries[item].raw)) if item < len(entries) else None
    if found is None:
        raise ProgramFault(f"{ref} is not item {item} of reply {stored.reply_id}, a page of a list")
    return found


@lru_cache(maxsize=PAGES_AT_HAND)
def _entries(page: StoredReply) -> tuple[Entry, ...]:
    """The items of a page, which answer one triple after the other."""
    entries = read_page(page.reply())
    return () if isinstance(entries, Failure) else entries


class _Tables:
    """The tables that have a row for each triple, part, cluster, finding or reply."""

    def __init__(self, stack: ExitStack, staging: Desk, facts: RunFacts, seen: Replies) -> None:
        self._seen = seen
        constants = (facts.run_id, facts.audit_name, facts.audit_date)

        def sink(table: Table) -> Rows:
            return stack.enter_context(staging.table(table, facts.audit_date, constants))

        self._checkpoints = sink(CHECKPOINTS)
        self._parts = sink(PARTS)
        self._outcomes = sink(OUTCOMES)
        self._clusters = sink(CLUSTERS)
        self._findings = sink(FINDINGS)
        self._replies = stack.enter_context(staging.evidence(REPLIES, (facts.run_id,)))

    def add(self, answers: Iterable[Answer], judgement: Judgement) -> None:
        """Add the rows of one cluster."""
        found = [answer for answer in answers if isinstance(answer.found, Checkpoint)]
        self._checkpoints.extend(found)
        self._parts.extend(found)
        self._outcomes.extend(judgement.outcomes)
        self._findings.extend(judgement.findings)
        self._clusters.add(judgement.cluster)

    def add_replies(self, replies: Sequence[StoredReply]) -> None:
        """Add the evidence of some replies."""
        self._seen.add(replies)
        self._replies.extend(replies, sum([len(stored.body) for stored in replies]))


def _write_run(summary: Summary, staging: Desk) -> None:
    """The one row of `runs`: facts and counts, by the columns' own names."""
    facts = summary.run
    known: dict[str, Any] = {
        **msgspec.structs.asdict(facts),
        **msgspec.structs.asdict(summary.counts),
        "excused_count": summary.excused_count,
        "complete": summary.complete,
        "exit_code": summary.exit_code,
    }
    constants = (facts.run_id, facts.audit_name, facts.audit_date)
    with staging.table(RUNS, facts.audit_date, constants) as sink:
        sink.add(tuple(known[name] for name in RUNS.names[len(RUN_COLUMNS) :]))


def _check_replies(staging: Desk, replies: int) -> None:
    """Check that the evidence has every reply; all other counts are checked when all is staged."""
    if staging.rows(REPLIES) != replies:
        raise ProgramFault(
            f"the table {REPLIES.name} has {staging.rows(REPLIES)} rows, {replies} were collected"
        )


def _write_reports(summary: Summary, staging: Desk) -> None:
    document = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    staging.write("summary.json", document + b"\n")
    staging.write("report.md", render_markdown(summary))
    staging.write("report.html", render_html(summary))
