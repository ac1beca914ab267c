"""The journal: every triple, every raw reply and every answer of one run, in one SQLite file.

It is what a run knows. Replies are appended as they arrive and never changed; everything that is
published is derived from here. A commit every 100 replies or 250 ms, in a thread of its own, with
`synchronous=FULL`: a process killed at any moment loses at most the replies of one such interval.

`triples` has an integer key in the order of (project, cluster, checkpoint), so that deriving reads
in key order and memory need not hold the input.
"""

import hashlib
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import zstandard

from pipeline.atlas import Reply, Request
from pipeline.checkpoints import CheckpointRef
from pipeline.errors import OutputsUnwritable
from pipeline.fetch import Item
from pipeline.outcomes import UNSETTLED_KINDS, Failed, Failure, FailureKind, Outcome
from pipeline.triples import BadLine, Fault, Triple

#: Changes with every change of the tables below; a journal of another format is not gone on with.
FORMAT = "1"

COMMIT_REPLIES = 100
COMMIT_SECONDS = 0.25

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE triples (
    id INTEGER PRIMARY KEY, group_id TEXT NOT NULL, cluster_name TEXT NOT NULL,
    checkpoint_id TEXT NOT NULL, line INTEGER NOT NULL, labels TEXT NOT NULL);
CREATE TABLE duplicates (line INTEGER PRIMARY KEY, first_line INTEGER NOT NULL);
CREATE TABLE bad_lines (line INTEGER PRIMARY KEY, faults TEXT NOT NULL);
CREATE TABLE replies (
    id INTEGER PRIMARY KEY, triple_id INTEGER, purpose TEXT NOT NULL, path TEXT NOT NULL,
    sent_at INTEGER NOT NULL, received_at INTEGER NOT NULL, status INTEGER NOT NULL,
    trouble TEXT, trouble_detail TEXT NOT NULL, kind TEXT, headers TEXT NOT NULL,
    body BLOB NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE answers (
    triple_id INTEGER PRIMARY KEY, reply_id INTEGER, kind TEXT, detail TEXT NOT NULL,
    attempts INTEGER NOT NULL, fetched_by TEXT NOT NULL);
"""

_STAGING = """
CREATE TEMP TABLE staged (
    line INTEGER PRIMARY KEY, group_id TEXT, cluster_name TEXT, checkpoint_id TEXT, labels TEXT)
"""
_FIND_DUPLICATES = """
INSERT INTO duplicates SELECT line, first_line FROM (
    SELECT line, min(line) OVER (PARTITION BY group_id, cluster_name, checkpoint_id) AS first_line
    FROM staged) WHERE line > first_line
"""
_KEEP_TRIPLES = """
INSERT INTO triples (group_id, cluster_name, checkpoint_id, line, labels)
SELECT group_id, cluster_name, checkpoint_id, line, labels FROM staged
WHERE line NOT IN (SELECT line FROM duplicates) ORDER BY 1, 2, 3
"""
_QUEUE = """
SELECT t.id, t.group_id, t.cluster_name, t.checkpoint_id, coalesce(a.attempts, 0)
FROM triples t LEFT JOIN answers a ON a.triple_id = t.id
WHERE t.id BETWEEN ? AND ? AND {condition} ORDER BY t.id LIMIT 500
"""
_COUNT = """
SELECT t.group_id, count(*) FROM triples t LEFT JOIN answers a ON a.triple_id = t.id
WHERE {condition} GROUP BY t.group_id
"""
_ANSWERED = """
SELECT t.group_id, t.cluster_name, t.checkpoint_id, t.line, t.labels,
       a.kind, coalesce(a.detail, ''),
       (SELECT count(*) FROM replies x WHERE x.triple_id = t.id AND x.kind IS NOT 'throttled'),
       coalesce(a.fetched_by, 'none'), r.*
FROM triples t LEFT JOIN answers a ON a.triple_id = t.id LEFT JOIN replies r ON r.id = a.reply_id
ORDER BY t.id
"""
_REPLIES = """
SELECT t.group_id, t.cluster_name, t.checkpoint_id, r.*
FROM replies r LEFT JOIN triples t ON t.id = r.triple_id ORDER BY r.id
"""
_KEEP_FACT = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
_KEEP_REPLY = "INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_KEEP_ANSWER = """
INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (triple_id) DO UPDATE SET
    reply_id = excluded.reply_id, kind = excluded.kind, detail = excluded.detail,
    attempts = excluded.attempts, fetched_by = excluded.fetched_by
WHERE excluded.reply_id IS NOT NULL OR answers.reply_id IS NULL
"""

#: What bodies of this API have in common, for the compressor: a body alone is too short to learn
#: from. It is stored with every journal, so that a later version may change it.
_COMMON_BODY: Final = (
    b'{"error":404,"errorCode":"CHECKPOINT_NOT_FOUND","reason":"Not Found","parameters":[],'
    b'"detail":"","badRequestDetail":{"fields":[]}}{"clusterId":"","completed":"2026-01-01T00:00:00Z",'
    b'"groupId":"","id":"","links":[{"href":"https://cloud.mongodb.com/api/atlas/v2/groups/","rel":'
    b'"self"}],"parts":[{"replicaSetName":"-shard-0","shardName":"-shard-0","tokenDiscovered":false,'
    b'"tokenTimestamp":{"date":"2026-01-01T00:00:00Z","increment":1},"typeName":"CONFIG_SERVER"},'
    b'{"replicaSetName":"-config-0","tokenDiscovered":true,"tokenTimestamp":{"date":'
    b'"2026-01-01T00:00:00Z","increment":1},"typeName":"CONFIG_SERVER_REPLICA_SET"},'
    b'{"replicaSetName":"-shard-0","shardName":"-shard-0","tokenDiscovered":true,"tokenTimestamp":'
    b'{"date":"2026-01-01T00:00:00Z","increment":1},"typeName":"REPLICA_SET"}],"restorable":true,'
    b'"started":"2026-01-01T00:00:00Z","timestamp":"2026-01-01T00:00:00Z"}'
)


class StoredReply(msgspec.Struct, frozen=True):
    """A reply as it was kept.

    `purpose` says what was asked for, `kind` what the reply was read as when it arrived (None for
    a checkpoint), `sha256` is hexadecimal, of the body as received.
    """

    id: int
    triple_id: int | None
    purpose: str
    path: str
    kind: FailureKind | None
    sha256: str
    reply: Reply


class Answered(msgspec.Struct, frozen=True):
    """A triple with the reply that answers it, or the failure that stands for one.

    Exactly one of `reply` and `failure` is set. `attempts` counts its requests but for refusals.
    """

    ref: CheckpointRef
    line: int
    labels: str
    reply: StoredReply | None
    failure: Failure | None
    attempts: int
    fetched_by: str


class Tally(msgspec.Struct, frozen=True):
    """What the journal holds, in numbers."""

    triples: int
    duplicates: int
    bad_lines: int
    answers: int
    requests: int
    refusals: int


class Journal:
    """One run's journal. Use as a context manager.

    Reading is not for two threads at a time; `record` and `settle` only queue what a thread of the
    journal's own then writes.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal at `path`, making it if it is not there.

        Raises `OutputsUnwritable` where the file cannot be made or is no SQLite file.
        """
        self.path = path
        with _writable(path), ExitStack() as on_failure:
            self._db = on_failure.enter_context(closing(_connect(path)))
            if not _has_tables(self._db):
                _make_tables(self._db)
            dictionary = _dictionary(self.fact("dictionary"))
            self._decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
            self._next_reply = self._number("SELECT coalesce(max(id), 0) + 1 FROM replies")
            self._writer = _Writer(path, dictionary)
            on_failure.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is queued and close the file."""
        try:
            self._writer.close()
        finally:
            self._db.close()

    def flush(self) -> None:
        """Wait until everything queued so far is committed."""
        self._writer.flush()

    # --- facts about the run ---

    def fact(self, name: str) -> str:
        """Give a fact that was set before; an empty text if it was not."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def set_facts(self, **facts: str) -> None:
        """Keep facts about the run: its id, its dates, the input's header and so on."""
        with _writable(self.path), _transaction(self._db):
            self._db.executemany(_KEEP_FACT, facts.items())

    def tally(self) -> Tally:
        """Count what is committed."""
        return Tally(
            triples=self._number("SELECT count(*) FROM triples"),
            duplicates=self._number("SELECT count(*) FROM duplicates"),
            bad_lines=self._number("SELECT count(*) FROM bad_lines"),
            answers=self._number("SELECT count(*) FROM answers"),
            requests=self._number("SELECT count(*) FROM replies"),
            refusals=self._number("SELECT count(*) FROM replies WHERE kind = 'throttled'"),
        )

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    # --- the input ---

    def load_input(self, lines: Iterable[Triple | BadLine]) -> None:
        """Keep every line of the input: the triples sorted, duplicates and bad lines by number."""
        with _writable(self.path), _transaction(self._db):
            self._db.execute(_STAGING)
            for line in lines:
                self._stage(line)
            self._db.execute(_FIND_DUPLICATES)
            self._db.execute(_KEEP_TRIPLES)
            self._db.execute("DROP TABLE staged")

    def _stage(self, line: Triple | BadLine) -> None:
        if isinstance(line, BadLine):
            faults = msgspec.json.encode(line.faults).decode()
            self._db.execute("INSERT INTO bad_lines VALUES (?, ?)", (line.line, faults))
        else:
            labels = json.dumps(line.labels, ensure_ascii=False)
            row = (line.line, *msgspec.structs.astuple(line.ref), labels)
            self._db.execute("INSERT INTO staged VALUES (?, ?, ?, ?, ?)", row)

    def bad_lines(self) -> Iterator[BadLine]:
        """Give the bad lines in the input's order."""
        for line, faults in self._db.execute("SELECT line, faults FROM bad_lines ORDER BY line"):
            yield BadLine(line, msgspec.json.decode(faults, type=tuple[Fault, ...]))

    # --- asking ---

    def pending(self) -> dict[str, Iterator[Item]]:
        """What has no lasting answer yet: for each project a queue, read as it is used."""
        return self._queues(_pending())

    def pending_counts(self) -> dict[str, int]:
        """Count what has no lasting answer yet, by project; a project without such is left out."""
        self.flush()
        return dict(self._db.execute(_COUNT.format(condition=_pending())).fetchall())

    def failing(self, kinds: Iterable[FailureKind]) -> dict[str, Iterator[Item]]:
        """What has so far been answered with one of `kinds`, as `pending` gives it."""
        return self._queues(f"a.kind IN ({_quoted(kinds)})")

    def _queues(self, condition: str) -> dict[str, Iterator[Item]]:
        self.flush()
        query = _QUEUE.format(condition=condition)
        ranges = self._db.execute(
            "SELECT group_id, min(id), max(id) FROM triples GROUP BY group_id"
        )
        queues = {group_id: self._queue(query, *ends) for group_id, *ends in ranges.fetchall()}
        return {group_id: queue for group_id, queue in queues.items() if queue is not None}

    def _queue(self, query: str, first: int, last: int) -> Iterator[Item] | None:
        """A queue over the triples of one project, which have consecutive ids; None if empty."""
        rows = self._db.execute(query, (first, last)).fetchall()
        return self._read_on(query, rows, last) if rows else None

    def _read_on(self, query: str, rows: Sequence[Any], last: int) -> Iterator[Item]:
        while rows:
            for triple_id, *ref, attempts in rows:
                yield Item(triple_id, CheckpointRef(*ref), attempts)
            rows = self._db.execute(query, (rows[-1][0] + 1, last)).fetchall()

    def record(
        self,
        purpose: str,
        request: Request,
        reply: Reply,
        kind: FailureKind | None,
        triple_id: int | None = None,
    ) -> int:
        """Queue a reply for the next commit; gives its id.

        Raises `OutputsUnwritable` when an earlier commit failed.
        """
        reply_id, self._next_reply = self._next_reply, self._next_reply + 1
        self._writer.put(_KEEP_REPLY, (reply_id, triple_id, purpose, request.path, kind, reply))
        return reply_id

    def settle(self, item: Item, outcome: Outcome) -> None:
        """Queue what answers a triple; it replaces an earlier answer to the same triple.

        Only a failure without a reply never replaces a reply, which says more.
        """
        failure = outcome.failure if isinstance(outcome, Failed) else None
        kind = failure.kind if failure else None
        stands_alone = failure is not None and outcome.reply_id is None
        detail = failure.detail if failure and stands_alone else ""
        fetched_by = "none" if stands_alone and not outcome.attempts else "get"
        row = (item.triple_id, outcome.reply_id, kind, detail, outcome.attempts, fetched_by)
        self._writer.put(_KEEP_ANSWER, row)

    def kinds(self) -> dict[FailureKind | None, int]:
        """Count the answers by failure kind; None stands for a checkpoint."""
        rows = self._db.execute("SELECT kind, count(*) FROM answers GROUP BY kind ORDER BY 2 DESC")
        return {FailureKind(kind) if kind else None: count for kind, count in rows}

    # --- deriving ---

    def answered(self) -> Iterator[Answered]:
        """Give every triple in key order with its reply, or the failure that stands for one.

        Attempts are counted from the replies: a run that was killed between a reply and its answer
        knows them all the same.
        """
        with _writable(self.path):
            self._db.execute("CREATE INDEX IF NOT EXISTS replies_of ON replies (triple_id, kind)")
        for row in self._db.execute(_ANSWERED):
            *ref, line, labels, kind, detail, attempts, fetched_by = row[:9]
            reply = self._stored(row[9:]) if row[9] is not None else None
            failure = None if reply else Failure(FailureKind(kind or "not_asked"), detail=detail)
            yield Answered(CheckpointRef(*ref), line, labels, reply, failure, attempts, fetched_by)

    def replies(self) -> Iterator[tuple[CheckpointRef | None, StoredReply]]:
        """Give every reply in the order of arrival, with the triple it was asked for."""
        for row in self._db.execute(_REPLIES):
            yield CheckpointRef(*row[:3]) if row[0] else None, self._stored(row[3:])

    def _stored(self, row: Sequence[Any]) -> StoredReply:
        reply_id, triple_id, purpose, path, sent_at, received_at, status, trouble = row[:8]
        trouble_detail, kind, headers, body, sha256 = row[8:]
        reply = Reply(
            status,
            _moment(sent_at),
            _moment(received_at),
            json.loads(headers),
            self._decompressor.decompress(body) if body else b"",
            FailureKind(trouble) if trouble else None,
            trouble_detail,
        )
        kind = FailureKind(kind) if kind else None
        return StoredReply(reply_id, triple_id, purpose, path, kind, sha256, reply)


_Row = tuple[str, tuple[Any, ...]]

#: A reply and the answer it gives are two rows.
_COMMIT_ROWS = 2 * COMMIT_REPLIES


class _Writer(threading.Thread):
    """The thread that writes: takes rows from a queue and commits them together."""

    def __init__(self, path: Path, dictionary: zstandard.ZstdCompressionDict) -> None:
        super().__init__(name="journal", daemon=True)
        self._path = path
        self._compressor = zstandard.ZstdCompressor(level=3, dict_data=dictionary)
        self._end = threading.Event()
        self._db = _connect(path)
        self._queue: queue.SimpleQueue[_Row | threading.Event] = queue.SimpleQueue()
        self._error: Exception | None = None
        self.start()

    def put(self, statement: str, row: tuple[Any, ...]) -> None:
        """Queue one row; raises `OutputsUnwritable` when writing has failed before."""
        self._raise_error()
        self._queue.put((statement, row))

    def flush(self) -> None:
        """Wait for a commit of all that was put."""
        if self.is_alive():
            committed = threading.Event()
            self._queue.put(committed)
            committed.wait()
        self._raise_error()

    def close(self) -> None:
        """Commit and end the thread."""
        if self.is_alive():
            self._queue.put(self._end)
            self.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise _unwritable(self._path, self._error) from self._error

    def run(self) -> None:
        """Write until told to end; after an error only let nobody wait in vain."""
        word: threading.Event | None = None
        while word is not self._end:
            rows, word = self._collect()
            if self._error is None:
                self._try_commit(rows)
            if word is not None:
                word.set()
        self._db.close()

    def _collect(self) -> tuple[list[_Row], threading.Event | None]:
        """Take the rows of the next commit, and the word that ends it early, if any."""
        rows: list[_Row] = []
        until: float | None = None
        while len(rows) < _COMMIT_ROWS:
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                taken = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(taken, threading.Event):
                return rows, taken
            rows.append(taken)
            until = until or time.monotonic() + COMMIT_SECONDS
        return rows, None

    def _try_commit(self, rows: Iterable[_Row]) -> None:
        try:
            self._commit(rows)
        except Exception as error:  # noqa: BLE001 - raised where the next row is put
            self._error = error

    def _commit(self, rows: Iterable[_Row]) -> None:
        with _transaction(self._db):
            for statement, row in rows:
                self._db.execute(
                    statement, self._reply_row(*row) if statement == _KEEP_REPLY else row
                )

    def _reply_row(
        self,
        reply_id: int,
        triple_id: int | None,
        purpose: str,
        path: str,
        kind: FailureKind | None,
        reply: Reply,
    ) -> tuple[Any, ...]:
        return (
            reply_id,
            triple_id,
            purpose,
            path,
            _microseconds(reply.sent_at),
            _microseconds(reply.received_at),
            reply.status,
            reply.trouble,
            reply.trouble_detail,
            kind,
            json.dumps(dict(reply.headers)),
            self._compressor.compress(reply.body) if reply.body else b"",
            hashlib.sha256(reply.body).hexdigest(),
        )


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _has_tables(db: sqlite3.Connection) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'facts'"
    return bool(db.execute(query).fetchone()[0])


def _make_tables(db: sqlite3.Connection) -> None:
    """Make all of them or none: a start that is killed here must not leave half a journal."""
    with _transaction(db):
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        facts = {"format": FORMAT, "dictionary": _COMMON_BODY.decode()}
        db.executemany(_KEEP_FACT, facts.items())


def _dictionary(common: str) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(common.encode(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk makes SQLite roll back by itself
            db.execute("ROLLBACK")
        raise


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> OutputsUnwritable:
    return OutputsUnwritable(f"the journal {path} cannot be written: {error}")


def _pending() -> str:
    """Which triples, in SQL, have no lasting answer yet."""
    return f"(a.triple_id IS NULL OR a.kind IN ({_quoted(UNSETTLED_KINDS)}))"


def _quoted(kinds: Iterable[FailureKind]) -> str:
    """Kinds as a list in SQL; they are this program's own words."""
    return ", ".join(f"'{kind}'" for kind in sorted(kinds))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
