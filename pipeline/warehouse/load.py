"""Loads a run into a warehouse: staged first, then swapped in for its slice, all at once.

A failure anywhere, and a kill, leaves the tables as they were: they are written in one transaction,
in the end. What is staged is dropped in any case; of a load that was killed, by the next one.
"""

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from pipeline import __version__
from pipeline.digests import sha256_of
from pipeline.errors import InputUnusable, Interrupted, LoadRefused
from pipeline.published import AS_IT_WAS, PublishedRun
from pipeline.tables import LOADS, RUNS
from pipeline.warehouse.address import Address
from pipeline.warehouse.connections import Connection, connect
from pipeline.warehouse.refusals import Slice, refusals
from pipeline.warehouse.stage import Content, check, contents_of, fill
from pipeline.warehouse.statements import create_tables, replace_slice

log = logging.getLogger(__name__)

#: What a stage is called; dlt leaves such a name as it is.
_STAGE = "checkpoint_audit_stage_"
_STAGE_NAME = re.compile(_STAGE + "[0-9a-f]{12}")


class Loaded(msgspec.Struct, frozen=True):
    """What was loaded: rows by table, the run that was replaced, and refusals that were ignored."""

    rows: dict[str, int]
    replaced: str | None
    ignored: tuple[str, ...]


def load(
    run: PublishedRun, address: Address, schema: str, now: datetime, *, replace_anyway: bool = False
) -> Loaded:
    """Load a run into the tables of `schema`, which are made where they are not there yet.

    `now` is aware. Raises `LoadRefused` where the warehouse refuses, or the run should not take the
    place of what is there (unless `replace_anyway`), and `InputUnusable` where the run is not as it
    was published; the tables are then as they were, unless the error says that this is not known.
    """
    contents = contents_of(run)
    try:
        with connect(address) as connection, _staging(connection) as stage:
            swap = _Swap(run, contents, connection, schema, stage, replace_anyway=replace_anyway)
            swap.check()
            fill(connection, stage, contents)
            return swap.do(now)
    except Interrupted as stop:
        again = "start the same command again: it loads the run, whether or not that was done"
        raise Interrupted(stop.code - 128, hint=again) from None


# --- the stage ----------------------------------------------------------------------------------


@contextmanager
def _staging(connection: Connection) -> Iterator[str]:
    """Make a schema with the contract's tables, all empty, and drop it in the end."""
    _drop_abandoned(connection)
    stage = _STAGE + secrets.token_hex(6)
    connection.hold(stage)
    try:
        connection.rows(f"CREATE SCHEMA {stage}")
        for statement in create_tables(stage, connection.types):
            connection.rows(statement)
        yield stage
    finally:
        _drop(connection, stage)


def _drop_abandoned(connection: Connection) -> None:
    """Drop what killed loads have left: stages that no connection holds."""
    rows = connection.rows("SELECT schema_name FROM information_schema.schemata")
    for name in sorted({str(name) for (name,) in rows if _STAGE_NAME.fullmatch(name)}):
        if connection.hold(name):
            log.info("dropping %s, which a load has left that did not end", name)
            _drop(connection, name)
            connection.release(name)


def _drop(connection: Connection, stage: str) -> None:
    try:
        connection.rows(f"DROP SCHEMA IF EXISTS {stage} CASCADE")
    except LoadRefused as trouble:
        log.warning("%s stays, until the next load drops it: %s", stage, trouble)


# --- the swap -----------------------------------------------------------------------------------


