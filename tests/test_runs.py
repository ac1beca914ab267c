"""The outputs of an audit: staged, sealed, published at once, and never half seen."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import msgspec
import pyarrow.dataset as ds
import pytest

from pipeline import runs
from pipeline.errors import AlreadyRunning, AuditError, OutputsUnwritable
from pipeline.published import Current, Manifest
from pipeline.runs import AuditFolder, set_aside
from pipeline.staging import Staging
from tests.test_staging import CONSTANTS, NIGHT, ROOT, THINGS

PATHS = count()


@pytest.fixture
def folder(tmp_path: Path) -> AuditFolder:
    made = AuditFolder(tmp_path / "outputs", "audit")
    made.prepare()
    return made


def current(run_id: str, day: date = NIGHT, digest: str = "0" * 64) -> Current:
    return Current(run_id, day, f"runs/{run_id}", digest, 0, "1")


def publish(folder: AuditFolder, run_id: str, day: date = NIGHT, rows: int = 3) -> bool:
    """Stage a small run with a table and a report, and publish it."""
    staging = folder.stage(run_id)
    with staging.table(THINGS, day, CONSTANTS) as sink:
        for n in range(rows):
            sink.add((n, b"x"))
    staging.write("report.md", f"# {run_id}\n")
    digest = staging.seal({"run_id": run_id})
    return folder.publish(staging, current(run_id, day, digest))


def pointers(folder: AuditFolder) -> tuple[str, str]:
    """What `current.json` and the link say."""
    known = folder.current()
    assert known is not None
    return known.path, str((folder.path / "current").readlink())


# ── publishing ───────────────────────────────────────────────────────────────────────────────────


def test_a_published_run_is_there_and_current(folder: AuditFolder) -> None:
    assert folder.current() is None
    assert publish(folder, "run-1")

    run = folder.path / "current"
    assert sorted(path.name for path in run.iterdir()) == [
        "SHA256SUMS",
        "manifest.json",
        "report.md",
        "things",
    ]
    manifest = (run / "manifest.json").read_bytes()
    assert folder.current() == current("run-1", digest=hashlib.sha256(manifest).hexdigest())
    assert not list(folder.work.glob("stage-*"))


def test_the_pointer_and_the_link_agree(folder: AuditFolder) -> None:
    """After every publication; the link is relative, so that the outputs can be moved."""
    for run_id in ("run-1", "run-2", "run-3"):
        publish(folder, run_id)

        assert pointers(folder) == (f"runs/{run_id}", f"runs/{run_id}")
    folder.path.rename(folder.path.with_name("moved"))
    assert (folder.path.with_name("moved") / "current" / "report.md").read_text() == "# run-3\n"


@pytest.mark.parametrize(
    ("day", "is_current"),
    [
        (date(2026, 11, 19), False),
        (date(2025, 12, 31), False),
        (NIGHT, True),
        (date(2026, 11, 21), True),
    ],
)
def test_current_never_moves_to_an_earlier_date(
    folder: AuditFolder, day: date, is_current: bool
) -> None:
    """A run of an earlier night is published none the less."""
    publish(folder, "run-1", NIGHT)

    assert publish(folder, "run-2", day) is is_current
    expected = "runs/run-2" if is_current else "runs/run-1"
    assert pointers(folder) == (expected, expected)
    assert (folder.runs / "run-2" / "manifest.json").exists()


def test_a_run_is_never_overwritten(folder: AuditFolder) -> None:
    publish(folder, "run-1")
    before = (folder.runs / "run-1" / "report.md").read_bytes()
    with pytest.raises(OutputsUnwritable):
        publish(folder, "run-1", rows=99)

    assert (folder.runs / "run-1" / "report.md").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", '{"run_id": "x"}', "[]"])
def test_a_pointer_that_cannot_be_read_is_said_before_anything_is_published(
    folder: AuditFolder, content: str
) -> None:
    """Nobody knows then which date it must not move behind."""
    (folder.path / "current.json").write_text(content)
    with pytest.raises(OutputsUnwritable, match=r"current\.json cannot be read") as raised:
        publish(folder, "run-1")

    assert "remove it" in raised.value.hint
    assert list(folder.runs.iterdir()) == []


def test_everything_is_on_disk_before_it_can_be_seen(
    folder: AuditFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, then folders from the innermost on, then the rename, and the pointer last."""
    order: list[tuple[Path, bool, bool]] = []
    sync = runs.sync

    def noting(path: Path) -> None:
        order.append((path, (folder.runs / "run-1").exists(), folder.current() is not None))
        sync(path)

    monkeypatch.setattr(runs, "sync", noting)
    publish(folder, "run-1")

    staged = folder.work / "stage-run-1"
    paths = [path for path, _, _ in order]
    before = [path for path, is_visible, _ in order if not is_visible]
    files = (folder.runs / "run-1").rglob("*")
    assert {staged, *(staged / path.relative_to(folder.runs / "run-1") for path in files)} == set(
        before
    )
    for path in before:
        assert path == staged or before.index(path) < before.index(path.parent)
    assert paths[len(before) :] == [folder.runs, folder.work / "current.json", folder.path]
    assert [is_current for _, _, is_current in order[len(before) :]] == [False, False, True]


