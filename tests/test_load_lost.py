"""Loads whose server goes, falls silent or has no room left, and signals while they wait for it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from pipeline.errors import LoadRefused
from pipeline.warehouse import connections, waiting
from pipeline.warehouse import load as loading
from pipeline.warehouse.statements import replace_slice
from tests.durability import ROOT
from tests.postgres import Postgres
from tests.test_load import FEWER, HOUR, SIZES, load
from tests.test_load_kills import see_off, start
from tests.warehouses import NIGHT, Made, held, loads, query, schemas, wanted

AGAIN = "nothing was changed in the warehouse; load the run again"
GONE = r"closed the connection|terminating connection"


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


class Between:
    """What stands between a load and its server: it hands on, until it does not."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lines: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.silent = threading.Event()
        self.loses_commits = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for line in self._lines:
            line.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._lines += [near, far]
                seen = Seen(self)
                for source, target, passes in ((near, far, seen.asked), (far, near, seen.answered)):
                    args = (source, target, passes)
                    threading.Thread(target=self._hand_on, args=args, daemon=True).start()

    def _hand_on(
        self, source: socket.socket, target: socket.socket, passes: Callable[[bytes], bool]
    ) -> None:
        with suppress(OSError):
            while (some := source.recv(65536)) and passes(some):
                if not self.silent.is_set():
                    target.sendall(some)
        for line in (source, target):
            with suppress(OSError):  # one that is closed already; the other may still be waited for
                line.shutdown(socket.SHUT_RDWR)


class Seen:
    """What went through one connection: whether it is the one that swaps, and has committed."""

    def __init__(self, between: Between) -> None:
        self._between = between
        self._swaps = self._commits = False

    def asked(self, some: bytes) -> bool:
        self._swaps = self._swaps or b"INSERT INTO checkpoint_audit.loads" in some
        self._commits = self._commits or (self._swaps and b"COMMIT\0" in some)
        return True

    def answered(self, _: bytes) -> bool:
        return not (self._commits and self._between.loses_commits)


@pytest.fixture
def between(postgres: Postgres) -> Iterator[Between]:
    with closing(Between(postgres.port)) as made:
        yield made


def by_way_of(between: Between, url: str) -> str:
    head, _, database = url.rpartition("/")
    return f"{head.rpartition(':')[0]}:{between.port}/{database}"


# --- a connection that is lost ------------------------------------------------------------------


def test_an_answer_to_the_commit_that_is_lost(url: str, between: Between, tmp_path: Path) -> None:
    """The rows are the new ones, which the load cannot know: it must not say that they are not."""
    load(Made(tmp_path, SIZES), url)
    new = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)
    between.loses_commits = True

    with pytest.raises(LoadRefused, match="it is not known whether the run was loaded") as lost:
        load(new, by_way_of(between, url))

    assert "nothing was changed" not in str(lost.value) + lost.value.hint
    assert "load the run again" in lost.value.hint
    assert held(url) == wanted(new)
    load(new, url)
    assert held(url) == wanted(new)
    assert schemas(url) == {"checkpoint_audit"}


