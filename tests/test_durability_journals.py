"""Torn and damaged journals: gone on with as far as they are intact, or set aside and said so.

A run is killed when all its answers are journalled and indexed; then its files are damaged in some
way, and the same command is started again. Whatever it finds, it publishes the right rows or none,
and says what it did. CHECKPOINT_AUDIT_TEST_DAMAGES=1000 damages more often.
"""

import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.durability import EXPECTED, Books, Starter, Walker, quick_folder, rows, small

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with threads")

DAMAGES = int(os.environ.get("CHECKPOINT_AUDIT_TEST_DAMAGES", "12"))


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walker]:
    with (
        small(passing=40) as scene,
        Starter(tmp_path_factory.mktemp("streams")) as starter,
        quick_folder() as folder,
    ):
        made = Walker(folder, scene, starter)
        made.begin_and_kill("write_table replies")
        yield made


def restored(walker: Walker) -> tuple[Books, Path]:
    """The killed run; gives its journal, whose answers are in the write-ahead log."""
    books = walker.restore()
    (journal,) = books.journals
    return books, journal


def log_of(journal: Path) -> Path:
    return journal.with_name(journal.name + "-wal")


def settled(walker: Walker) -> tuple[Books, Path]:
    """The killed run, its answers moved into the journal's own file."""
    books, journal = restored(walker)
    with closing(sqlite3.connect(journal)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert not log_of(journal).exists()
    return books, journal


def check(walker: Walker, books: Books, what: str) -> None:
    """Start again, twice at most: the rows are right, and what was done is said."""
    ended = walker.start()
    assert ended.code in {EXPECTED, 73}, f"{what}: {ended.err}"
    assert "Traceback" not in ended.err, f"{what}: {ended.err}"
    books.check()
    went_on = "going on with the unfinished run" in ended.err
    assert went_on or "set aside" in ended.err or "not gone on with" in ended.err, what
    if ended.code == 73:
        assert "set aside" in ended.err, what
        ended = walker.start()
        assert ended.code == EXPECTED, f"{what}: {ended.err}"
    books.check_settled()
    assert rows(ended.run) == walker.wanted, what


def offsets(size: int, *kind: object) -> Iterator[int]:
    """Places in a file, the same in every run of the tests."""
    chance = random.Random(str(kind))
    return (chance.randrange(size) for _ in range(DAMAGES))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x55 if offset % 2 else 0xD5  # so, what was text may be no UTF-8
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


# --- the write-ahead log ---


def test_a_log_that_is_cut(walker: Walker) -> None:
    """At any byte: whole commits before it are gone on with."""
    size = log_of(restored(walker)[1]).stat().st_size
    for offset in (0, 1, 31, 32, 33, size - 1, *offsets(size, "cut")):
        books, journal = restored(walker)
        cut(log_of(journal), offset)
        check(walker, books, f"cut at {offset} of {size}")


def test_a_log_with_a_wrong_byte(walker: Walker) -> None:
    """SQLite's sums tell it: what comes after it never happened."""
    size = log_of(restored(walker)[1]).stat().st_size
    for offset in offsets(size, "log"):
        books, journal = restored(walker)
        flip(log_of(journal), offset)
        check(walker, books, f"byte {offset} of {size}")


# --- the journal's own file ---


def test_a_wrong_byte_in_the_head(walker: Walker) -> None:
    settled(walker)
    for offset in islice(cycle(range(0, 100, 3)), DAMAGES):
        books, journal = settled(walker)
        flip(journal, offset)
        check(walker, books, f"byte {offset}")


def test_a_wrong_byte_anywhere(walker: Walker) -> None:
    """In trees, in rows, in what nobody uses: no row is wrong for it."""
    size = settled(walker)[1].stat().st_size
    for offset in offsets(size, "any"):
        books, journal = settled(walker)
        flip(journal, offset)
        check(walker, books, f"byte {offset} of {size}")


TEXTS = {
    "a body": "SELECT body FROM replies WHERE triple_id IS NOT NULL ORDER BY size DESC",
    "a body's digest": "SELECT sha256 FROM replies WHERE triple_id IS NOT NULL",
    "a checkpoint's id": "SELECT checkpoint_id FROM triples",
    "a project's id": "SELECT group_id FROM triples",
    "a cluster's name": "SELECT cluster_name FROM triples",
    "a label": "SELECT labels FROM triples",
    "an answer": "SELECT fetched_by FROM answers",
    "a reply's headers": "SELECT headers FROM replies WHERE triple_id IS NOT NULL",
    "a bad line's fault": "SELECT faults FROM bad_lines",
    "a fact": "SELECT value FROM facts WHERE name = 'header'",
}


@pytest.mark.parametrize("query", TEXTS.values(), ids=TEXTS)
def test_a_wrong_byte_in_a_value(walker: Walker, query: str) -> None:
    """Where SQLite itself sees nothing wrong."""
    books, journal = settled(walker)
    with closing(sqlite3.connect(journal)) as db:
        found = db.execute(query).fetchone()[0]
    value = found if isinstance(found, bytes) else str(found).encode()
    place = journal.read_bytes().index(value) + len(value) // 2
    flip(journal, place)
    check(walker, books, f"byte {place}")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_file_that_is_cut(walker: Walker, share: float) -> None:
    books, journal = settled(walker)
    cut(journal, int(journal.stat().st_size * share))
    check(walker, books, f"cut to {share}")


def no_log(journal: Path) -> None:
    log_of(journal).unlink()


def no_index(journal: Path) -> None:
    journal.with_name(journal.name + "-shm").unlink()


def wrong_index(journal: Path) -> None:
    journal.with_name(journal.name + "-shm").write_bytes(b"\x55" * 32768)


def no_file_but_its_log(journal: Path) -> None:
    journal.unlink()


def nothing_in_it(journal: Path) -> None:
    journal.write_bytes(b"")


def garbage(journal: Path) -> None:
    journal.write_bytes(b"garbage" * 1000)


def another_database(journal: Path) -> None:
    for path in (journal, log_of(journal)):
        path.unlink()
    with closing(sqlite3.connect(journal)) as db:
        db.execute("CREATE TABLE facts (other TEXT)")


def the_log_of_another(journal: Path) -> None:
    """A log that belongs to a file of the same name, restored from a copy of earlier."""
    shutil.copyfile(journal.parent / "lock", log_of(journal))


@pytest.mark.parametrize(
    "damage",
    [
        no_log,
        no_index,
        wrong_index,
        nothing_in_it,
        garbage,
        another_database,
        the_log_of_another,
    ],
)
def test_files_that_are_not_what_they_were(walker: Walker, damage: Callable[[Path], None]) -> None:
    books, journal = restored(walker)
    damage(journal)
    check(walker, books, damage.__name__)


def test_a_log_without_its_file_is_nobodys(walker: Walker) -> None:
    """There is no journal then to go on with; a new one is not mixed with an old one's log."""
    books, journal = restored(walker)
    no_file_but_its_log(journal)
    ended = walker.start()

    assert ended.code == EXPECTED, ended.err
    books.check_settled()
    assert rows(ended.run) == walker.wanted
