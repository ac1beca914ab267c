"""A script for a warehouse: its tables, and the load of one run that can be repeated."""

import textwrap
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import msgspec

from pipeline import __version__
from pipeline.columns import SCHEMA_VERSION
from pipeline.errors import ConfigurationWrong, InputUnusable
from pipeline.published import AS_IT_WAS
from pipeline.tables import LOADS, RUNS, Table
from pipeline.warehouse.dialects import Dialect, Place
from pipeline.warehouse.statements import (
    LOADED,
    Counts,
    Named,
    append,
    appended,
    create_table,
    create_tables,
    create_views,
    is_appended,
    is_shown,
    is_whole,
    not_loaded,
    note_load,
    remove_dead,
    replace_staged,
)

#: What would end a text in some dialect, or be a pattern to it.
_UNFIT = frozenset("'\"`\\;*?[]{}$")

Section = tuple[str, list[str]]


class _File(msgspec.Struct, frozen=True):
    path: str
    rows: int | None = None


class _Files(msgspec.Struct, frozen=True):
    files: tuple[_File, ...]


def counts_of(location: str) -> Counts:
    """Give the rows of each table, by the manifest of a run that is in a folder of this machine.

    Of a location that is elsewhere, none. Raises `InputUnusable` for a manifest that cannot be
    read.
    """
    manifest = Path(location) / "manifest.json"
    if not location or not manifest.is_file():
        return {}
    try:
        files = msgspec.json.decode(manifest.read_bytes(), type=_Files).files
    except (OSError, msgspec.DecodeError) as error:
        raise InputUnusable(f"{manifest} cannot be read: {error}", hint=AS_IT_WAS) from error
    return {
        table.name: sum(file.rows or 0 for file in files if file.path.startswith(f"{table.name}/"))
        for table in LOADED
    }


def script(dialect: Dialect, schema: str, location: str, counts: Counts) -> str:
    """Give the whole script; `location` is the run's folder or address, empty for a placeholder.

    `counts` are the rows of the run's tables where they are known, as of `counts_of`.
    Raises `ConfigurationWrong` for a location that the warehouse cannot load from, or that cannot
    be written into SQL.
    """
    place = Place(schema, checked_location(dialect, location))
    parts = (_section(title, found) for title, found in sections(dialect, place, counts))
    return "\n".join([_head(dialect, place, counts), *parts])


def checked_location(dialect: Dialect, location: str) -> str:
    """Give a location without a slash at its end, or the dialect's placeholder."""
    if location and not location.strip("/"):
        raise ConfigurationWrong(
            f"--location {location!r} is no run's folder",
            hint="name the folder that has the run's manifest.json",
        )
    told = location.rstrip("/") or dialect.location
    if not told.isprintable() or _UNFIT.intersection(told):
        raise ConfigurationWrong(
            f"--location {location!r} cannot be written into SQL",
            hint="give a path or an address without quotes, patterns, ; $ and \\",
        )
    if dialect.begins and not told.startswith(dialect.begins):
        raise ConfigurationWrong(
            f"{dialect.title} cannot load from --location {location!r}",
            hint=f"give one that begins with {' or '.join(dialect.begins)}{dialect.instead}",
        )
    return told


def sections(dialect: Dialect, place: Place, counts: Counts) -> list[Section]:
    """Give the statements in their order, under what they are for."""

    def staged(table: Table) -> str:
        return dialect.staged(table, place)

    stage = list(chain.from_iterable(dialect.stage(table, place) for table in LOADED))
    whole = is_whole(staged, counts)
    check = dialect.refuse.format(whole=whole, why="the files are not one whole run")
    load = (
        _replace(dialect, place, staged)
        if dialect.is_transactional
        else _append(dialect, place, staged, whole)
    )
    return [
        ("The tables, where they are not there yet", _tables(dialect, place)),
        ("The run, staged", stage),
        ("What is staged has to be one whole run: this fails if it is not", [check]),
        *load,
    ]


def _tables(dialect: Dialect, place: Place) -> list[str]:
    schema = place.schema
    first = dialect.create_schema.format(schema=schema)
    if dialect.is_transactional:
        return [first, *create_tables(schema, dialect.types)]
    names = {table: appended(table) for table in LOADED} | {LOADS: LOADS.name}
    tables = [
        create_table(
            table, f"{schema}.{name}", dialect.types, null=dialect.null, ending=dialect.ending
        )
        for table, name in names.items()
    ]
    return [first, *tables, *create_views(schema)]