class Reader(threading.Thread):
    """Resolves the pointer once and reads all that it leads to, again and again."""

    def __init__(self, folder: AuditFolder, done: threading.Event) -> None:
        super().__init__()
        self._folder = folder
        self._done = done
        self.seen: set[str] = set()
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self._done.is_set():
            try:
                self._read()
            except (OSError, AuditError, AssertionError) as error:
                self.wrong.append(repr(error))

    def _read(self) -> None:
        known = self._folder.current()
        assert known is not None
        self.seen.add(known.run_id)
        for run in (self._folder.path / known.path, (self._folder.path / "current").resolve()):
            for line in (run / "SHA256SUMS").read_text().splitlines():
                digest, _, name = line.partition("  ")
                assert hashlib.sha256((run / name).read_bytes()).hexdigest() == digest


def test_who_resolves_the_pointer_once_never_misses_a_file(folder: AuditFolder) -> None:
    """Readers beside fifty publications find every file, with its digest."""
    publish(folder, "run-0")
    done = threading.Event()
    readers = [Reader(folder, done) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 51):
        publish(folder, f"run-{number}")
    done.set()
    for reader in readers:
        reader.join()

        assert reader.wrong == []
        assert len(reader.seen) > 3


# ── sealing ──────────────────────────────────────────────────────────────────────────────────────


def sealed(folder: AuditFolder) -> tuple[Path, dict[str, Any]]:
    staging = folder.stage("run-1")
    with staging.table(THINGS, NIGHT, CONSTANTS) as sink:
        sink.add((1, b"x"))
    with staging.evidence(THINGS, CONSTANTS) as sink:
        sink.add((1, b"x"), 1)
        sink.add((2, b"y"), 1)
    staging.write("report.md", "Zoë\n")
    staging.write("summary.json", b"{}")
    with staging.open_text("unresolved.csv") as file:
        file.write("a,b\r\n")
    staging.copy("evidence/input.csv.gz", ROOT / "pyproject.toml")
    digest = staging.seal({"run_id": "run-1", "tool": "Zoë", "day": NIGHT})
    text = (staging.path / "manifest.json").read_bytes()
    assert digest == hashlib.sha256(text).hexdigest()
    return staging.path, json.loads(text)


