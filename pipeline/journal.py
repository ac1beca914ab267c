"""The journal: every triple, every raw reply and every answer of one run, in one SQLite file.

It is what a run knows. Replies are appended as they arrive and never changed; everything that is
published is derived from here. A commit every 500 replies or 250 ms, in a thread of its own, with
`synchronous=FULL`: a process killed at any moment loses at most what the commit under way was to
write, and what came meanwhile: hundreds of replies where thousands come in a second.

`triples` has an integer key in the order of (project, cluster, checkpoint), so that deriving reads
in key order and memory need not hold the input.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import zstandard

from pipeline.atlas import Reply, Request
from pipeline.checkpoints import CheckpointRef
from pipeline.commits import Committer, Row, connect, damaged, transaction, usable
from pipeline.fetch import Item
from pipeline.outcomes import (
    UNSETTLED_KINDS,
    Failed,
    Failure,
    FailureKind,
    Fetched,
    Outcome,
    microseconds,
    moment,
)
from pipeline.packing import COMMON_BODY, Packer, dictionary_of, digest, seal_of
from pipeline.triples import BadLine, Fault, Header, Triple

#: Changes with every change of the tables below; a journal of another format is not gone on with.
FORMAT = "3"

#: Triples that are read at once when deriving.
_BATCH_TRIPLES = 500

#: And fewer where their replies are larger than this together, in bytes. A few KB each is usual.
_BATCH_BYTES = 32 * 1024 * 1024

#: Pages of lists that are kept at hand when deriving; each holds up to 500 checkpoints. Nothing
#: promises that a list is in the order of ids, so all pages of a cluster should be among them.
PAGES_AT_HAND = 32

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
    body BLOB NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE answers (
    triple_id INTEGER PRIMARY KEY, reply_id INTEGER, item INTEGER, kind TEXT, detail TEXT NOT NULL,
    attempts INTEGER NOT NULL, fetched_by TEXT NOT NULL, seal INTEGER);
"""

_STAGING = """
CREATE TEMP TABLE staged (
    line INTEGER PRIMARY KEY, group_id TEXT, cluster_name TEXT, checkpoint_id TEXT, labels TEXT)
"""
_STAGE = "INSERT INTO staged VALUES (?, ?, ?, ?, ?)"
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
SELECT t.id, t.group_id, t.cluster_name, t.checkpoint_id,
       max(coalesce(a.attempts, 0), coalesce((SELECT count FROM tried WHERE triple_id = t.id), 0))
FROM triples t LEFT JOIN answers a ON a.triple_id = t.id
WHERE t.id BETWEEN ? AND ? AND {condition} ORDER BY t.id LIMIT 500
"""
_COUNT_TRIED = """
INSERT INTO tried
SELECT r.triple_id, count(*) FROM replies r LEFT JOIN answers a ON a.triple_id = r.triple_id
WHERE r.triple_id IS NOT NULL AND r.kind IS NOT 'throttled' AND {condition} GROUP BY r.triple_id
"""
_RANGES = """
SELECT t.group_id, min(t.id), max(t.id) FROM triples t LEFT JOIN answers a ON a.triple_id = t.id
WHERE {condition} GROUP BY t.group_id
"""
_COUNT = """
SELECT t.group_id, count(*) FROM triples t LEFT JOIN answers a ON a.triple_id = t.id
WHERE {condition} GROUP BY t.group_id
"""
_REPLY = """
r.id, r.purpose, t.group_id, t.cluster_name, t.checkpoint_id, r.path, r.sent_at, r.received_at,
r.status, r.kind, r.trouble, r.trouble_detail, r.headers, r.body, r.sha256
"""
_ANSWERED = f"""
SELECT t.line, t.labels, a.reply_id, a.item, a.kind, coalesce(a.detail, ''),
       coalesce(a.attempts, 0), coalesce(a.fetched_by, 'none'), {_REPLY}