def _replace(dialect: Dialect, place: Place, staged: Named) -> list[Section]:
    lock = [dialect.lock.format(schema=place.schema)] if dialect.lock else []
    noted = note_load(place.schema, staged, dialect.now)
    replaced = replace_staged(place.schema, staged)
    return [
        (
            "The slice, replaced in all tables or in none",
            [dialect.begin, *lock, noted, *replaced, dialect.commit],
        )
    ]


def _append(dialect: Dialect, place: Place, staged: Named, whole: str) -> list[Section]:
    schema = place.schema
    is_new = f"\nWHERE {not_loaded(schema, 'staged.run_id')}"
    appends = [
        append(table, schema, staged, settings=dialect.settings)
        for table in LOADED
        if table is not RUNS
    ]
    is_there = f"\n  AND {whole.strip()}{is_appended(schema, staged)}"
    last = append(RUNS, schema, staged, settings=dialect.settings, condition=is_there)
    shown = is_shown(schema, staged)
    check = dialect.refuse.format(whole=shown, why="the run is not there as a whole: load it again")
    noted = note_load(schema, staged, dialect.now, condition=is_new)
    return [
        ("What loads of this audit left that died", remove_dead(schema, staged)),
        ("The run, appended unless it is there; from loaded_runs on it is shown", appends),
        ("", [noted]),
        ("Only if all of that is there, and once", [last]),
        ("This fails if the run is not there now: run the script again", [check]),
    ]


# --- the text -----------------------------------------------------------------------------------

_REPLACES = """\
Loads one run of checkpoint-audit into {title}: makes the tables of the schema {schema} where
they are not there yet, stages the run's Parquet files, counts them, and replaces the run's slice
(audit_name, audit_date) in all tables in one transaction, runs last. The same run once more
gives the same rows; a later load of the slice takes its place, whichever run began first."""

_APPENDS = """\
Loads one run of checkpoint-audit into {title}: makes the tables and views of the schema {schema}
where they are not there yet, counts the run's Parquet files, and appends them to the tables
loaded_…, loaded_runs last, and that only if everything else is there once. No transaction covers
several tables here, so read the views (checkpoints, parts, outcomes, clusters, findings, runs):
they show of each slice (audit_name, audit_date) the run that began last among those in
loaded_runs. The same run once more adds nothing; what a load left that died is removed by the
next load of its audit. Let one load of an audit end before the next begins."""

_AGREE = """\
Counted are the rows of runs, outcomes, checkpoints, parts and clusters, which have to agree with
one another. Nothing in them counts findings: each FAIL has to have one, and a loss of others is
not seen."""

_TOLD = """\
Counted are the rows of all six tables, against one another and against the manifest of the run
that this was made for."""


def _head(dialect: Dialect, place: Place, counts: Counts) -> str:
    what = _REPLACES if dialect.is_transactional else _APPENDS
    paragraphs = [
        textwrap.fill(what.format(title=dialect.title, schema=place.schema), 96),
        textwrap.fill(_TOLD if counts else _AGREE, 96),
        dialect.how.format(location=place.location),
        _what_to_replace(dialect, place, counts),
        f"Made by checkpoint-audit {__version__} for schema version {SCHEMA_VERSION}.",
    ]
    lines = chain.from_iterable((*text.splitlines(), "") for text in paragraphs)
    return "".join(f"-- {line}".rstrip() + "\n" for line in lines) + _preparation(dialect, place)


def _what_to_replace(dialect: Dialect, place: Place, counts: Counts) -> str:
    if counts:
        return "It has this run's counts: make another for another run."
    if place.location != dialect.location:
        return f"To load another run, replace {place.location} throughout."
    return (
        f"Replace {place.location} throughout by where the run's folder is, the one with\n"
        "manifest.json in it, or let `checkpoint-audit schema --location` do so. Name the run by\n"
        "its own folder, not by `current`, which may move while it is read."
    )


def _preparation(dialect: Dialect, place: Place) -> str:
    if dialect.prepare is None:
        return ""
    lines = ["SET TimeZone = 'UTC';", *(dialect.prepare(table, place) for table in LOADED)]
    return "".join(f"-- duckdb: {line}\n" for line in lines)


def _section(title: str, statements: list[str]) -> str:
    return "".join(_lines(title, statements))


def _lines(title: str, statements: list[str]) -> Iterator[str]:
    if title and statements:
        yield f"\n-- {title}.\n\n"
    for statement in statements:
        # psql's own commands end with their line.
        yield f"{statement}\n" if statement.startswith("\\") else f"{statement};\n\n"
