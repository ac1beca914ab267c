"""Connections to the two warehouses that runs are loaded into, behind one interface.

Whatever their libraries raise becomes `LoadRefused` here, in the warehouse's own words.
"""

import errno
import hashlib
import importlib
import importlib.util
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline.errors import AuditError, ConfigurationWrong, LoadRefused
from pipeline.tables import LOADS
from pipeline.warehouse.address import Address
from pipeline.warehouse.dialects import DUCKDB, POSTGRES
from pipeline.warehouse.statements import LOADED
from pipeline.warehouse.waiting import Doing, Stoppable

#: Letters of what a warehouse says that are shown.
_SAID = 500

#: What a load waits for another one, or for a server to answer. Seconds.
_LOCK_S, _CONNECT_S = 600, 15

#: What a statement has to end by itself after a signal, and then a server to answer that it is
#: cancelled. Seconds.
_GRACE_S, _ANSWER_S = 0.5, 5

#: What we want of a connection where the address says nothing else: among it, that a server that
#: is not there any more is noticed within a minute.
_WANTED = {
    "connect_timeout": _CONNECT_S,
    "application_name": "checkpoint-audit",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

#: How a disk that is full is told of: by the system, and by DuckDB of what it puts aside.
_FULL = ("no space left on device", "disk quota exceeded", "max_temp_directory_size")

Row = tuple[Any, ...]


class Connection(Protocol):
    """A connection that lasts for a whole load.

    `types` are the warehouse's types by ours. `file_format` is what dlt sends rows as, and
    `loses_empty` whether an empty text arrives as null from it. `takes_nul` says whether a text may
    hold the character NUL, `encoding` what texts are kept in. `microseconds` gives a time `{}` as
    whole microseconds since 1970.
    """

    types: Mapping[str, str]
    file_format: Literal["csv", "parquet"]
    loses_empty: bool
    takes_nul: bool
    microseconds: str

    @property
    def encoding(self) -> str:
        """The encoding of texts, `UTF8` where every text can be kept."""
        ...

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one statement, `?` for each parameter; give its rows, if it has any."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing of what is done in the block."""
        ...

    def lock(self, schema: str, create: Callable[[], None], /) -> None:
        """Within a transaction: from here to its end no other load writes.

        `create` makes the tables where they are not there yet.
        """
        ...

    def hold(self, stage: str, /) -> bool:
        """Say that the load with this stage is under way, as long as the connection lasts.

        False where another connection says so.
        """
        ...

    def release(self, stage: str, /) -> None:
        """Take that back."""
        ...

    def destination(self) -> Any:
        """Give what dlt loads into."""
        ...


@contextmanager
def connect(address: Address) -> Iterator[Connection]:
    """Connect for as long as the context lasts.

    Raises `LoadRefused` where the warehouse cannot be reached, and `ConfigurationWrong` where what
    connects to it is not installed.
    """
    wanted, kind = _KINDS[address.scheme]
    for name in ("dlt", wanted):
        if importlib.util.find_spec(name) is None:
            raise ConfigurationWrong(
                f"loading into a warehouse wants the package {name}, which is not installed",
                hint="pip install 'atlas-checkpoint-audit[warehouse]'",
            )
    with kind(address) as connection:
        yield connection


def said(error: BaseException) -> str:
    """Give on one line what an error of a warehouse says."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _SAID else f"{text[:_SAID]}…"


def full_disk(error: BaseException) -> str:
    """Give what to do about an error where a disk is full, and nothing where it is another."""
    is_full = (
        getattr(error, "pgcode", None) == "53100"  # disk_full, in whatever language it is said
        or getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
        or any(words in str(error).lower() for words in _FULL)
    )
    if not is_full:
        return ""
    return (
        "nothing was changed in the warehouse; free space on its disk, or here in the folder for "
        "temporary files, and load the run again"
    )


# --- PostgreSQL ---------------------------------------------------------------------------------


class _Postgres:
    types = POSTGRES.types
    file_format: Literal["csv", "parquet"] = "csv"
    #: dlt copies CSV with FORCE_NULL for each column that may be null.
    loses_empty = True
    #: "The character with the code zero cannot be in a string" (Character Types).
    takes_nul = False
    #: EXTRACT gives a NUMERIC, which is exact.
    microseconds = "EXTRACT(EPOCH FROM {}) * 1000000"

    def __init__(
        self, address: Address, told: Mapping[str, Any], connection: Any, stoppable: Stoppable
    ) -> None:
        """`told` is what the address says, without the password."""
        self._address = address
        self._told = told
        self._connection = connection
        self._stoppable = stoppable
        ((self._began_at,),) = self.rows(
            "SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        )

    @property
    def encoding(self) -> str:
        return str(self._connection.info.parameter_status("server_encoding"))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import psycopg2

        try:
            yield
        except (psycopg2.Error, TimeoutError) as error:
            raise _refused(self._address, error) from None

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with self._translated():
            return self._stoppable.do(lambda: self._rows(statement, parameters), self._end)

    def _rows(self, statement: str, parameters: Sequence[Any]) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement.replace("?", "%s"), parameters or None)
            return list(cursor.fetchall()) if cursor.description else []

    def _end(self, statement: Doing[list[Row]]) -> None:
        """See to it that a statement ends, whether the server answers or not."""
        if statement.wait(_GRACE_S):
            return
        cancelling = Doing(self._cancel)
        cancelling.begin()
        if statement.wait(_ANSWER_S):
            # Otherwise it might yet cancel another statement.
            cancelling.wait(_ANSWER_S)
            return
        self._cut()
        statement.wait(_ANSWER_S)

    def _cancel(self) -> None:
        """Cancel what is under way, by another connection.

        psycopg2's own `cancel` lets no other thread go on until the server has answered.
        """
        import psycopg2

        info = self._connection.info
        there = {**info.dsn_parameters, **self._told, "password": info.password}
        with closing(psycopg2.connect(**there)) as other, other.cursor() as cursor:
            # The address may lead to another server this time, where the number is another's.
            cursor.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                "WHERE pid = %s AND backend_start = %s",
                [info.backend_pid, self._began_at],
            )

    def _cut(self) -> None:
        """Cut the connection, whatever waits for it."""
        import psycopg2

        with suppress(psycopg2.InterfaceError, OSError):  # it may be lost by itself just now
            line = socket.socket(fileno=os.dup(self._connection.fileno()))
            with line:
                line.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        # Whatever the database's default is: with REPEATABLE READ, what another load has written
        # while this one waited for the lock would not be seen, and so not be replaced.
        self.rows("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        try:
            yield
            self._commit()
        except BaseException:
            if not self._connection.closed:
                # What went wrong first is what is told, and the connection ends soon.
                with suppress(LoadRefused):
                    self.rows("ROLLBACK")
            raise

    def _commit(self) -> None:
        """Commit; where the answer is lost, `LoadRefused` says that it is not known what is there.

        A server that has gone before is noticed by another statement, when it is known.
        """
        self.rows("SELECT 1")
        try:
            self.rows("COMMIT")
        except LoadRefused as refused:
            was_answered = not isinstance(refused.__context__, TimeoutError)
            if was_answered and not self._connection.closed:
                raise
            raise LoadRefused(
                "it is not known whether the run was loaded, for there was no answer when it was "
                f"committed: {refused}",
                hint="load the run again: that is safe whether it was loaded or not",
            ) from None

    def lock(self, schema: str, create: Callable[[], None]) -> None:
        # Two that make the same table at once disturb each other, IF NOT EXISTS or not.
        self.rows("SELECT pg_advisory_xact_lock(?)", [_number(schema)])
        create()
        names = ", ".join(f"{schema}.{table.name}" for table in (LOADS, *LOADED))
        self.rows(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")

    def hold(self, stage: str) -> bool:
        return bool(self.rows("SELECT pg_try_advisory_lock(?)", [_number(stage)])[0][0])

    def release(self, stage: str) -> None:
        self.rows("SELECT pg_advisory_unlock(?)", [_number(stage)])

    def destination(self) -> Any:
        """Let dlt connect as we did, wherever what was not in the address came from."""
        from dlt.destinations import postgres
        from dlt.destinations.impl.postgres.configuration import PostgresCredentials

        given = PostgresCredentials()
        # It wants to have these, and writes them before the others, which override them.
        given.host = given.database = given.username = "overridden"
        password = self._connection.info.password
        given.password = password or "overridden"
        given.query = {**self._connection.info.dsn_parameters, **self._told}
        if not password:
            given.query["password"] = ""
        return postgres(credentials=given)


@contextmanager
def _postgres(address: Address) -> Iterator[Connection]:
    import psycopg2
    from psycopg2.extensions import make_dsn, parse_dsn

    try:
        told = parse_dsn(address.target)
    except psycopg2.ProgrammingError:
        # Without the error it came from, which repeats the address.
        raise ConfigurationWrong(
            "the warehouse's address is not one that PostgreSQL understands",
            hint="write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %XX for what is "
            "special in a user name or password",
        ) from None
    # Whatever the environment says: what does not fit into the database is for the server to say.
    told["client_encoding"] = "UTF8"
    stoppable = Stoppable()
    with stoppable.hearing():
        try:
            dsn = make_dsn(**{**_WANTED, **told})
            connection = stoppable.do(lambda: psycopg2.connect(dsn))
        except psycopg2.Error as error:
            raise _refused(address, error) from None
        with closing(connection):
            connection.autocommit = True  # transactions are begun by name
            told.pop("password", None)
            found = _Postgres(address, told, connection, stoppable)
            found.rows(f"SET lock_timeout = '{_LOCK_S}s'")
            # As many digits as a number has; a role may have fewer, and sums would differ.
            found.rows("SET extra_float_digits = 3")
            yield found


def _number(name: str) -> int:
    """The number of an advisory lock, which is known by nothing else."""
    digest = hashlib.sha256(f"checkpoint-audit {name.lower()}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


# --- DuckDB -------------------------------------------------------------------------------------


class _DuckDb:
    types = DUCKDB.types
    file_format: Literal["csv", "parquet"] = "parquet"
    loses_empty = False
    takes_nul = True
    microseconds = "EPOCH_US({})"
    encoding = "UTF8"

    def __init__(self, address: Address, connection: Any) -> None:
        self._address = address
        self._connection = connection

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        import duckdb

        try:
            return list(self._connection.execute(statement, parameters or None).fetchall())
        except duckdb.Error as error:
            raise _refused(self._address, error) from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.rows("BEGIN")
        try:
            yield
            self.rows("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        """A commit that failed has rolled back already."""
        import duckdb

        try:
            self._connection.rollback()
        except duckdb.TransactionException:
            return

    def lock(self, _: str, create: Callable[[], None]) -> None:
        """One process at a time can write a file, and the whole load is one connection to it."""
        create()

    def hold(self, _: str) -> bool:
        return True

    def release(self, _: str) -> None:
        return

    def destination(self) -> Any:
        from dlt.destinations import duckdb

        return duckdb(self._connection)


@contextmanager
def _duckdb(address: Address) -> Iterator[Connection]:
    import duckdb

    file = Path(address.target)
    is_new = not file.exists()
    try:
        connection = duckdb.connect(address.target)
    except duckdb.Error as error:
        raise _refused(address, error) from None
    with closing(connection):
        found = _DuckDb(address, connection)
        try:
            yield found
        except AuditError:
            # While it is open nobody else has it.
            if is_new and not found.rows("SELECT table_name FROM duckdb_tables()"):
                file.unlink(missing_ok=True)
            raise


def _refused(address: Address, error: BaseException) -> LoadRefused:
    return LoadRefused(f"{address.shown} refused: {said(error)}", hint=full_disk(error))


_KINDS: dict[str, tuple[str, Callable[[Address], AbstractContextManager[Connection]]]] = {
    "postgresql": ("psycopg2", _postgres),
    "duckdb": ("duckdb", _duckdb),
}
