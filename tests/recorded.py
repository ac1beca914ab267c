"""Runs that are published from a journal written by hand: every kind of answer, and no network."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.atlas import Reply, Request, checkpoints_path, read_reply, request_for
from pipeline.auth import Credentials, Kind
from pipeline.checkpoints import CheckpointRef
from pipeline.fetch import Item
from pipeline.intake import KeptInput, keep_input, load_input
from pipeline.journal import Journal
from pipeline.listing import read_page
from pipeline.outcomes import Failed, Failure, FailureKind, Fetched
from pipeline.policy import Policy, default_policy
from pipeline.publication import Publisher
from pipeline.published import PublishedRun, read_run
from pipeline.runs import AuditFolder
from pipeline.settings import Settings
from pipeline.signing import Signer
from tests.doubles import error, group, reply, trouble

START = datetime(2026, 11, 20, 3, tzinfo=UTC)
ATLAS = "https://cloud.mongodb.com"

Answers = dict[CheckpointRef, Sequence[Reply] | Failure]


def ref(number: int, project: int = 1, cluster: str = "orders") -> CheckpointRef:
    return CheckpointRef(group(project), cluster, f"{number:024x}")


def document(of: CheckpointRef, **changed: Any) -> dict[str, Any]:
    """A checkpoint of a replica set as Atlas tells of it, made an hour before the run."""
    made = (START - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    part = {
        "typeName": "REPLICA_SET",
        "replicaSetName": "rs0",
        "shardName": "rs0",
        "tokenDiscovered": True,
        "tokenTimestamp": {"date": made, "increment": 1},
    }
    return {
        "id": of.checkpoint_id,
        "groupId": of.group_id,
        "clusterId": "c" * 24,
        "started": made,
        "completed": made,
        "timestamp": made,
        "restorable": True,
        "parts": [part],
        **changed,
    }


def good(of: CheckpointRef, **changed: Any) -> Reply:
    return reply(200, document(of, **changed), {"date": "Fri, 20 Nov 2026 03:00:00 GMT"})


def of_every_kind() -> Answers:
    """Two projects; good, bad and absent ones, refusals, troubles, and what was never asked."""
    answers: Answers = {ref(n): [good(ref(n))] for n in range(1, 4)}
    return answers | {
        ref(4): [good(ref(4), restorable=False)],
        ref(5): [error(429), error(500), good(ref(5))],
        ref(6): [error(404)],
        ref(7): [error(500), error(503), trouble(FailureKind.TIMED_OUT)],
        ref(8): Failure(FailureKind.NOT_ASKED, detail="not asked before the deadline"),
        ref(1, 2, "billing"): [good(ref(1, 2, "billing"), parts=[])],
        ref(2, 2, "billing"): [reply(200, {"no": "checkpoint"})],
    }


class Recorder:
    """Writes what would have been collected into a journal, and publishes it."""

    def __init__(self, outputs: Path, audit: str = "nightly", signer: Signer | None = None) -> None:
        self.outputs = outputs
        self.signer = signer
        self.audit = audit
        self.folder = AuditFolder(outputs, audit)
        self.folder.prepare()
        self.bad_line = "x,y,z,nobody"
        self._count = 0

    def publish(
        self,
        answers: Answers,
        *,
        pages: Sequence[Sequence[CheckpointRef]] = (),
        policy: Policy | None = None,
        more: str = "",
        **facts: str,
    ) -> PublishedRun:
        """Publish a run of `answers`, and of `pages` of lists; `more` are further lines."""
        self._count += 1
        listed = [each for page in pages for each in page]
        source = self.outputs / f"{self.audit}.csv"
        source.write_text(_csv([*answers, *listed], f"{self.bad_line}\n{more}"), "utf-8")
        kept = keep_input(str(source), self.folder.work)
        path = self.folder.work / f"{self._count}.journal"
        with Journal(path) as journal:
            load_input(kept, journal, strict=False)
            self._set_facts(journal, kept, facts)
            _record(journal, answers, pages)
            published = self._publisher(policy).publish(journal, kept, None, ())
        path.unlink()
        return read_run(published.path)

    def _publisher(self, policy: Policy | None) -> Publisher:
        settings = Settings(
            source="-",
            output_dir=self.outputs,
            audit_name=self.audit,
            policy=policy or default_policy(),
            credentials=Credentials(Kind.SERVICE_ACCOUNT, "id", "secret"),
            base_url=ATLAS,
            signer=self.signer,
        )
        ended: Callable[[], datetime] = lambda: START + timedelta(minutes=9)  # noqa: E731
        return Publisher(settings, self.folder, lambda _: None, ended)

    def _set_facts(self, journal: Journal, kept: KeptInput, facts: dict[str, str]) -> None:
        known = {
            "run_id": f"20261120T030000Z-{self.audit}-{self._count:06x}",
            "started_at": START.isoformat(),
            "audit_date": START.date().isoformat(),
            "credential_id": "id",
            "input_source": kept.source,
            "parent_run_id": "",
            **facts,
        }
        journal.set_facts(**known)


def _csv(refs: Sequence[CheckpointRef], more: str) -> str:
    lines = [f"{r.group_id},{r.cluster_name},{r.checkpoint_id},team-{r.group_id[-1]}" for r in refs]
    head = "project_id,cluster_name,checkpoint_id,owner"
    return "\n".join([head, *lines, lines[0], more]) + "\n"


def _record(journal: Journal, answers: Answers, pages: Sequence[Sequence[CheckpointRef]]) -> None:
    items = {found: Item(triple_id, found) for triple_id, found in journal.triples()}
    journal.record(
        "preliminary", Request("/api/atlas/v2/groups"), reply(200, {"results": []}), None
    )
    for page in pages:
        _record_page(journal, page, items)
    for of, found in answers.items():
        _record_one(journal, items[of], found)
    journal.flush()


def _record_page(
    journal: Journal, page: Sequence[CheckpointRef], items: dict[CheckpointRef, Item]
) -> None:
    """A page that shows each checkpoint twice: the first one counts."""
    twice = [*map(document, page), *(document(of, restorable=False) for of in page)]
    found = reply(200, {"results": twice})
    request = Request(checkpoints_path(page[0].group_id, page[0].cluster_name))
    reply_id = journal.record("list", request, found, None)
    entries = read_page(found)
    assert not isinstance(entries, Failure)
    for of, entry in zip(page, entries, strict=False):
        checkpoint = read_reply(of, reply(200, document(of)))
        assert not isinstance(checkpoint, Failure)
        journal.settle(items[of], Fetched(checkpoint, reply_id, 0, entry.index))


def _record_one(journal: Journal, item: Item, found: Sequence[Reply] | Failure) -> None:
    if isinstance(found, Failure):
        journal.settle(item, Failed(found, None, 0))
        return
    attempts = 0
    for each in found:
        answer = read_reply(item.ref, each)
        kind = answer.kind if isinstance(answer, Failure) else None
        reply_id = journal.record("checkpoint", request_for(item.ref), each, kind, item.triple_id)
        attempts += kind is not FailureKind.THROTTLED
        failed = isinstance(answer, Failure)
        outcome = Failed(answer, reply_id, attempts) if failed else None  # type: ignore[arg-type]
        journal.settle(item, outcome or Fetched(answer, reply_id, attempts))  # type: ignore[arg-type]