def test_the_manifest_lists_every_file(folder: AuditFolder) -> None:
    """With rows where it is a table, bytes, and the digest of what is really there."""
    path, manifest = sealed(folder)

    listed = {each["path"]: each for each in manifest["files"]}
    assert {name: each["rows"] for name, each in listed.items()} == {
        "things/dt=2026-11-20/things-run-1-00000.parquet": 1,
        "evidence/things-run-1-00000.parquet": 2,
        "report.md": None,
        "summary.json": None,
        "unresolved.csv": None,
        "evidence/input.csv.gz": None,
    }
    for name, each in listed.items():
        content = (path / name).read_bytes()
        assert each["bytes"] == len(content)
        assert each["sha256"] == hashlib.sha256(content).hexdigest()
    assert (manifest["run_id"], manifest["tool"], manifest["day"]) == ("run-1", "Zoë", "2026-11-20")
    assert (path / "unresolved.csv").read_bytes() == b"a,b\r\n"


def test_the_usual_tool_checks_the_sums(folder: AuditFolder) -> None:
    """`sha256sum -c SHA256SUMS`, of the manifest too; a changed byte is found."""
    path, _ = sealed(folder)
    check = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    whole = subprocess.run(check, cwd=path, capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count(": OK") == 7

    (path / "manifest.json").write_text("{}")
    changed = subprocess.run(check, cwd=path, capture_output=True, text=True, check=False)
    assert changed.returncode == 1


def test_two_nights_are_read_as_one(folder: AuditFolder) -> None:
    publish(folder, "run-1", NIGHT, rows=0)
    publish(folder, "run-2", date(2026, 11, 21), rows=4)
    found = ds.dataset(list(folder.runs.glob("*/things/*/*.parquet"))).to_table()

    assert found.num_rows == 4


# ── what cannot be written ───────────────────────────────────────────────────────────────────────


def blocked(tmp_path: Path) -> Path:
    """A folder below a file: nobody can write there, root neither."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(OutputsUnwritable, match=r"file.* cannot be written: Not a directory"):
        AuditFolder(blocked(tmp_path), "audit").prepare()


def lose(folder: AuditFolder) -> None:
    """Put a file where the audit's folder was, as if the disk had gone."""
    folder.path.rename(folder.path.with_name("gone"))
    folder.path.write_text("")


STEPS: list[Callable[[AuditFolder, Staging], object]] = [
    lambda folder, _: folder.prepare(),
    lambda folder, _: folder.lock("me").__enter__(),
    lambda folder, _: folder.note(event="start"),
    lambda folder, _: folder.stage("run-2"),
    lambda _, staging: staging.write("a/b", "text"),
    lambda _, staging: staging.open_text("a/b").__enter__(),
    lambda _, staging: staging.copy("a", ROOT / "pyproject.toml"),
    lambda _, staging: staging.table(THINGS, NIGHT, CONSTANTS),
    lambda _, staging: staging.evidence(THINGS, CONSTANTS),
    lambda _, staging: staging.seal({}),
    lambda folder, staging: folder.publish(staging, current("run-1")),
    lambda folder, _: folder.current(),
]


@pytest.mark.parametrize("step", STEPS)
def test_a_folder_that_is_lost_is_said_by_every_step(
    folder: AuditFolder, step: Callable[[AuditFolder, Staging], object]
) -> None:
    staging = folder.stage("run-1")
    lose(folder)

    with pytest.raises(OutputsUnwritable):
        step(folder, staging)


# ── the lock ─────────────────────────────────────────────────────────────────────────────────────


def test_a_second_holder_is_told_who_has_it(folder: AuditFolder) -> None:
    with folder.lock("process 1 on alpha"):
        with pytest.raises(AlreadyRunning, match="already running: process 1 on alpha"):
            folder.lock("process 2").__enter__()

    with folder.lock("process 3"):
        assert (folder.work / "holder").read_text() == "process 3"
    assert not (folder.work / "holder").exists()


def test_a_holder_without_a_note_is_unknown(folder: AuditFolder) -> None:
    """It has just begun, or has just ended."""
    with filelock.FileLock(folder.work / "lock"):
        with pytest.raises(AlreadyRunning, match="an unknown process"):
            folder.lock("me").__enter__()


def test_the_lock_is_given_back_when_something_breaks(folder: AuditFolder) -> None:
    def breaking() -> None:
        with folder.lock("first"):
            raise KeyError("inside")

    with pytest.raises(KeyError):
        breaking()
    with folder.lock("second"):
        pass


def test_a_lock_whose_note_cannot_be_written_is_given_back(folder: AuditFolder) -> None:
    (folder.work / "holder").mkdir()
    with pytest.raises(OutputsUnwritable):
        folder.lock("first").__enter__()
    (folder.work / "holder").rmdir()

    with folder.lock("second"):
        pass


def test_an_end_is_not_hidden_by_a_note_that_stays(folder: AuditFolder) -> None:
    """The folder went away during the run: what ended the run is what is raised."""

    def breaking() -> None:
        with folder.lock("first"):
            lose(folder)
            raise KeyError("the true end")

    with pytest.raises(KeyError, match="the true end"):
        breaking()


def test_audits_do_not_lock_each_other(tmp_path: Path) -> None:
    first, second = (AuditFolder(tmp_path, name) for name in ("nightly", "ad-hoc"))
    first.prepare()
    second.prepare()
    with first.lock("a"), second.lock("b"):
        pass


def hold(path: Path, said: Connection) -> None:
    """In another process: hold the lock until killed."""
    with AuditFolder(path, "audit").lock("the other process"):
        said.send("held")
        signal.pause()


@pytest.fixture
def other(folder: AuditFolder) -> Iterator[multiprocessing.process.BaseProcess]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(folder.path.parent, there))
    process.start()
    assert here.poll(60)
    try:
        yield process
    finally:
        process.kill()
        process.join()
        here.close()
        there.close()