FROM triples t LEFT JOIN answers a ON a.triple_id = t.id
LEFT JOIN replies r ON r.id = a.reply_id AND r.triple_id = a.triple_id AND a.item IS NULL
WHERE t.id BETWEEN ? AND ? ORDER BY t.id
"""  # noqa: S608 - put together of this program's own words, as the next ones are
_REPLIES = f"SELECT {_REPLY} FROM replies r LEFT JOIN triples t ON t.id = r.triple_id"  # noqa: S608
_OTHER_REPLIES = f"""
{_REPLIES} WHERE r.triple_id BETWEEN ? AND ?
AND r.id IS NOT (SELECT reply_id FROM answers a WHERE a.triple_id = r.triple_id)
"""  # noqa: S608
_REPLIES_OF_NO_TRIPLE = f"{_REPLIES} WHERE r.triple_id IS NULL ORDER BY r.id"
_ONE_REPLY = f"{_REPLIES} WHERE r.id = ?"
_TRIPLES = "SELECT id, group_id, cluster_name, checkpoint_id FROM triples WHERE id BETWEEN ? AND ?"
_GIVE_UP = """
INSERT INTO answers
SELECT t.id, NULL, NULL, ?, ?, coalesce(tried.count, 0), iif(tried.count, 'get', 'none'), NULL
FROM triples t LEFT JOIN answers a ON a.triple_id = t.id LEFT JOIN tried ON tried.triple_id = t.id
WHERE a.triple_id IS NULL
"""
_KEEP_FACT = "INSERT OR REPLACE INTO facts VALUES (?, ?)"

#: What is written once has a fact that seals it: the input at once, the facts whenever one is set.
_INPUT = (
    "SELECT * FROM triples ORDER BY id",
    "SELECT * FROM duplicates ORDER BY line",
    "SELECT * FROM bad_lines ORDER BY line",
)
_FACTS = ("SELECT name, value FROM facts WHERE name <> 'seal' ORDER BY name",)

#: And what is written all the time has a seal in each row; what SQL itself wrote has none.
_SEALED = ("SELECT * FROM replies", "SELECT * FROM answers WHERE seal IS NOT NULL")
_SIZE_OF_REPLIES = (
    "SELECT count(*), coalesce(sum(size), 0) FROM replies WHERE triple_id BETWEEN ? AND ?"
)
_KEEP_REPLIES = "INSERT INTO replies VALUES {}"
_KEEP_ANSWERS = """
INSERT INTO answers VALUES {} ON CONFLICT (triple_id) DO UPDATE SET
    reply_id = excluded.reply_id, item = excluded.item, kind = excluded.kind,
    detail = excluded.detail, attempts = excluded.attempts, fetched_by = excluded.fetched_by,
    seal = excluded.seal