def test_an_answer_to_the_commit_that_does_not_come(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is cancelled in the end may be done all the same."""
    rows = connections._Postgres._rows

    def late(self: Any, statement: str, parameters: Any) -> Any:
        found = rows(self, statement, parameters)
        if statement == "COMMIT":
            raise TimeoutError("no answer in time")
        return found

    monkeypatch.setattr(connections._Postgres, "_rows", late)
    made = Made(tmp_path, SIZES)

    with pytest.raises(LoadRefused, match="it is not known whether the run was loaded") as lost:
        load(made, url)

    assert "no answer in time" in str(lost.value)
    assert "nothing was changed" not in str(lost.value) + lost.value.hint
    assert held(url) == wanted(made)


def check_known(error: LoadRefused) -> None:
    """It says that nothing was changed, without a doubt."""
    assert "not known" not in str(error)
    assert error.hint == AGAIN


def test_a_commit_that_is_refused(url: str, tmp_path: Path) -> None:
    """The connection is there, and so it is known."""
    made = Made(tmp_path, SIZES)
    load(made, url)
    query(url, "ALTER TABLE checkpoint_audit.runs ADD UNIQUE (run_id)")
    query(
        url,
        "CREATE TABLE mine (run_id TEXT REFERENCES checkpoint_audit.runs (run_id) "
        "DEFERRABLE INITIALLY DEFERRED)",
    )
    query(url, "INSERT INTO mine SELECT run_id FROM checkpoint_audit.runs")

    with pytest.raises(LoadRefused, match="violates foreign key constraint") as refused:
        load(Made(tmp_path, FEWER, started_at=NIGHT + HOUR), url)

    check_known(refused.value)
    assert held(url) == wanted(made)


def test_a_session_that_the_server_ends(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Made(tmp_path, SIZES)
    load(old, url)
    in_the_middle(monkeypatch, "SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(LoadRefused, match=GONE) as ended:
        load(Made(tmp_path, FEWER, started_at=NIGHT + HOUR), url)

    check_known(ended.value)
    assert held(url) == wanted(old)


def test_a_session_that_the_server_ends_before_the_commit(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent that could have changed anything, and so it is known."""
    old = Made(tmp_path, SIZES)
    load(old, url)
    note = loading._Swap._note

    def noting(*args: Any) -> None:
        note(*args)
        see_off(url)

    monkeypatch.setattr(loading._Swap, "_note", noting)
    with pytest.raises(LoadRefused, match=GONE) as ended:
        load(Made(tmp_path, FEWER, started_at=NIGHT + HOUR), url)

    check_known(ended.value)
    assert held(url) == wanted(old)


def in_the_middle(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Let this be done when half of the tables are swapped."""

    def broken(schema: str, stage: str) -> list[str]:
        statements = replace_slice(schema, stage)
        return [*statements[:5], statement, *statements[5:]]

    monkeypatch.setattr(loading, "replace_slice", broken)


def test_what_is_wanted_of_a_connection(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is gone is noticed, by us and by dlt; what the address says of it wins."""
    connect, told = psycopg2.connect, []

    def connecting(dsn: str, **more: Any) -> Any:
        told.append(parse_dsn(dsn))
        return connect(dsn, **more)

    monkeypatch.setattr(psycopg2, "connect", connecting)
    load(Made(tmp_path, SIZES), f"{url}?keepalives_idle=7")

    assert len(told) > 1, "dlt connects by other means"
    for each in told:
        assert each["keepalives_idle"] == "7"
        assert each["keepalives_interval"] == "10"
        assert each["keepalives_count"] == "3"
        assert each["tcp_user_timeout"] == "60000"


# --- a disk that is full ------------------------------------------------------------------------

FULL = {
    "postgresql": "DO $$ BEGIN RAISE EXCEPTION 'kein Platz' USING ERRCODE = 'disk_full'; END $$",
    "duckdb": "SELECT error('IO Error: Could not write file: No space left on device')",
    "duckdb, aside": "SELECT error('failed to offload data block of size 256.0 KiB. This limit was "
    "set by the ''max_temp_directory_size'' setting.')",
}


@pytest.mark.parametrize("kind", FULL)
def test_a_disk_that_is_full(
    kind: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = url if kind == "postgresql" else f"duckdb://{tmp_path}/w.duckdb"
    in_the_middle(monkeypatch, FULL[kind])

    with pytest.raises(LoadRefused) as refused:
        load(Made(tmp_path, SIZES), place)

    assert "free space" in refused.value.hint
    assert refused.value.hint.startswith("nothing was changed in the warehouse; ")
    assert refused.value.hint.endswith("load the run again")


def test_a_disk_that_is_full_while_dlt_loads(url: str, tmp_path: Path) -> None:
    ended = start(url, Made(tmp_path, SIZES), "broken_within_dlt", tmp_path)

    assert ended.returncode == 74
    assert "No space left on device" in ended.stderr.splitlines()[-1]
    assert "free space" in ended.stderr.splitlines()[-1]


# --- signals ------------------------------------------------------------------------------------

STOPS = {
    "once": [signal.SIGTERM],
    "by two at once": [signal.SIGTERM, signal.SIGINT],
    "again and again": [signal.SIGTERM] * 200,
}


@pytest.mark.parametrize("how", STOPS)
def test_told_to_stop_while_the_server_waits(how: str, url: str, tmp_path: Path) -> None:
    """Another session has a table for as long as it likes: the load ends all the same."""
    old = Made(tmp_path, SIZES)
    load(old, url)
    new = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)
    with locked(url), under_way(url, new) as process:
        wait_until_it_waits(url)
        for number in STOPS[how]:
            process.send_signal(number)
            if len(STOPS[how]) > 2 and process.poll() is None:
                time.sleep(0.02)
        said = process.communicate(timeout=60)[1]

        assert process.returncode in {128 + number for number in STOPS[how]}, said
        assert "start the same command again" in said.splitlines()[-1]
        assert len(said.splitlines()) == 1
        assert schemas(url) == {"checkpoint_audit"}
    assert held(url) == wanted(old)
    assert len(loads(url)) == 1


def test_told_to_stop_while_the_server_is_silent(
    url: str, between: Between, tmp_path: Path
) -> None:
    """Nothing comes from it, not even that a statement is cancelled; nor does a new connection."""
    old = Made(tmp_path, SIZES)
    load(old, url)
    new = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)
    with locked(url), under_way(by_way_of(between, url), new) as process:
        wait_until_it_waits(url)
        between.silent.set()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]

        assert process.returncode == 128 + signal.SIGTERM, said
        assert "start the same command again" in said.splitlines()[-1]
    assert held(url) == wanted(old)


