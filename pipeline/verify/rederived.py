"""Whether a published run's tables follow from the input, the replies and the policy beside them.

The run is derived once more, as every run is, only that nothing is written: every row is compared
with the one that was published, values and not bytes, some hundred at a time. Where the run was
judged by another version of the rules, what hangs on the judgement is not compared, and said so.
"""

import gzip
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO, cast

import msgspec
import pyarrow.parquet as pq

from pipeline import __version__
from pipeline.columns import SCHEMA_VERSION
from pipeline.derive import Rows, derive, facts_of
from pipeline.errors import AuditError, InputUnusable
from pipeline.evidence import POLICY_FILE, Evidence, policy_of, reading
from pipeline.intake import KeptInput, load_input
from pipeline.journal import Answered, Batch, Journal, StoredReply
from pipeline.outcomes import UNSETTLED_KINDS, FailureKind
from pipeline.policy import Policy, default_policy
from pipeline.published import AS_IT_WAS, FIRST_VERSION, PublishedRun
from pipeline.report import Summary, Tally
from pipeline.report.summary import RunFacts
from pipeline.rules import RULES_VERSION
from pipeline.tables import CLUSTERS, FINDINGS, OUTCOMES, RUNS, Table
from pipeline.triples import BadLine, Header
from pipeline.verify.agreement import KEYS, Compared, ComparedText, Problems
from pipeline.verify.intact import Answer, answer_of

#: What hangs on the version of the rules: whole tables, and columns of the others.
_JUDGED_TABLES = frozenset({CLUSTERS.name, FINDINGS.name})
_JUDGED_COLUMNS = {
    OUTCOMES.name: frozenset({"verdict", "excused_by"}),
    RUNS.name: frozenset({"pass_count", "fail_count", "excused_count", "complete", "exit_code"}),
}

#: What of the summary every version says alike; the rest is words and choices of its version.
_SUMMED = frozenset({"run", "counts", "complete", "excused_count", "exit_code"})

#: What of the summary rests on another run, and on what `discover` had listed. Among the notices
#: are some about these: there may be more of them than follow from the run's own evidence.
_ELSEWHERE = frozenset({"changes", "beyond", "notices"})


def is_rederived(run: PublishedRun) -> Answer:
    """Tell whether the run's tables follow from its evidence."""
    found = Problems()
    try:
        facts = facts_of(run)
        policy = _policy(run, facts, found)
        _compare_input(run, facts, found)
        _derive_again(run, facts, policy, found)
        _count_rows(run, found)
    except AuditError as error:
        found.problem("not all of it could be derived again", str(error))
    return answer_of(found.said, found.problems())


# --- the policy, the input -----------------------------------------------------------------------


def _policy(run: PublishedRun, facts: RunFacts, found: Problems) -> Policy:
    """The run's policy; one of another version of the rules cannot judge today."""
    text = run.file(POLICY_FILE).read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    if digest != facts.policy_sha256:
        found.problem(POLICY_FILE, f"has SHA-256 {digest}, wanted {facts.policy_sha256}")
    if facts.rules_version != RULES_VERSION:
        found.say(
            f"judged by rules version {facts.rules_version}, and this program has "
            f"{RULES_VERSION}: verdicts, findings and clusters are not compared; all else is"
        )
        return default_policy()
    return policy_of(run)


def _compare_input(run: PublishedRun, facts: RunFacts, found: Problems) -> None:
    """Read the input as a run does, and compare its triples, lines and labels with the outcomes."""
    path = run.file("evidence/input.csv.gz")
    digest = _digest_of_text(path)
    if digest != facts.input_sha256:
        found.problem(
            "evidence/input.csv.gz", f"its text has SHA-256 {digest}, wanted {facts.input_sha256}"
        )
    with TemporaryDirectory() as folder, Journal(Path(folder, "input")) as journal:
        load_input(KeptInput(path, digest, facts.input_source), journal, strict=False)
        _compare_counts(journal, facts, found)
        names = (*KEYS[OUTCOMES.name], "input_line", "labels")
        compared = Compared(OUTCOMES, names, run, found)
        with compared:
            for batch in journal.batches():
                compared.extend([_of_input(each) for each in batch.answered])
    found.say(f"{compared.count:,} triples, as the input has them")


def _of_input(row: Answered) -> tuple[Any, ...]:
    return (row.ref.group_id, row.ref.cluster_name, row.ref.checkpoint_id, row.line, row.labels)


def _digest_of_text(path: Path) -> str:
    with reading(path), gzip.open(path, "rb") as file:
        return hashlib.file_digest(cast("Any", file), "sha256").hexdigest()


def _compare_counts(journal: Journal, facts: RunFacts, found: Problems) -> None:
    tally = journal.tally()
    counts = {
        "line_count": int(journal.fact("line_count")),
        "triple_count": tally.triples,
        "duplicate_count": tally.duplicates,
        "bad_line_count": tally.bad_lines,
    }
    for name, count in counts.items():
        if getattr(facts, name) != count:
            found.problem(
                "manifest.json", f"{name} is {getattr(facts, name)}, the input has {count}"
            )