WHERE excluded.reply_id IS NOT NULL OR answers.reply_id IS NULL
"""

_encode_labels = json.JSONEncoder(ensure_ascii=False).encode


class StoredReply(NamedTuple):
    """A reply as it was kept; also a row of the evidence, but for the run's id.

    `purpose` says what was asked for; the triple is None where none was. Times are microseconds
    since 1970, UTC. `failure_kind` is what the reply was read as when it arrived (None: a good
    answer). `headers` are JSON text; `body` is as received, but for secrets of ours; `body_sha256`
    is its digest, hexadecimal.
    """

    reply_id: int
    purpose: str
    group_id: str | None
    cluster_name: str | None
    checkpoint_id: str | None
    path: str
    sent_at: int
    received_at: int
    http_status: int
    failure_kind: str | None
    trouble: str | None
    trouble_detail: str
    headers: str
    body: bytes
    body_sha256: str

    def reply(self) -> Reply:
        """Give the reply as the transport gave it."""
        return Reply(
            self.http_status,
            moment(self.sent_at),
            moment(self.received_at),
            json.loads(self.headers),
            self.body,
            FailureKind(self.trouble) if self.trouble else None,
            self.trouble_detail,
        )


class Answered(msgspec.Struct, frozen=True, gc=False):
    """A triple with the reply that answers it, or the failure that stands for one.

    Exactly one of `reply` and `failure` is set. `item` is the triple's place in the reply where
    that is a page of a list. `attempts` counts the requests for it alone, refusals left out.
    """

    ref: CheckpointRef
    line: int
    labels: str
    reply: StoredReply | None
    item: int | None
    failure: Failure | None
    attempts: int
    fetched_by: str


class Taken(NamedTuple):
    """How a triple was answered in another run; `kind` None: with a checkpoint."""

    reply_id: int
    item: int | None
    kind: FailureKind | None
    attempts: int
    fetched_by: str


class Batch(NamedTuple):
    """Consecutive triples, how each is answered, and every reply to a request for one of them."""

    answered: list[Answered]
    replies: list[StoredReply]


class Tally(msgspec.Struct, frozen=True):
    """What the journal holds, in numbers; `answers` are those that are not asked for again."""

    triples: int
    duplicates: int
    bad_lines: int
    answers: int
    requests: int
    refusals: int

    @property
    def kept(self) -> str:
        """How far the run is, in words."""
        return f"{self.answers:,} of {self.triples:,} triples are answered and kept"


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
        with usable(path), ExitStack() as on_failure:
            self._db = on_failure.enter_context(closing(connect(path)))
            if not _has_tables(self._db):
                _make_tables(self._db)
            dictionary = dictionary_of(self.fact("dictionary"))
            self._decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
            self._next_reply = self._number("SELECT coalesce(max(id), 0) + 1 FROM replies")
            self._pages: dict[int, StoredReply] = {}
            self._writer = Committer(path, Packer(dictionary, _KEEP_REPLIES))
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

    @property
    def is_behind(self) -> bool:
        """Whether the disk is so slow that nothing more should be asked for until it caught up."""
        return self._writer.is_behind

    # --- facts about the run ---

    def fact(self, name: str) -> str:
        """Give a fact that was set before; an empty text if it was not."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", name)
        return str(rows[0][0]) if rows else ""

    def set_facts(self, **facts: str) -> None:
        """Keep facts about the run: its id, its dates, the input's header and so on."""
        with usable(self.path), transaction(self._db):
            self._db.executemany(_KEEP_FACT, facts.items())
            self._db.execute(_KEEP_FACT, ("seal", digest(self._db, _FACTS)))

    def tally(self) -> Tally:
        """Count what is committed."""
        return Tally(
            triples=self._number("SELECT count(*) FROM triples"),
            duplicates=self._number("SELECT count(*) FROM duplicates"),
            bad_lines=self._number("SELECT count(*) FROM bad_lines"),
            answers=self._number(_LASTING),
            requests=self.reply_count() - int(self.fact("taken_replies") or 0),
            refusals=self._number("SELECT count(*) FROM replies WHERE kind = 'throttled'"),
        )

    def reply_count(self) -> int:
        """Count all replies that are committed, those of another run among them."""
        return self._number("SELECT count(*) FROM replies")

    def check(self) -> None:
        """Make sure that it holds what was written: SQLite's own check, and every row's seal.

        Raises `JournalDamaged`. One of another format is not looked into.
        """
        if self.fact("format") != FORMAT:
            return
        with usable(self.path):
            self._db.execute("DELETE FROM facts WHERE false")  # a head may say that it is only read
            found = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise damaged(self.path, found)
            self._check_seals()

    def _check_seals(self) -> None:
        """SQLite itself has sums in its log only: a wrong byte in a value is told by these."""
        if self.fact("run_id"):  # else its input was not read, and nobody goes on with it
            for name, queries in (("input_seal", _INPUT), ("seal", _FACTS)):
                if self.fact(name) != digest(self._db, queries):
                    raise damaged(self.path, f"what is under its {name} is not what was written")
        for query in _SEALED:
            for *row, seal in self._db.execute(query):
                if seal != seal_of(row):
                    raise damaged(self.path, f"a row of its {query.split()[3]}, {row[0]}")

    def _number(self, query: str) -> int:
        return int(self._rows(query)[0][0])

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with usable(self.path):
            return self._db.execute(query, values).fetchall()

    # --- the input ---

    def load_input(self, lines: Iterable[Triple | BadLine]) -> None:
        """Keep every line of the input: the triples sorted, duplicates and bad lines by number."""
        with usable(self.path), transaction(self._db):
            self._db.execute(_STAGING)
            self._db.executemany(_STAGE, self._staged(lines))
            self._db.execute(_FIND_DUPLICATES)
            self._db.execute(_KEEP_TRIPLES)
            self._db.execute("DROP TABLE staged")
            self._db.execute(_KEEP_FACT, ("input_seal", digest(self._db, _INPUT)))

    def _staged(self, lines: Iterable[Triple | BadLine]) -> Iterator[Row]:
        """Rows of triples as they are read; bad lines are kept on the way."""
        for line in lines:
            if isinstance(line, BadLine):
                faults = msgspec.json.encode(line.faults).decode()
                self._db.execute("INSERT INTO bad_lines VALUES (?, ?)", (line.line, faults))
            else:
                labels = _encode_labels(line.labels) if line.labels else "{}"
                yield (line.line, *msgspec.structs.astuple(line.ref), labels)

    def header(self) -> Header:
        """Give the header of the input."""
        return msgspec.json.decode(self.fact("header"), type=Header)

    def bad_lines(self) -> Iterator[BadLine]:
        """Give the bad lines in the input's order."""
        with usable(self.path):
            query = "SELECT line, faults FROM bad_lines ORDER BY line"
            for line, faults in self._db.execute(query):
                yield BadLine(line, msgspec.json.decode(faults, type=tuple[Fault, ...]))

    # --- asking ---

    def pending(self) -> dict[str, Iterator[Item]]:
        """What has no lasting answer yet: for each project a queue, read as it is used."""
        return self._queues(_IS_PENDING)

    def pending_counts(self) -> dict[str, int]:
        """Count what has no lasting answer yet, by project; a project without such is left out."""
        self.flush()
        return dict(self._rows(_COUNT.format(condition=_IS_PENDING)))

    def failing(self, kinds: Iterable[FailureKind]) -> dict[str, Iterator[Item]]:
        """What has so far been answered with one of `kinds`, as `pending` gives it."""
        return self._queues(f"a.kind IN ({_quoted(kinds)})")

    def _queues(self, condition: str) -> dict[str, Iterator[Item]]:
        self.flush()
        self._count_tried()
        query = _QUEUE.format(condition=condition)
        ranges = self._rows(_RANGES.format(condition=condition))
        return {group_id: self._queue(query, *ends) for group_id, *ends in ranges}

    def _count_tried(self) -> None:
        """Count what was asked in vain: a run killed between a reply and its answer knows it."""
        with usable(self.path), transaction(self._db):
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS tried (triple_id PRIMARY KEY, count)")
            self._db.execute("DELETE FROM tried")
            self._db.execute(_COUNT_TRIED.format(condition=_IS_PENDING))

    def _queue(self, query: str, first: int, last: int) -> Iterator[Item]:
        """A queue over the triples of one project, which have consecutive ids."""
        while rows := self._rows(query, first, last):
            for triple_id, *ref, attempts in rows:
                yield Item(triple_id, CheckpointRef(*ref), attempts)
            first = rows[-1][0] + 1

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
        row = (
            reply_id,
            triple_id,
            purpose,
            request.path,
            microseconds(reply.sent_at),
            microseconds(reply.received_at),
            reply.status,
            reply.trouble,
            reply.trouble_detail,
            kind,
            msgspec.json.encode(reply.headers).decode(),
            reply.body,
        )
        self._writer.put(_KEEP_REPLIES, row)
        return reply_id

    def settle(self, item: Item, outcome: Outcome) -> None:
        """Queue what answers a triple; it replaces an earlier answer to the same triple.

        Only a failure without a reply never replaces a reply, which says more.
        """
        failure = outcome.failure if isinstance(outcome, Failed) else None
        kind = failure.kind if failure else None
        stands_alone = failure is not None and outcome.reply_id is None
        detail = failure.detail if failure and stands_alone else ""
        place = outcome.item if isinstance(outcome, Fetched) else None
        if place is not None:
            fetched_by = "list"
        else:
            fetched_by = "none" if stands_alone and not outcome.attempts else "get"
        row = (item.triple_id, outcome.reply_id, place, kind, detail, outcome.attempts, fetched_by)
        self._writer.put(_KEEP_ANSWERS, row)

    def kinds(self) -> dict[FailureKind | None, int]:
        """Count the answers by failure kind; None stands for a checkpoint."""
        rows = self._rows("SELECT kind, count(*) FROM answers GROUP BY kind ORDER BY 2 DESC")
        return {FailureKind(kind) if kind else None: count for kind, count in rows}

    def give_up(self, detail: str) -> int:
        """Answer what has no answer at all with "not asked"; gives how many these are."""
        self.flush()
        self._count_tried()
        with usable(self.path):
            return self._db.execute(_GIVE_UP, (FailureKind.NOT_ASKED, detail)).rowcount

    def settle_log(self) -> None:
        """Bring what is committed from SQLite's log into the file itself."""
        self.flush()
        with usable(self.path):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    # --- what another run was answered ---

    def triples(self) -> Iterator[tuple[int, CheckpointRef]]:
        """Give every triple with its id, in key order."""
        last = self._number("SELECT coalesce(max(id), 0) FROM triples")
        for first in range(1, last + 1, _BATCH_TRIPLES):
            for triple_id, *ref in self._rows(_TRIPLES, first, first + _BATCH_TRIPLES - 1):
                yield triple_id, CheckpointRef(*ref)

    def take(self, stored: StoredReply, triple_id: int | None) -> None:
        """Queue a reply of another run, under the id that it has there."""
        row = (
            stored.reply_id,
            triple_id,
            stored.purpose,
            stored.path,
            stored.sent_at,
            stored.received_at,
            stored.http_status,
            stored.trouble,
            stored.trouble_detail,
            stored.failure_kind,
            stored.headers,
            stored.body,
        )
        self._next_reply = max(self._next_reply, stored.reply_id + 1)
        self._writer.put(_KEEP_REPLIES, row)

    def take_answer(self, triple_id: int, taken: Taken) -> None:
        """Queue what answered a triple in another run."""
        row = (triple_id, taken.reply_id, taken.item, taken.kind, "", taken.attempts)
        self._writer.put(_KEEP_ANSWERS, (*row, taken.fetched_by))

    # --- deriving ---

    def batches(self) -> Iterator[Batch]:
        """Give every triple in key order, with its answer and all replies, some at a time."""
        with usable(self.path):
            self._db.execute("CREATE INDEX IF NOT EXISTS replies_of ON replies (triple_id, size)")
        last = self._number("SELECT coalesce(max(id), 0) FROM triples")
        for first in range(1, last + 1, _BATCH_TRIPLES):
            yield from self._batches(first, min(first + _BATCH_TRIPLES - 1, last))

    def _batches(self, first: int, last: int) -> Iterator[Batch]:
        """Halve what is too much for memory; a single reply was capped by who received it."""
        [(count, size)] = self._rows(_SIZE_OF_REPLIES, first, last)
        if first < last and size > _BATCH_BYTES:
            middle = (first + last) // 2
            yield from self._batches(first, middle)
            yield from self._batches(middle + 1, last)
        else:
            yield self._batch(first, last, count)

    def _batch(self, first: int, last: int, count: int) -> Batch:
        rows = self._rows(_ANSWERED, first, last)
        answered = list(map(self._answered, rows))
        replies = [each.reply for each in answered if each.reply and each.item is None]
        if len(replies) < count:
            replies += map(self._stored, self._rows(_OTHER_REPLIES, first, last))
            replies.sort(key=in_key_order)
        return Batch(answered, replies)

    def replies_of_no_triple(self) -> Iterator[StoredReply]:
        """Give, in the order of arrival, the replies to what was not asked for one triple."""
        with usable(self.path):
            yield from map(self._stored, self._db.execute(_REPLIES_OF_NO_TRIPLE))

    def _answered(self, row: Sequence[Any]) -> Answered:
        line, labels, reply_id, item, kind, detail, attempts, fetched_by = row[:8]
        ref = CheckpointRef(*row[10:13])
        if reply_id is None:
            failure = Failure(FailureKind(kind or "not_asked"), detail=detail)
            return Answered(ref, line, labels, None, None, failure, attempts, fetched_by)
        reply = self._stored(row[8:]) if item is None else self.page(reply_id)
        return Answered(ref, line, labels, reply, item, None, attempts, fetched_by)

    def page(self, reply_id: int) -> StoredReply:
        """Give a reply that answers many triples and belongs to none.

        Raises `JournalDamaged` where there is none.
        """
        if reply_id not in self._pages:
            while len(self._pages) >= PAGES_AT_HAND:
                self._pages.pop(next(iter(self._pages)))
            rows = self._rows(_ONE_REPLY, reply_id)
            self._pages[reply_id] = self._stored(*rows or [_NO_REPLY])
        return self._pages[reply_id]

    def _stored(self, row: Sequence[Any]) -> StoredReply:
        reply_id, body, sha256 = row[0], row[-2], row[-1]
        return StoredReply._make((*row[:-2], self._body(reply_id, body, sha256), sha256))

    def _body(self, reply_id: int | None, packed: bytes, sha256: str) -> bytes:
        """Unpack a body and make sure that it is the one that was received."""
        if reply_id is None:
            raise damaged(self.path, "an answer's reply is not there")
        try:
            body = self._decompressor.decompress(packed)
        except zstandard.ZstdError as error:
            raise damaged(self.path, f"the body of reply {reply_id}: {error}") from error
        if hashlib.sha256(body).hexdigest() != sha256:
            raise damaged(self.path, f"the body of reply {reply_id} is not what was received")
        return body


