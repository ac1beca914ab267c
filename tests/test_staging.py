"""A run's folder while it is being written: tables in full row groups, texts, trouble."""

import subprocess
import sys
from datetime import date
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.columns import RUN_COLUMNS, Column
from pipeline.runs import AuditFolder
from pipeline.staging import Staging
from pipeline.tables import RUNS, Table

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
    monkeypatch.setattr("pipeline.staging.ROW_GROUP_ROWS", 100)
    monkeypatch.setattr("pipeline.staging._CHUNK_ITEMS", 10)
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
    monkeypatch.setattr("pipeline.staging.ROW_GROUP_BYTES", 1000)
    monkeypatch.setattr("pipeline.staging.ROW_GROUP_ROWS", 40)
    monkeypatch.setattr("pipeline.staging._CHUNK_ITEMS", 4)
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
    monkeypatch.setattr("pipeline.staging.ROW_GROUP_BYTES", 9000)
    monkeypatch.setattr("pipeline.staging.ROW_GROUP_ROWS", 7)
    monkeypatch.setattr("pipeline.staging._CHUNK_ITEMS", 4)
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
    monkeypatch.setattr("pipeline.staging.ROW_GROUP_ROWS", 100)
    monkeypatch.setattr("pipeline.staging._CHUNK_ITEMS", 10)
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


FULL_DISK = """
import resource, sys
from datetime import date
from pathlib import Path
from pipeline.errors import OutputsUnwritable
from pipeline.staging import Staging
from tests.test_staging import CONSTANTS, NIGHT, THINGS

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


def test_a_staged_run_can_be_taken_back(folder: AuditFolder) -> None:
    staging = folder.stage("run-1")
    staging.write("a/b", "text")
    staging.discard()

    assert not staging.path.exists()