class _Swap:
    """Replaces the slice of one run by what is staged of it."""

    def __init__(
        self,
        run: PublishedRun,
        contents: list[Content],
        connection: Connection,
        schema: str,
        stage: str,
        *,
        replace_anyway: bool,
    ) -> None:
        self._run = run
        self._contents = contents
        self._rows = {content.table.name: content.row_count for content in contents}
        self._row = _row_of(run, contents)
        self._connection = connection
        self._schema = schema
        self._stage = stage
        self._replace_anyway = replace_anyway

    def check(self) -> None:
        """Refuse what would be refused in the end before anything is sent."""
        theirs = self._check_columns()
        self._refusals(self._loaded() if RUNS.name in theirs else None)

    def do(self, now: datetime) -> Loaded:
        """Swap, all or nothing; what is there is looked at once more, when nobody else writes."""
        with self._connection.transaction():
            self._connection.lock(self._schema, self._create)
            self._check_columns()
            loaded = self._loaded()
            ignored = self._refusals(loaded)
            for statement in replace_slice(self._schema, self._stage):
                self._connection.rows(statement)
            self._check_rows()
            replaced = loaded.run_id if loaded is not None else None
            self._note(now, replaced, ignored)
        return Loaded(self._rows, replaced, tuple(ignored))

    def _check_rows(self) -> None:
        """Refuse what is not there after the swap as in the files.

        A trigger, a rule or row level security may keep rows back without a word.
        """
        manifest = self._run.manifest
        for content in self._contents:
            place = f"{self._schema}.{content.table.name}"
            check(
                self._connection,
                content,
                f"{place} WHERE audit_name = ? AND audit_date = ?",
                [manifest.audit_name, manifest.audit_date],
                place,
            )

    def _create(self) -> None:
        self._connection.rows(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
        for statement in create_tables(self._schema, self._connection.types):
            self._connection.rows(statement)

    def _columns(self, schema: str) -> dict[str, set[tuple[str, ...]]]:
        """The columns of the tables in a schema, by table.

        Of each its name, type, whether it may be null, and the digits of a second and the letters
        that it holds, where it is bounded.
        """
        rows = self._connection.rows(
            "SELECT table_name, column_name, data_type, is_nullable, datetime_precision, "
            "character_maximum_length "
            "FROM information_schema.columns WHERE LOWER(table_schema) = ?",
            [schema.lower()],
        )
        found: dict[str, set[tuple[str, ...]]] = {}
        for table, *column in rows:
            found.setdefault(table, set()).add(tuple(map(str, column)))
        return found

    def _check_columns(self) -> set[str]:
        """Refuse to write into tables that are others than the staged ones, which are ours.

        Gives the tables that are there.
        """
        ours, theirs = self._columns(self._stage), self._columns(self._schema)
        for table in sorted(ours.keys() & theirs.keys()):
            odd = sorted(ours[table] ^ theirs[table])
            if odd:
                raise LoadRefused(
                    f"the table {self._schema}.{table} has other columns than this version's: "
                    + _difference(odd[0], is_wanted=odd[0] in ours[table]),
                    hint="nothing was changed; load into another schema with --schema, or rename "
                    "the tables that are there",
                )
        return set(theirs)

    def _loaded(self) -> Slice | None:
        """The run that holds the slice now."""
        manifest = self._run.manifest
        rows = self._slices(
            f"{self._schema}.runs WHERE audit_name = ? AND audit_date = ? ORDER BY started_at DESC",
            manifest.audit_name,
            manifest.audit_date,
        )
        return rows[0] if rows else None

    def _slices(self, source: str, *parameters: object) -> list[Slice]:
        # As seconds: DuckDB wants another package for times with a zone.
        rows = self._connection.rows(
            "SELECT run_id, EXTRACT(EPOCH FROM started_at), triple_count, inconclusive_count "
            f"FROM {source}",
            parameters,
        )
        return [Slice(row[0], datetime.fromtimestamp(float(row[1]), UTC), *row[2:]) for row in rows]

    def _refusals(self, loaded: Slice | None) -> list[str]:
        """Give the reasons that are ignored; raises `LoadRefused` with those that are not."""
        reasons = refusals(self._run.manifest, msgspec.convert(self._row, Slice), loaded)
        if reasons and not self._replace_anyway:
            raise LoadRefused(
                f"the run {self._run.run_id} was not loaded: {'; '.join(reasons)}",
                hint="nothing was changed; load another run, or this one all the same with "
                "--replace-anyway",
            )
        return reasons

    def _note(self, now: datetime, replaced: str | None, ignored: list[str]) -> None:
        manifest = self._run.manifest
        values = {
            "run_id": manifest.run_id,
            "audit_name": manifest.audit_name,
            "audit_date": manifest.audit_date,
            "loaded_at": now,
            "tool_version": __version__,
            "schema_version": self._row["schema_version"],
            "manifest_sha256": sha256_of(self._run.path / "manifest.json"),
            "replaced_run_id": replaced,
            "refusals": "; ".join(ignored),
            "row_count": sum(self._rows.values()),
        }
        marks = ", ".join("?" * len(LOADS.names))
        self._connection.rows(
            f"INSERT INTO {self._schema}.{LOADS.name} ({', '.join(LOADS.names)}) VALUES ({marks})",
            [values[name] for name in LOADS.names],
        )


def _row_of(run: PublishedRun, contents: list[Content]) -> dict[str, Any]:
    """The row that a run has in `runs`."""
    rows = [
        row
        for content in contents
        if content.table is RUNS
        for batch in content.batches()
        for row in batch.to_pylist()
    ]
    if len(rows) != 1:
        raise InputUnusable(f"{run.path} has {len(rows)} rows in runs, wanted 1", hint=AS_IT_WAS)
    found: dict[str, Any] = rows[0]
    return found


def _difference(column: tuple[str, ...], *, is_wanted: bool) -> str:
    name, kind, nullable, digits, letters = column
    whose = "wanted" if is_wanted else "there"
    more = [
        "" if nullable == "YES" else ", not null",
        "" if digits == "None" else f", {digits} digits of a second",
        "" if letters == "None" else f", {letters} letters",
    ]
    return f"{whose} is {name} ({kind}{''.join(more)})"
