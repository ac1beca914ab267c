"""Loads that are killed, stopped, or under way at the same time."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from pipeline.warehouse import load as loading
from pipeline.warehouse import stage as staging
from pipeline.warehouse.connections import _number
from pipeline.warehouse.statements import replace_slice
from tests.durability import ROOT
from tests.postgres import Postgres
from tests.test_load import FEWER, HOUR, SIZES, load
from tests.warehouses import NIGHT, Made, command, held, loads, query, schemas, wanted


@pytest.fixture(params=["duckdb", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "duckdb":
        return f"duckdb://{tmp_path}/warehouse.duckdb"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


# --- what happens in a start that is not to end well ---


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_while_dlt_sends() -> None:
    """At the first batch of the third table, when others may be there."""
    batches = staging._standing_in

    def sending(content: staging.Content, stand_in: str) -> Iterator[object]:
        if content.table.name == "outcomes":
            die()
        yield from batches(content, stand_in)

    setattr(staging, "_standing_in", sending)  # noqa: B010 - mypy minds an assignment


def killed_while_dlt_loads() -> None:
    from dlt.load.load import Load

    setattr(Load, "complete_jobs", die)  # noqa: B010


def killed_when_staged() -> None:
    setattr(staging, "_check", die)  # noqa: B010


def killed_before_the_swap() -> None:
    setattr(loading._Swap, "do", die)  # noqa: B010


def killed_half_swapped() -> None:
    def half(schema: str, stage: str) -> Iterator[str]:
        yield from replace_slice(schema, stage)[:5]
        die()

    setattr(loading, "replace_slice", half)  # noqa: B010


def killed_before_the_commit() -> None:
    note = loading._Swap._note

    def noting(swap: loading._Swap, *args: object) -> None:
        note(swap, *args)  # type: ignore[arg-type]
        die()

    setattr(loading._Swap, "_note", noting)  # noqa: B010


def killed_after_the_commit() -> None:
    setattr(loading, "_drop", die)  # noqa: B010


def told_to_stop() -> None:
    """SIGTERM, while dlt is sent the rows."""
    batches = staging._standing_in

    def sending(content: staging.Content, stand_in: str) -> Iterator[object]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield from batches(content, stand_in)

    setattr(staging, "_standing_in", sending)  # noqa: B010


def told_to_stop_when_normalized() -> None:
    from dlt.normalize.normalize import Normalize

    _told_to_stop_after(Normalize)


def told_to_stop_when_loaded() -> None:
    from dlt.load.load import Load

    _told_to_stop_after(Load)


def _told_to_stop_after(step: Any) -> None:
    run = step.run

    def running(*args: Any, **more: Any) -> Any:
        found = run(*args, **more)
        os.kill(os.getpid(), signal.SIGTERM)
        return found

    step.run = running


def told_to_stop_while_the_server_is_stuck() -> None:
    """SIGTERM, while dlt waits for a server in a thread of its own."""
    from dlt.destinations.impl.postgres.postgres import PostgresCsvCopyJob

    def waiting(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    setattr(PostgresCsvCopyJob, "run", waiting)  # noqa: B010


def broken_within_dlt() -> None:
    """A table that is not the staged one's."""
    from dlt.destinations.impl.postgres.postgres import PostgresCsvCopyJob

    def failing(_: object) -> None:
        raise OSError(28, "No space left on device")

    setattr(PostgresCsvCopyJob, "run", failing)  # noqa: B010


def broken() -> None:
    """A fault of this program, when all is known."""
    setattr(loading._Swap, "do", lambda *_: 1 / 0)  # noqa: B010


def asked_for_telemetry() -> None:
    """Say when dlt is about to be imported what it will read first."""
    stage_load = staging._load

    def loading_with_eyes(*args: Any) -> None:
        stage_load(*args)
        from dlt.common.runtime import anon_tracker

        assert os.environ["RUNTIME__DLTHUB_TELEMETRY"] == "false"
        if getattr(anon_tracker, "_ANON_TRACKER_ENDPOINT") is None:  # noqa: B009 - it is typed as set
            sys.stderr.write("telemetry is off\n")

    setattr(staging, "_load", loading_with_eyes)  # noqa: B010


def without_dlt() -> None:
    _without("dlt")


def without_duckdb() -> None:
    _without("duckdb")


def _without(missing: str) -> None:
    find_spec = importlib.util.find_spec
    setattr(  # noqa: B010
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == missing else find_spec(name, *more),
    )


def start(url: str, made: Made, set_up: str, temporary: Path) -> subprocess.CompletedProcess[str]:
    """Start the command with something that happens to it."""
    program = (
        f"import tests.test_load_kills as kills; kills.{set_up}();"
        "from pipeline.__main__ import main; main()"
    )
    known = {"PYTHONPATH": str(ROOT), "CHECKPOINT_AUDIT_WAREHOUSE_URL": url}
    return subprocess.run(
        [sys.executable, "-c", program, "load", str(made.path)],
        env={**os.environ, **known, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


KILLS = [
    killed_while_dlt_sends,
    killed_while_dlt_loads,
    killed_when_staged,
    killed_before_the_swap,
    killed_half_swapped,
    killed_before_the_commit,
]


def test_killed_anywhere_the_rows_are_the_old_ones(url: str, tmp_path: Path) -> None:
    """And the next load gives the new ones, and drops what was left."""
    old = Made(tmp_path, SIZES)
    load(old, url)
    new = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)
    for kill in KILLS:
        ended = start(url, new, kill.__name__, tmp_path)

        assert ended.returncode == -signal.SIGKILL, (kill.__name__, ended.stderr)
        assert held(url) == wanted(old), kill.__name__
        assert len(loads(url)) == 1
        see_off(url)

    assert load(new, url).replaced == old.run_id
    assert held(url) == wanted(new)
    assert schemas(url) == {"checkpoint_audit"}


def see_off(url: str) -> None:
    """Wait until the server has noticed that a killed client has gone.

    Only what the role itself has open: the server's own workers, which clean up tables now and
    then, are not ours to end.
    """
    if url.startswith("postgresql"):
        query(
            url,
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = "
            "current_database() AND usename = current_user AND pid <> pg_backend_pid()",
        )


def test_killed_after_the_commit_the_rows_are_the_new_ones(url: str, tmp_path: Path) -> None:
    load(Made(tmp_path, SIZES), url)
    new = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)

    ended = start(url, new, "killed_after_the_commit", tmp_path)

    assert ended.returncode == -signal.SIGKILL
    assert held(url) == wanted(new)