#: What a join gives where a reply is not there.
_NO_REPLY = (None,) * len(StoredReply._fields)


def in_key_order(stored: StoredReply) -> tuple[str, str, str, int]:
    """Sort replies as the evidence has them: those of no triple first, then by key."""
    key = (stored.group_id or "", stored.cluster_name or "", stored.checkpoint_id or "")
    return (*key, stored.reply_id)


def _has_tables(db: sqlite3.Connection) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'facts'"
    return bool(db.execute(query).fetchone()[0])


def _make_tables(db: sqlite3.Connection) -> None:
    """Make all of them or none: a start that is killed here must not leave half a journal."""
    with transaction(db):
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        facts = {"format": FORMAT, "dictionary": COMMON_BODY.decode()}
        db.executemany(_KEEP_FACT, facts.items())


def _quoted(kinds: Iterable[FailureKind]) -> str:
    """Kinds as a list in SQL; they are this program's own words."""
    return ", ".join(f"'{kind}'" for kind in sorted(kinds))


#: Asked for the first time, or once more: a later start may get another answer.
_IS_PENDING = f"(a.triple_id IS NULL OR a.kind IN ({_quoted(UNSETTLED_KINDS)}))"
_LASTING = f"""
SELECT count(*) FROM answers WHERE kind IS NULL OR kind NOT IN ({_quoted(UNSETTLED_KINDS)})
"""  # noqa: S608
