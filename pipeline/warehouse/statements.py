"""The SQL that the dialects share: tables, the replacing of a slice, and the appending of a run."""

import re
from collections.abc import Callable, Mapping

from pipeline import __version__
from pipeline.errors import ConfigurationWrong
from pipeline.tables import (
    CHECKPOINTS,
    CLUSTERS,
    FINDINGS,
    LOADS,
    OUTCOMES,
    PARTS,
    RUNS,
    TABLES,
    Table,
)

#: Where the tables are, unless another schema is named.
SCHEMA = "checkpoint_audit"

#: In the order in which they are replaced: what is in `runs` is whole.
LOADED = TABLES

#: What a table is called in SQL.
Named = Callable[[Table], str]

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,47}")


def checked_schema(name: str) -> str:
    """Give the name of a schema back; raises `ConfigurationWrong` unless it is a plain word.

    It is written into SQL without quotes, where every warehouse takes it for the same.
    """
    if not _IDENTIFIER.fullmatch(name):
        raise ConfigurationWrong(
            f"--schema {name!r} cannot be the name of a schema",
            hint="up to 48 of a to z, digits and _, no digit first",
        )
    return name


# --- tables -------------------------------------------------------------------------------------


def create_tables(schema: str, types: Mapping[str, str]) -> list[str]:
    """Create the tables of the contract, and `loads`; `types` are the dialect's, by ours."""
    return [create_table(table, f"{schema}.{table.name}", types) for table in (*LOADED, LOADS)]


def create_table(
    table: Table, name: str, types: Mapping[str, str], *, null: str = "", ending: str = ""
) -> str:
    """Create one table under the name it is called by.

    `null` is what a dialect says of a column that may be null, `ending` what it wants in the end.
    """
    columns = ",\n".join(
        f"  {column.name} {types[column.type]}{null if column.nullable else ' NOT NULL'}"
        for column in table.columns
    )
    return f"CREATE TABLE IF NOT EXISTS {name} (\n{columns}\n){ending}"


# --- one slice replaced, in a transaction -------------------------------------------------------


def replace_slice(schema: str, stage: str) -> list[str]:
    """Give the statements of one transaction: rows staged in `stage` replace those of their slice.

    The slice is what the staged `runs` says, so a table without a staged row is emptied of it too.
    """
    return replace_staged(schema, lambda table: f"{stage}.{table.name}")


def replace_staged(schema: str, staged: Named) -> list[str]:
    """Do as `replace_slice` does, with staged tables of any name."""
    return [
        statement
        for table in LOADED
        for statement in (_delete(table, schema, staged), _insert(table, schema, staged))
    ]


def _delete(table: Table, schema: str, staged: Named) -> str:
    return (
        f"DELETE FROM {schema}.{table.name} WHERE EXISTS (\n"
        f"  SELECT 1 FROM {staged(RUNS)} AS staged\n"
        f"  WHERE staged.audit_name = {table.name}.audit_name"
        f" AND staged.audit_date = {table.name}.audit_date\n)"
    )


def _insert(table: Table, schema: str, staged: Named) -> str:
    columns = ", ".join(table.names)
    return f"INSERT INTO {schema}.{table.name} ({columns})\nSELECT {columns}\nFROM {staged(table)}"


# --- what is staged -----------------------------------------------------------------------------


#: How many rows each table of a run has, by its name; empty where nobody has said it.
Counts = Mapping[str, int]

#: A checkpoint's key, as one text; the same in every dialect.
_KEY = "group_id || '/' || cluster_name || '/' || checkpoint_id"


def is_whole(staged: Named, counts: Counts) -> str:
    """Give a condition: what is staged is one run, with all the rows that its counts tell of.

    A place that is empty, or another than was meant, is no error to several warehouses, and would
    replace a slice with nothing. `counts` are what the run's manifest says. Without them the tables
    are counted against one another; no column counts findings, but each FAIL has one at least.
    """
    told = [
        f"  AND (SELECT COUNT(*) FROM {staged(table)}) = {counts[table.name]}"
        for table in LOADED
        if table.name in counts
    ]
    return "\n".join([_agreement(staged), *told])


def _agreement(staged: Named) -> str:
    runs = staged(RUNS)
    triples = f"(SELECT MAX(triple_count) FROM {runs})"
    checkpoints, outcomes, findings = staged(CHECKPOINTS), staged(OUTCOMES), staged(FINDINGS)
    return "\n".join(
        (
            f"  (SELECT COUNT(*) FROM {runs}) = 1",
            f"  AND (SELECT COUNT(*) FROM {outcomes}) = {triples}",
            (
                f"  AND (SELECT COUNT(*) FROM {checkpoints})"
                f" = (SELECT MAX(pass_count + fail_count) FROM {runs})"
            ),
            (
                f"  AND (SELECT COUNT(*) FROM {staged(PARTS)})"
                f" = (SELECT COALESCE(SUM(part_count), 0) FROM {checkpoints})"
            ),
            f"  AND (SELECT COALESCE(SUM(triple_count), 0) FROM {staged(CLUSTERS)}) = {triples}",
            (
                f"  AND (SELECT COUNT(*) FROM {outcomes}\n"
                f"    WHERE verdict = 'FAIL' AND {_KEY} IN (\n"
                f"      SELECT {_KEY} FROM {findings} WHERE checkpoint_id IS NOT NULL\n"
                f"    )) = (SELECT MAX(fail_count) FROM {runs})"
            ),
        )
    )