def test_told_to_stop_while_dlt_waits_for_a_server(url: str, tmp_path: Path) -> None:
    """Python would wait for dlt's threads in the end, and hear no signal any more."""
    old = Made(tmp_path, SIZES)
    load(old, url)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    new = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)

    ended = start(url, new, "told_to_stop_while_the_server_is_stuck", temporary)

    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert "start the same command again" in ended.stderr.splitlines()[-1]
    assert held(url) == wanted(old)
    assert list(temporary.iterdir()) == []


# --- waits without an end -----------------------------------------------------------------------


def test_a_job_of_dlts_that_never_begins(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its worker raises before it begins is heard by nobody, and dlt waits for it."""
    from dlt.load.load import Load

    client = Load.get_destination_client

    def failing(self: Load, *args: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError
        return client(self, *args)

    monkeypatch.setattr(Load, "get_destination_client", failing)
    monkeypatch.setattr(waiting, "_LONGEST_S", 10)

    with pytest.raises(LoadRefused, match="could not be staged: not done in") as refused:
        load(Made(tmp_path, SIZES), url)

    check_known(refused.value)
    assert schemas(url) == set()
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_statement_that_is_never_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LONGEST_S", 0.1)
    answered = threading.Event()
    given_up: list[waiting.Doing[bool]] = []

    with pytest.raises(TimeoutError):
        waiting.Stoppable().do(lambda: answered.wait(60), given_up.append)

    assert len(given_up) == 1
    answered.set()


# --- what tests need ----------------------------------------------------------------------------


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold a table that a swap wants to write, as a backup may."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE checkpoint_audit.outcomes IN SHARE MODE")
        yield


@contextmanager
def under_way(url: str, made: Made) -> Iterator[subprocess.Popen[str]]:
    known = {"PYTHONPATH": str(ROOT), "CHECKPOINT_AUDIT_WAREHOUSE_URL": url}
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", "load", str(made.path)],
        env={**os.environ, **known},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_it_waits(url: str) -> None:
    asked = (
        "SELECT COUNT(*) FROM pg_locks WHERE NOT granted "
        "AND relation = 'checkpoint_audit.outcomes'::regclass"
    )
    end = time.monotonic() + 60
    while query(url, asked) != [(1,)]:
        assert time.monotonic() < end, "the load does not wait for the table"
        time.sleep(0.1)
