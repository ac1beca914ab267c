"""The outputs of an audit: staged, sealed, published at once, and never half seen."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import filelock
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import runs
from pipeline.errors import AlreadyRunning, AuditError, OutputsUnwritable
from pipeline.runs import AuditFolder, Current, Staging
from pipeline.tables import RUN_COLUMNS, RUNS, Column, Table

ROOT = Path(__file__).parent.parent
NIGHT = date(2026, 11, 20)
THINGS = Table(
    "things",
    "rows of a test",
    (*RUN_COLUMNS, Column("n", "int64", "a number"), Column("body", "binary", "bytes")),
)
CONSTANTS = ("run-1", "audit", NIGHT)
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
    sync = runs._sync

    def noting(path: Path) -> None:
        order.append((path, (folder.runs / "run-1").exists(), folder.current() is not None))
        sync(path)

    monkeypatch.setattr(runs, "_sync", noting)
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


@pytest.mark.parametrize("run_id", ["run-1", "x-runs-y", "x-things-y", "things-things-1"])
def test_rows_are_counted_by_table(folder: AuditFolder, run_id: str) -> None:
    """Also where the audit is called like a table, as in the file names of all of its runs."""
    staging = folder.stage(run_id)
    with staging.table(THINGS, NIGHT, CONSTANTS) as sink:
        for n in range(5):
            sink.add((n, b""))
    known = dict.fromkeys(RUNS.names[len(RUN_COLUMNS) :])
    with staging.table(RUNS._replace(columns=nullable(RUNS)), NIGHT, CONSTANTS) as sink:
        sink.add(tuple(known.values()))

    assert (staging.rows(THINGS), staging.rows(RUNS)) == (5, 1)


def nullable(table: Table) -> tuple[Column, ...]:
    return tuple(column._replace(nullable=True) for column in table.columns)


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────


def written(
    folder: Path, rows: list[tuple[int, bytes]], sizes: list[int] | None = None
) -> pq.ParquetFile:
    staging = Staging(folder / str(next(PATHS)), "run-1")
    with staging.evidence(THINGS, CONSTANTS) as sink:
        for row, size in zip(rows, sizes or [0] * len(rows), strict=True):
            sink.add(row, size)
    assert staging.rows(THINGS) == sink.count == len(rows)
    return pq.ParquetFile(staging.path / "evidence" / "things-run-1-00000.parquet")


def groups(file: pq.ParquetFile) -> list[int]:
    metadata = file.metadata
    return [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]


def test_rows_come_out_as_they_went_in(tmp_path: Path) -> None:
    """With the constants before them, the declared types and the metadata of the schema."""
    file = written(tmp_path, [(1, b"a"), (2, b"\x00\xff")])

    assert file.schema_arrow.equals(THINGS.schema, check_metadata=True)
    assert file.read().to_pylist() == [
        {"run_id": "run-1", "audit_name": "audit", "audit_date": NIGHT, "n": n, "body": body}
        for n, body in [(1, b"a"), (2, b"\x00\xff")]
    ]


def test_a_table_without_rows_is_a_file_with_its_columns(tmp_path: Path) -> None:
    """So that two nights can be read together, whatever happened in one of them."""
    file = written(tmp_path, [])

    assert file.read().num_rows == 0
    assert file.schema_arrow.equals(THINGS.schema)


def test_two_nights_are_read_as_one(folder: AuditFolder) -> None:
    publish(folder, "run-1", NIGHT, rows=0)
    publish(folder, "run-2", date(2026, 11, 21), rows=4)
    found = ds.dataset(list(folder.runs.glob("*/things/*/*.parquet"))).to_table()

    assert found.num_rows == 4


def test_a_row_group_has_a_hundred_thousand_rows(tmp_path: Path) -> None:
    rows = [(n, b"") for n in range(200_001)]

    assert groups(written(tmp_path, rows)) == [100_000, 100_000, 1]


@given(length=st.integers(0, 350))
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_row_groups_are_full_but_for_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """And none is empty, also where the rows come out even."""
    monkeypatch.setattr(runs, "ROW_GROUP_ROWS", 100)
    monkeypatch.setattr(runs, "_CHUNK_ITEMS", 10)
    file = written(tmp_path, [(n, b"") for n in range(length)])

    full, rest = divmod(length, 100)
    assert groups(file) == [100] * full + [rest] * bool(rest)
    assert file.read().column("n").to_pylist() == list(range(length))


@given(sizes=st.lists(st.integers(0, 1500), max_size=60))
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_row_groups_of_evidence_are_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    """Whoever reads one needs memory for so much; a single row may be more."""
    monkeypatch.setattr(runs, "ROW_GROUP_BYTES", 1000)
    monkeypatch.setattr(runs, "ROW_GROUP_ROWS", 40)
    monkeypatch.setattr(runs, "_CHUNK_ITEMS", 4)
    file = written(tmp_path, [(n, b"x" * size) for n, size in enumerate(sizes)], sizes)

    assert groups(file) == [len(held) for held in as_full_as_may_be(sizes)]
    assert file.read().column("n").to_pylist() == list(range(len(sizes)))


@given(sizes=st.lists(st.integers(0, 900), max_size=60), together=st.integers(2, 9))
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_rows_that_come_together_keep_to_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], together: int
) -> None:
    """Also after a row group that was full by its rows: what stayed counts for the next."""
    monkeypatch.setattr(runs, "ROW_GROUP_BYTES", 9000)
    monkeypatch.setattr(runs, "ROW_GROUP_ROWS", 7)
    monkeypatch.setattr(runs, "_CHUNK_ITEMS", 4)
    staging = Staging(tmp_path / str(next(PATHS)), "run-1")
    with staging.evidence(THINGS, CONSTANTS) as sink:
        for first in range(0, len(sizes), together):
            few = sizes[first : first + together]
            sink.extend([(n, b"x" * size) for n, size in enumerate(few)], sum(few))
    file = pq.ParquetFile(staging.path / "evidence" / "things-run-1-00000.parquet")
    written_sizes = [len(body) for body in file.read().column("body").to_pylist()]
    starts = [sum(groups(file)[:n]) for n in range(len(groups(file)))]

    assert written_sizes == sizes
    for start, rows in zip(starts, groups(file), strict=True):
        assert rows <= 7
        assert sum(written_sizes[start : start + rows]) <= 9000


def as_full_as_may_be(sizes: list[int]) -> list[list[int]]:
    """Rows one after the other into groups of up to 40 rows and 1000 bytes."""
    held: list[list[int]] = []
    for size in sizes:
        is_full = not held or len(held[-1]) == 40
        if is_full or (any(held[-1]) and sum(held[-1]) + size > 1000):
            held.append([])
        held[-1].append(size)
    return held


def test_rows_do_not_gather_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fills a row group is written, not kept for the end."""
    monkeypatch.setattr(runs, "ROW_GROUP_ROWS", 100)
    monkeypatch.setattr(runs, "_CHUNK_ITEMS", 10)
    with Staging(tmp_path / "stage", "run-1").table(THINGS, NIGHT, CONSTANTS) as sink:
        for n in range(1000):
            sink.add((n, b""))
            assert sum(chunk.num_rows for chunk in sink._chunks) < 100