# --- deriving again ------------------------------------------------------------------------------


def _derive_again(run: PublishedRun, facts: RunFacts, policy: Policy, found: Problems) -> None:
    if facts.schema_version != SCHEMA_VERSION:
        found.say(
            f"tables of schema version {facts.schema_version}, and this program has "
            f"{SCHEMA_VERSION}: columns that both have are compared"
        )
    is_judged = facts.rules_version == RULES_VERSION
    collected = _Collected(run, facts, found)
    desk = _Desk(run, found, is_judged=is_judged, names=_names_of_summary(facts, found))
    tally = Tally(policy, run.manifest.shortfalls)
    for notice in run.manifest.notices:
        tally.notice(notice)
    try:
        summary = derive(collected, policy, facts, desk, tally)
    finally:
        collected.say_passed_over()
    if is_judged:
        _compare_ending(run, summary, policy, found)
    collected.compare_counts()
    found.say(f"{desk.compared:,} rows of {len(KEYS)} tables, from {collected.replies:,} replies")


def _names_of_summary(facts: RunFacts, found: Problems) -> frozenset[str]:
    """What of the summary is compared: all that the run's own evidence gives, where it is ours."""
    if facts.tool_version == __version__:
        return frozenset(Summary.__struct_fields__) - _ELSEWHERE
    found.say(
        f"published by version {facts.tool_version}, and this is {__version__}: of summary.json "
        f"{', '.join(sorted(_SUMMED))} are compared, and not what it puts in words"
    )
    return _SUMMED


def _compare_ending(run: PublishedRun, summary: Summary, policy: Policy, found: Problems) -> None:
    """Compare how the run ended, and by which policy, as its manifest has it."""
    wanted = {
        "complete": summary.complete,
        "exit_code": summary.exit_code,
        "policy_name": policy.name,
    }
    for name, value in wanted.items():
        if (stored := getattr(run.manifest, name)) != value:
            found.problem("manifest.json", f"{name} is {stored}, wanted {value}")


class _Collected:
    """The run's evidence; on its way what the manifest says of it is counted."""

    def __init__(self, run: PublishedRun, facts: RunFacts, found: Problems) -> None:
        self._evidence = Evidence(run)
        self._facts = facts
        self._found = found
        self._refusals = 0
        self._passed_over: list[str] = []
        self.replies = 0

    def header(self) -> Header:
        return self._evidence.header()

    def bad_lines(self) -> Iterable[BadLine]:
        return self._evidence.bad_lines()

    def reply_count(self) -> int:
        return self._evidence.reply_count()

    def replies_of_no_triple(self) -> Iterator[StoredReply]:
        for stored in self._evidence.replies_of_no_triple():
            self._count(stored)
            yield stored

    def batches(self) -> Iterator[Batch]:
        for batch in self._evidence.batches():
            for stored in batch.replies:
                self._count(stored)
            if self._facts.parent_run_id is None:
                self._compare_attempts(batch)
            self._note_passed_over(batch)
            yield batch

    def _count(self, stored: StoredReply) -> None:
        self.replies += 1
        self._refusals += stored.failure_kind == FailureKind.THROTTLED

    def _compare_attempts(self, batch: Batch) -> None:
        """No triple can have been asked more often than there are replies."""
        asked = Counter(
            (each.group_id, each.cluster_name, each.checkpoint_id)
            for each in batch.replies
            if each.failure_kind != FailureKind.THROTTLED
        )
        for row in batch.answered:
            count = asked[msgspec.structs.astuple(row.ref)]
            if row.attempts > count:
                wanted = f"at most {count}, as there are replies"
                self._found.problem("outcomes", f"{row.ref}: attempts {row.attempts}, {wanted}")

    def _note_passed_over(self, batch: Batch) -> None:
        """Keep which triples have a definite reply later than the one that counts.

        That is so where a run was killed between a reply and its answer, and then had no time left.
        """
        last_definite = {
            (each.group_id, each.cluster_name, each.checkpoint_id): each.reply_id
            for each in batch.replies
            if each.failure_kind is None or each.failure_kind not in UNSETTLED_KINDS
        }
        for row in batch.answered:
            counts = row.reply.reply_id if row.reply is not None else 0
            last = last_definite.get(msgspec.structs.astuple(row.ref), 0)
            if row.item is None and last > counts:
                self._passed_over.append(str(row.ref))

    def say_passed_over(self) -> None:
        """Say what no table can: an answer was there, and another one counts."""
        if self._passed_over:
            said = f"of {len(self._passed_over):,} triples a later definite reply does not count"
            self._found.say(f"{said}: look into {', '.join(self._passed_over[:3])}")

    def compare_counts(self) -> None:
        """Compare what the manifest counts; a run that completes another holds older replies."""
        facts = self._facts
        wanted = {"refusal_count": self._refusals}
        if facts.parent_run_id is None:
            wanted["request_count"] = self.replies
        for name, count in wanted.items():
            if getattr(facts, name) != count:
                said = f"{name} is {getattr(facts, name)}, the evidence has {count}"
                self._found.problem("manifest.json", said)


