"""SQLite's log: what of it a crash may have cut short, and what was damaged."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from pipeline.wal import is_damaged

COMMITS = 12


@pytest.fixture(params=[512, 4096, 65536])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The log of a database that was killed after so many transactions."""
    path = tmp_path / "live.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size = {request.param}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("CREATE TABLE things (n, body)")
    for n in range(COMMITS):
        db.execute("INSERT INTO things VALUES (?, randomblob(300))", (n,))
    for name in ("live.db", "live.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / name.replace("live", "dead"))
    db.close()
    return tmp_path / "dead.db-wal"


def rows(log: Path) -> int:
    """What SQLite itself takes from a log; it does so without a word."""
    folder = log.parent / "opened"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("dead.db", "dead.db-wal"):
        shutil.copy(log.parent / name, folder / name)
    db = sqlite3.connect(folder / "dead.db")
    try:
        return int(db.execute("SELECT count(*) FROM things").fetchone()[0])
    finally:
        db.close()


def rows_or_none(log: Path) -> int:
    try:
        return rows(log)
    except sqlite3.OperationalError:  # not even the table is there
        return 0


def flip(log: Path, place: int) -> None:
    content = bytearray(log.read_bytes())
    content[place] ^= 1
    log.write_bytes(content)


def test_a_sound_log_is_sound(log: Path) -> None:
    assert rows(log) == COMMITS
    assert not is_damaged(log)


def test_no_log_is_sound(tmp_path: Path) -> None:
    assert not is_damaged(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    assert not is_damaged(tmp_path / "empty")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_wrong_byte_in_the_midst_is_damage(share: float, log: Path) -> None:
    flip(log, int(log.stat().st_size * share))

    assert rows(log) < COMMITS - 1
    assert is_damaged(log)


@pytest.mark.parametrize("place", [0, 10, 20, 28])
def test_a_wrong_byte_in_the_head_is_damage(place: int, log: Path) -> None:
    flip(log, place)
    assert rows_or_none(log) == 0
    assert is_damaged(log)


def test_a_log_that_was_cut_short_is_none(log: Path) -> None:
    """A crash may do that to the end: nobody relied on it."""
    content = log.read_bytes()
    for left in range(0, len(content), max(1, len(content) // 200)):
        log.write_bytes(content[:left])
        assert not is_damaged(log)


def test_the_last_transaction_may_be_cut_short_in_its_midst(log: Path) -> None:
    flip(log, log.stat().st_size - 40)

    assert rows(log) == COMMITS - 1
    assert not is_damaged(log)


def test_what_was_written_before_the_log_began_anew_is_not_taken_for_its_own(
    tmp_path: Path,
) -> None:
    path = tmp_path / "live.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE things (n, body)")
    for n in range(COMMITS):
        db.execute("INSERT INTO things VALUES (?, randomblob(5000))", (n,))
    db.execute("PRAGMA wal_checkpoint(RESTART)")
    db.execute("INSERT INTO things VALUES (0, 'once more')")

    assert not is_damaged(tmp_path / "live.db-wal")
    db.close()