def test_a_table_that_breaks_off_is_closed(tmp_path: Path) -> None:
    """The trouble inside is what is raised."""
    staging = Staging(tmp_path / "stage", "run-1")

    def breaking() -> None:
        with staging.table(THINGS, NIGHT, CONSTANTS) as sink:
            sink.add((1, b""))
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        breaking()


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


FULL_DISK = """
import resource, sys
from datetime import date
from pathlib import Path
from pipeline.errors import OutputsUnwritable
from pipeline.runs import Staging
from tests.test_runs import CONSTANTS, NIGHT, THINGS

staging = Staging(Path(sys.argv[1]), "run-1")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

def table():
    with staging.table(THINGS, NIGHT, CONSTANTS) as sink:
        for n in range(300_000):
            sink.add((n, b"%d" % n))

def text():
    with staging.open_text("unresolved.csv") as file:
        for _ in range(100_000):
            file.write("0123456789")

for what in (table, text, lambda: staging.write("summary.json", b"x" * 200_000)):
    try:
        what()
    except OutputsUnwritable as error:
        print("said:", error)
"""


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """A limit on the size of files stands for it, in a process of its own."""
    command = [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path / "stage")]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("said: ") == 3
    assert ended.stderr == ""


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


def test_a_staged_run_can_be_taken_back(folder: AuditFolder) -> None:
    staging = folder.stage("run-1")
    staging.write("a/b", "text")
    staging.discard()

    assert not staging.path.exists()


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
