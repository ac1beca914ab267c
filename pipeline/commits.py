"""Commits: the thread that writes a journal, and how its SQLite file is opened.

Rows are put at any time and written together: every 500 replies or 250 ms, in a thread of its own,
with `synchronous=FULL`. What was put since the last commit is what a killed process loses.
"""

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.errors import JournalDamaged, OutputsUnwritable

COMMIT_REPLIES = 500
COMMIT_SECONDS = 0.25

#: A reply and the answer it gives are two rows.
COMMIT_ROWS = 2 * COMMIT_REPLIES

#: Rows that may wait for a disk that stalls, some tens of megabytes: two seconds of all that this
#: program can fetch. As many again may be on their way to the disk.
QUEUE_ROWS = 20 * COMMIT_ROWS

#: And bytes of bodies among them: a reply may have megabytes.
QUEUE_BYTES = 64 * 1024 * 1024

Row = tuple[Any, ...]
Pack = Callable[[str, Sequence[Row]], Sequence[Row]]

#: Rows that one statement takes: each step of SQLite lets go of Python's lock and has to win it
#: back from the event loop, which costs more than the step.
_STATEMENT_ROWS = 50


class Committer(threading.Thread):
    """The thread that writes: takes what was put since its last commit and commits it together."""

    def __init__(self, path: Path, pack: Pack) -> None:
        """`pack` turns rows, as they were put for a statement, into what is stored."""
        super().__init__(name="journal", daemon=True)
        self._path = path
        self._pack = pack
        self._end = threading.Event()
        self._db = connect(path)
        self._due = threading.Event()
        self._put: deque[tuple[str, Row] | threading.Event] = deque()
        # Each is counted up by one thread only: who puts, and who writes.
        self._put_bytes = self._taken_bytes = 0
        self._error: Exception | None = None
        self.start()

    def put(self, statement: str, row: Row) -> None:
        """Let one row be written; raises `OutputsUnwritable` when writing has failed before."""
        self._raise_error()
        self._put.append((statement, row))
        self._put_bytes += _size_of(row)
        if len(self._put) >= COMMIT_ROWS and not self._due.is_set():
            self._due.set()

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be written that no more should be put for now."""
        return len(self._put) > QUEUE_ROWS or self._put_bytes - self._taken_bytes > QUEUE_BYTES

    def flush(self) -> None:
        """Wait for a commit of all that was put."""
        if self.is_alive():
            committed = threading.Event()
            self._put.append(committed)
            self._due.set()
            committed.wait()
        self._raise_error()

    def close(self) -> None:
        """Commit and end the thread."""
        if self.is_alive():
            self._put.append(self._end)
            self._due.set()
            self.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise unusable(self._path, self._error) from self._error

    def run(self) -> None:
        """Write until told to end; after an error only let nobody wait in vain."""
        words: list[threading.Event] = []
        while self._end not in words:
            self._due.wait(COMMIT_SECONDS)
            self._due.clear()
            words = []
            try:
                self._commit(words)
            except Exception as error:  # noqa: BLE001 - raised where the next row is put
                self._error = error
            for word in words:
                word.set()
        self._db.close()

    def _commit(self, words: list[threading.Event]) -> None:
        """Commit what was put; `words` gets who waits for it."""
        rows = self._take(words)
        if rows and self._error is None:
            with transaction(self._db):
                for statement, these in rows.items():
                    _insert(self._db, statement, self._pack(statement, these))

    def _take(self, words: list[threading.Event]) -> dict[str, list[Row]]:
        """Take the rows of the next commit by statement."""
        rows: dict[str, list[Row]] = {}
        for _ in range(len(self._put)):
            taken = self._put.popleft()
            if isinstance(taken, threading.Event):
                words.append(taken)
            else:
                rows.setdefault(taken[0], []).append(taken[1])
                self._taken_bytes += _size_of(taken[1])
        return rows


def _size_of(row: Row) -> int:
    """Bytes of a reply's body, which comes last; nothing else is large."""
    return len(row[-1]) if isinstance(row[-1], bytes) else 0


def _insert(db: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    """Write rows in their order, many with one statement."""
    one = f"({', '.join('?' * len(rows[0]))})"
    many = statement.format(", ".join([one] * _STATEMENT_ROWS))
    whole = len(rows) - len(rows) % _STATEMENT_ROWS
    for first in range(0, whole, _STATEMENT_ROWS):
        db.execute(many, list(chain.from_iterable(rows[first : first + _STATEMENT_ROWS])))
    db.executemany(statement.format(one), rows[whole:])


def connect(path: Path) -> sqlite3.Connection:
    """Open the file so that what is committed is on disk; raises `sqlite3.Error`."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside, or none of it."""
    db.execute("BEGIN")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk makes SQLite roll back by itself
            db.execute("ROLLBACK")
        raise


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Tell trouble with the file as `OutputsUnwritable`, or `JournalDamaged`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: Exception) -> OutputsUnwritable:
    """Say what stands against using a journal."""
    if isinstance(error, sqlite3.Error) and _is_damage(path, error):
        return damaged(path, str(error))
    return OutputsUnwritable(
        f"the journal {path} cannot be written: {error}",
        hint="make room, or mend the permissions, then start the same command again: "
        "what was answered is kept",
    )


def _is_damage(path: Path, error: sqlite3.Error) -> bool:
    """Whether it is the file that is wrong, so that another try would not help."""
    code = getattr(error, "sqlite_errorcode", None)  # a text that is no UTF-8 has none
    if code == sqlite3.SQLITE_READONLY:  # a version in its head that this SQLite only reads
        return os.access(path, os.W_OK)
    # Malformed, or no database; and where our own words are wrong to SQLite, its tables are.
    return code in {None, sqlite3.SQLITE_ERROR} or type(error) is sqlite3.DatabaseError


def damaged(path: Path, what: str) -> JournalDamaged:
    """Say what is wrong with a journal."""
    return JournalDamaged(f"the journal {path} is damaged: {what}")