def test_after_a_failed_load_the_next_one_loads_its_own_run(url: str, tmp_path: Path) -> None:
    """With a folder that stays, dlt would load the failed package first, and then that alone."""
    failed = Made(tmp_path, SIZES)
    ended = start(url, failed, "killed_while_dlt_loads", tmp_path)
    assert ended.returncode == -signal.SIGKILL
    tonight = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)

    load(tonight, url)

    assert held(url) == wanted(tonight)


@pytest.mark.parametrize(
    "when", [told_to_stop, told_to_stop_when_normalized, told_to_stop_when_loaded]
)
def test_told_to_stop(when: Callable[[], None], url: str, tmp_path: Path) -> None:
    old = Made(tmp_path, SIZES)
    load(old, url)
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    new = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)
    ended = start(url, new, when.__name__, temporary)

    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert "start the same command again" in ended.stderr.splitlines()[-1]
    assert held(url) == wanted(old)
    assert schemas(url) == {"checkpoint_audit"}
    assert list(temporary.iterdir()) == []


def test_two_at_the_same_time(postgres: Postgres, tmp_path: Path) -> None:
    """Of different audits, into an empty database: both are there in the end."""
    url = postgres.new_database()
    made = [Made(tmp_path, SIZES, audit=name) for name in ("nightly", "weekly", "ad-hoc")]
    known = {"PYTHONPATH": str(ROOT), "CHECKPOINT_AUDIT_WAREHOUSE_URL": url}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline", "load", str(each.path)],
            env={**os.environ, **known},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in made
    ]

    said = [process.communicate(timeout=120)[1] for process in started]

    assert [process.returncode for process in started] == [0, 0, 0], said
    assert held(url) == wanted(*made)
    assert schemas(url) == {"checkpoint_audit"}


def test_two_of_the_same_slice_at_the_same_time(postgres: Postgres, tmp_path: Path) -> None:
    """One of them is there as a whole; which one, hangs on who was first."""
    url = postgres.new_database()
    older = Made(tmp_path, SIZES)
    newer = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)
    known = {"PYTHONPATH": str(ROOT), "CHECKPOINT_AUDIT_WAREHOUSE_URL": url}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline", "load", str(each.path)],
            env={**os.environ, **known},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in (older, newer)
    ]

    codes = [(process.communicate(timeout=120), process.returncode)[1] for process in started]

    assert codes[0] in {0, 74}
    assert codes[1] == 0
    assert held(url) == wanted(newer)


def test_two_of_the_same_run_where_transactions_see_what_was(
    postgres: Postgres, tmp_path: Path
) -> None:
    """The one that waits has to see what the other one has written, whatever the default is."""
    url, made = postgres.new_database(), Made(tmp_path, SIZES)
    load(Made(tmp_path, SIZES, audit="weekly"), url)  # so that there are tables
    database = url.rpartition("/")[2]
    query(url, f"ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'")
    known = {"PYTHONPATH": str(ROOT), "CHECKPOINT_AUDIT_WAREHOUSE_URL": url}
    with holding(url, "checkpoint_audit"):
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "pipeline", "load", str(made.path)],
                env={**os.environ, **known},
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        wait_for_two(url)

    said = [process.communicate(timeout=120)[1] for process in started]

    assert [process.returncode for process in started] == [0, 0], said
    assert held(url)["runs"] == wanted(made, Made(tmp_path / "w", SIZES, audit="weekly"))["runs"]
    assert len(held(url)["parts"]) == 2 * SIZES["parts"]


@contextmanager
def holding(url: str, schema: str) -> Iterator[None]:
    """Hold the lock that a swap waits for."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_number(schema)])
        yield
    finally:
        connection.close()


def wait_for_two(url: str) -> None:
    asked = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    end = time.monotonic() + 60
    while query(url, asked) != [(2,)]:
        assert time.monotonic() < end, "the loads do not wait for each other"
        time.sleep(0.1)


def test_a_file_that_another_process_has_open(tmp_path: Path) -> None:
    url, made = f"duckdb://{tmp_path}/w.duckdb", Made(tmp_path, SIZES)
    load(made, url)
    holding = (
        f"import duckdb, sys; c = duckdb.connect({str(tmp_path / 'w.duckdb')!r});"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"

        ended = command(url, made.path)

        other.communicate("", timeout=30)
    assert ended.returncode == 74
    assert "Could not set lock on file" in ended.stderr.splitlines()[-1]
    assert held(url) == wanted(made)