def test_another_process_holds_the_lock_until_it_dies(
    folder: AuditFolder, other: multiprocessing.process.BaseProcess
) -> None:
    """SIGKILL leaves a note and no lock: the next run begins, under its own name."""
    with pytest.raises(AlreadyRunning, match="the other process"):
        folder.lock("me").__enter__()
    other.kill()
    other.join()
    assert (folder.work / "holder").exists()

    with folder.lock("me"):
        assert (folder.work / "holder").read_text() == "me"


# ── the rest of the folder ───────────────────────────────────────────────────────────────────────


def test_what_a_dead_run_left_staged_is_removed(folder: AuditFolder) -> None:
    """Journals and published runs are not."""
    publish(folder, "run-1")
    folder.stage("run-2").write("a/b", "half")
    (folder.work / "x.journal").write_text("")
    (folder.work / "other").mkdir()
    folder.clean()

    assert sorted(path.name for path in folder.work.iterdir()) == ["other", "x.journal"]
    assert (folder.runs / "run-1").exists()


def test_journals_that_nobody_went_on_with_are_removed(folder: AuditFolder) -> None:
    """After a week, with the files that SQLite keeps beside them; younger ones are kept."""
    for name, days in (("old", 8), ("young", 6)):
        for suffix in ("", "-wal", "-shm"):
            path = folder.work / f"{name}.journal{suffix}"
            path.write_text("")
            then = time.time() - days * 86_400
            os.utime(path, (then, then))
    folder.clean()

    left = sorted(path.name for path in folder.work.iterdir())
    assert left == ["young.journal", "young.journal-shm", "young.journal-wal"]


def test_a_run_that_is_visible_can_be_pointed_to(folder: AuditFolder) -> None:
    """By the same rule as for a publication; twice does no harm."""
    publish(folder, "run-1", NIGHT)
    publish(folder, "run-2", date(2026, 11, 19))
    assert not folder.point(current("run-2", date(2026, 11, 19)))
    assert pointers(folder) == ("runs/run-1", "runs/run-1")

    for _ in range(2):
        assert folder.point(current("run-2", NIGHT))
        assert pointers(folder) == ("runs/run-2", "runs/run-2")