class _Desk:
    """Takes what is derived, and compares it with what was published."""

    def __init__(
        self, run: PublishedRun, found: Problems, *, is_judged: bool, names: frozenset[str]
    ) -> None:
        """`names`: what of the summary is compared."""
        self._names = names
        self._run = run
        self._found = found
        self._is_judged = is_judged
        self._rows: dict[str, int] = {}

    @property
    def compared(self) -> int:
        """Rows that were compared."""
        return sum(self._rows.values())

    def table(
        self,
        table: Table,
        audit_date: date,  # noqa: ARG002 - it only says where a table is written
        constants: Sequence[Any],
    ) -> AbstractContextManager[Rows]:
        return self._table(table, constants)

    def evidence(self, table: Table, constants: Sequence[Any]) -> AbstractContextManager[Rows]:
        has_order = self._run.manifest.tool_version != FIRST_VERSION
        return self._table(table, constants, is_compared=has_order)

    @contextmanager
    def _table(
        self, table: Table, constants: Sequence[Any], *, is_compared: bool = True
    ) -> Iterator[Rows]:
        left_out: frozenset[str] = frozenset()
        if not self._is_judged:
            left_out = _JUDGED_COLUMNS.get(table.name, left_out)
        names = [name for name in table.names if name not in left_out]
        is_compared &= self._is_judged or table.name not in _JUDGED_TABLES
        rows = Compared(table, names, self._run, self._found, constants)
        with rows if is_compared else rows.uncompared() as taken:
            yield taken
        self._rows[table.name] = rows.count

    @contextmanager
    def open_text(self, name: str) -> Iterator[TextIO]:
        with self._run.file(name).open(encoding="utf-8", newline="") as file:
            text = ComparedText(file)
            yield cast("TextIO", text)
            if text.differs or file.read(1):
                self._found.problem(name, "is not what the outcomes give")

    def write(self, name: str, content: str | bytes) -> None:
        """Compare the summary; pages say the same once more, and may be laid out anew."""
        if name == "summary.json" and self._is_judged:
            self._compare_summary(msgspec.json.decode(content))

    def _compare_summary(self, wanted: dict[str, Any]) -> None:
        path = self._run.file("summary.json")
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InputUnusable(f"{path} cannot be read: {error}", hint=AS_IT_WAS) from error
        names = self._names
        if names is not _SUMMED:
            names = names | (stored.keys() - _ELSEWHERE)
            self._compare_notices(stored.get("notices"), wanted["notices"])
        found, derived = _values_of(stored, names), _values_of(wanted, names)
        for name in sorted(derived.keys() | found.keys()):
            if found.get(name) != derived.get(name):
                said = _unlike(name, found.get(name), derived.get(name))
                self._found.problem("summary.json", said)

    def _compare_notices(self, stored: Any, wanted: Sequence[str]) -> None:
        """None may be left out that follows from the evidence and the manifest."""
        listed = stored if isinstance(stored, list) else []
        for notice in wanted:
            if notice not in listed:
                self._found.problem("summary.json", f"notices lack {notice!r}")

    def rows(self, table: Table) -> int:
        return self._rows.get(table.name, 0)


def _values_of(summary: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Give what a summary has of `names`, by dotted names."""
    found: dict[str, Any] = {}
    for name in names:
        value = summary.get(name)
        inside = value if isinstance(value, dict) else {"": value}
        found |= {f"{name}.{each}".rstrip("."): value for each, value in inside.items()}
    return found


def _unlike(name: str, found: Any, wanted: Any) -> str:
    """Say both values, but for lists, which may be long."""
    if isinstance(found, list | dict) or isinstance(wanted, list | dict):
        return f"{name} is not what the evidence gives"
    return f"{name} is {found}, wanted {wanted}"


def _count_rows(run: PublishedRun, found: Problems) -> None:
    """Compare the rows that the manifest counts with those that the files say they have."""
    try:
        listed = msgspec.json.decode((run.path / "manifest.json").read_bytes(), type=_Listed)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputUnusable(f"the manifest cannot be read: {error}", hint=AS_IT_WAS) from error
    for file in listed.files:
        if file.path.endswith(".parquet"):
            path = run.file(file.path)
            with reading(path):
                rows = pq.read_metadata(path).num_rows
            if rows != file.rows:
                found.problem("manifest.json", f"{file.path} has {rows} rows, not {file.rows}")


class _ListedFile(msgspec.Struct, frozen=True):
    path: str
    rows: int | None = None


class _Listed(msgspec.Struct, frozen=True):
    files: tuple[_ListedFile, ...]