def note_load(schema: str, staged: Named, now: str, *, condition: str = "") -> str:
    """Write the row of `loads`, before the slice is replaced; `now` is the time in the dialect."""
    counts = "\n    + ".join(f"(SELECT COUNT(*) FROM {staged(table)})" for table in LOADED)
    return (
        f"INSERT INTO {schema}.loads ({', '.join(LOADS.names)})\n"
        f"SELECT\n"
        f"  staged.run_id, staged.audit_name, staged.audit_date,\n"
        f"  {now}, '{__version__}', staged.schema_version, '', NULLIF(replaced.run_id, ''), '',\n"
        f"  {counts}\n"
        f"FROM {staged(RUNS)} AS staged\n"
        f"LEFT JOIN {schema}.runs AS replaced\n"
        f"  ON replaced.audit_name = staged.audit_name AND replaced.audit_date = staged.audit_date"
        f"{condition}"
    )


# --- runs appended, where there is no transaction -----------------------------------------------


def appended(table: Table) -> str:
    """The table that holds all loaded runs; its views show those that count."""
    return f"loaded_{table.name}"


def create_views(schema: str) -> list[str]:
    """Create the views under the tables' own names: of each slice the run that began last.

    Only what is in `loaded_runs` is shown, which is written last, and only if everything else is
    there once: of a load that died, nothing.
    """
    others = [
        f"CREATE OR REPLACE VIEW {schema}.{table.name} AS\n"
        f"SELECT {', '.join(table.names)}\nFROM {schema}.{appended(table)}\n"
        f"WHERE run_id IN (SELECT run_id FROM {schema}.{RUNS.name})"
        for table in LOADED
        if table is not RUNS
    ]
    return [_view_of_runs(schema), *others]


def _view_of_runs(schema: str) -> str:
    columns = ", ".join(RUNS.names)
    return (
        f"CREATE OR REPLACE VIEW {schema}.{RUNS.name} AS\nSELECT {columns}\nFROM (\n"
        f"  SELECT {columns},\n"
        f"    ROW_NUMBER() OVER (PARTITION BY audit_name, audit_date"
        f" ORDER BY started_at DESC, run_id DESC) AS place\n"
        f"  FROM {schema}.{appended(RUNS)}\n"
        f") AS placed\nWHERE place = 1"
    )


def not_loaded(schema: str, run_id: str) -> str:
    """Give a condition: the run is not there as a whole."""
    return f"{run_id} NOT IN (SELECT run_id FROM {schema}.{appended(RUNS)})"


def remove_dead(schema: str, staged: Named) -> list[str]:
    """Remove what loads of this audit have left that died: rows of runs that were never whole."""
    names = [appended(table) for table in LOADED if table is not RUNS]
    return [
        f"DELETE FROM {schema}.{name}\n"
        f"WHERE audit_name IN (SELECT audit_name FROM {staged(RUNS)})\n"
        f"  AND {not_loaded(schema, 'run_id')}"
        for name in (*names, LOADS.name)
    ]


def is_appended(schema: str, staged: Named) -> str:
    """Give a condition: each table but `loaded_runs` has the staged run's rows, and none twice.

    A client may go on behind a statement that failed, or repeat one that had not.
    """
    others = [table for table in LOADED if table is not RUNS]
    wanted = [
        *((appended(table), f"(SELECT COUNT(*) FROM {staged(table)})") for table in others),
        (LOADS.name, "1"),
    ]
    return "".join(
        f"\n  AND {_count_of_run(schema, name, staged)} = {count}" for name, count in wanted
    )


def is_shown(schema: str, staged: Named) -> str:
    """Give a condition: the staged run is in `loaded_runs`."""
    return f"  {_count_of_run(schema, appended(RUNS), staged)} > 0"


def _count_of_run(schema: str, name: str, staged: Named) -> str:
    return (
        f"(SELECT COUNT(*) FROM {schema}.{name}"
        f" WHERE run_id IN (SELECT run_id FROM {staged(RUNS)}))"
    )


def append(
    table: Table, schema: str, staged: Named, *, settings: str = "", condition: str = ""
) -> str:
    """Append a run's rows to one table, unless the run is there already."""
    columns = ", ".join(table.names)
    return (
        f"INSERT INTO {schema}.{appended(table)} ({columns}){settings}\n"
        f"SELECT {columns}\nFROM {staged(table)}\nWHERE {not_loaded(schema, 'run_id')}"
        f"{condition}"
    )