def test_attempts_are_lines_of_json(folder: AuditFolder) -> None:
    folder.note(event="start", at=NIGHT)
    folder.note(event="end", error="Zoë\nwas here")

    lines = (folder.path / "attempts.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"event": "start", "at": "2026-11-20"},
        {"event": "end", "error": "Zoë\nwas here"},
    ]


def test_preparing_again_keeps_everything(folder: AuditFolder) -> None:
    publish(folder, "run-1")
    folder.prepare()

    assert pointers(folder) == ("runs/run-1", "runs/run-1")


def test_trouble_has_the_code_of_the_outputs() -> None:
    assert issubclass(OutputsUnwritable, AuditError)
    assert (OutputsUnwritable.exit_code, AlreadyRunning.exit_code) == (73, 75)


# ── the runs there are ───────────────────────────────────────────────────────────────────────────

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def put(
    folder: AuditFolder,
    day: int,
    *,
    number: int = 0,
    complete: bool = True,
    parent: str | None = None,
    finished: datetime | None = None,
    shortfalls: tuple[str, ...] = (),
) -> str:
    """Put a run of a night there; gives its id."""
    run_id = f"202611{day:02}T0{number}0000Z-audit-000000"
    manifest = Manifest(
        run_id=run_id,
        audit_name="audit",
        audit_date=date(2026, 11, day),
        parent_run_id=parent,
        started_at=finished or datetime(2026, 11, day, 3, tzinfo=UTC),
        finished_at=finished or datetime(2026, 11, day, 4, tzinfo=UTC),
        base_url="https://cloud.mongodb.com",
        input_source="audit.csv",
        input_sha256="0" * 64,
        credential_id="me",
        tool_version="9.9.9",
        triple_count=day,
        complete=complete,
        shortfalls=shortfalls,
        exit_code=0 if complete else 3,
        previous=None,
        files=(),
    )
    run = folder.runs / run_id
    (run / "outcomes").mkdir(parents=True)
    (run / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return run_id


def left(folder: AuditFolder) -> list[str]:
    return sorted(path.name for path in folder.runs.iterdir())


def test_runs_are_given_the_last_one_first(folder: AuditFolder) -> None:
    ids = [put(folder, day) for day in (20, 22, 21)]
    (folder.runs / "no-run").mkdir()

    assert [run.run_id for run in folder.published()] == sorted(ids, reverse=True)


def test_a_population_is_compared_with_the_last_complete_run(folder: AuditFolder) -> None:
    assert folder.last_whole(date(2026, 11, 30)) is None
    put(folder, 20)
    put(folder, 21)
    put(folder, 21, number=1)
    put(folder, 22, complete=False)

    def found(day: int) -> int | None:
        run = folder.last_whole(date(2026, 11, day))
        return run.manifest.started_at.day if run is not None else None

    assert [found(day) for day in (19, 20, 21, 22, 30)] == [None, 20, 21, 21, 21]
    latest = folder.last_whole(date(2026, 11, 21))
    assert latest is not None
    assert latest.run_id.startswith("20261121T01")


def test_where_none_was_complete_it_is_compared_with_the_last_one(folder: AuditFolder) -> None:
    put(folder, 20, complete=False)
    wanted = put(folder, 21, complete=False)
    put(folder, 22, complete=False, shortfalls=("too few",))
    latest = folder.last_whole(date(2026, 11, 30))
    assert latest is not None
    assert latest.run_id == wanted


@pytest.mark.parametrize(("nights", "days"), [(1, [23]), (2, [22, 23]), (9, [20, 21, 22, 23])])
def test_so_many_nights_are_kept(nights: int, days: list[int], folder: AuditFolder) -> None:
    for day in (20, 21, 22, 23):
        put(folder, day)
    removed = folder.keep(nights, NOW)

    assert [int(run_id[6:8]) for run_id in left(folder)] == days
    assert len(removed) == 4 - len(days)
    assert not list(folder.work.glob("gone-*"))


def test_all_runs_of_a_night_are_kept_with_it(folder: AuditFolder) -> None:
    for number in range(3):
        put(folder, 20, number=number)
    put(folder, 19)
    folder.keep(1, NOW)

    assert len(left(folder)) == 3


def test_what_is_never_removed(folder: AuditFolder) -> None:
    pointed, parent, spared = put(folder, 10), put(folder, 11), put(folder, 12)
    young = put(folder, 13, finished=NOW - timedelta(hours=23))
    child = put(folder, 14, parent=parent)
    old, last = put(folder, 15, finished=NOW - timedelta(hours=25)), put(folder, 20)
    (folder.runs / "unknown").mkdir()
    folder.point(current(pointed, date(2026, 11, 10)))
    removed = folder.keep(1, NOW, {spared})

    assert sorted(removed) == sorted([child, old])
    assert left(folder) == sorted([pointed, parent, spared, young, last, "unknown"])


def test_the_last_complete_run_is_kept(folder: AuditFolder) -> None:
    put(folder, 20)
    last = put(folder, 21)
    for day in (22, 23):
        put(folder, day, complete=False)
    folder.keep(1, NOW)

    assert left(folder)[0] == last
    assert len(left(folder)) == 2


def test_a_removal_that_was_broken_off_is_finished(folder: AuditFolder) -> None:
    run_id = put(folder, 20)
    (folder.runs / run_id).rename(folder.work / f"gone-{run_id}")
    folder.clean()

    assert not list(folder.work.glob("gone-*"))


@pytest.mark.parametrize("damage", ["gone", "elsewhere", "a file"])
def test_a_link_that_was_parted_from_the_pointer_is_mended(
    damage: str, folder: AuditFolder
) -> None:
    publish(folder, "run-1")
    link = folder.path / "current"
    link.unlink()
    if damage == "elsewhere":
        link.symlink_to("runs/run-0")
    if damage == "a file":
        link.write_text("")
    folder.clean()

    assert pointers(folder) == ("runs/run-1", "runs/run-1")


def test_room_is_checked(folder: AuditFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    folder.check_room(5_000_000)
    with pytest.raises(OutputsUnwritable, match=r"has 5\.0 MB free, .* needs about 6\.0 MB"):
        folder.check_room(6_000_000)


# ── which run becomes current ────────────────────────────────────────────────────────────────────


def test_a_completed_run_takes_the_place_of_the_one_it_completes(folder: AuditFolder) -> None:
    publish(folder, "run-1")
    assert folder.point(current("run-2"), "run-1") is True
    assert folder.point(current("run-2"), "run-1") is True  # once more, after a crash
    assert pointers(folder)[0] == "runs/run-2"


def test_a_completed_run_takes_no_other_place(folder: AuditFolder) -> None:
    publish(folder, "run-2")
    assert folder.point(current("run-3"), "run-1") is False
    assert pointers(folder)[0] == "runs/run-2"


def test_a_completed_run_of_a_later_night_becomes_current(folder: AuditFolder) -> None:
    publish(folder, "run-0", date(2026, 11, 19))
    assert folder.point(current("run-2"), "run-1") is True


# ── journals ─────────────────────────────────────────────────────────────────────────────────────


def test_a_journal_is_set_aside_whole(folder: AuditFolder) -> None:
    journal = folder.work / "0123.journal"
    for suffix in ("", "-wal", "-shm"):
        journal.with_name(journal.name + suffix).write_text(suffix)
    aside = set_aside(journal)

    assert sorted(path.name for path in folder.work.iterdir()) == [
        "0123.damaged",
        "0123.damaged-shm",
        "0123.damaged-wal",
    ]
    assert aside.with_name("0123.damaged-wal").read_text() == "-wal"
    os.utime(aside, (0, 0))
    folder.clean()
    assert not list(folder.work.glob("*damaged*"))
