"""SQL for DuckDB: views over all published runs of an audit, read where they lie.

Nothing is loaded, and nothing is read before a query asks for it: a run that is published later is
in the next answer. What the script cannot leave open is whether there is any file at all, which
DuckDB wants to know when a view is made (its issue 4999): it looks when it is run. What comes later
is then an error that says so, for no rows would look as if nothing failed.
"""

from collections.abc import Iterator
from textwrap import dedent

from pipeline.cells import on_one_line
from pipeline.tables import FAILING, REPLIES, TABLES, Table
from pipeline.warehouse.dialects import DUCKDB

#: Evidence has a column that is loaded nowhere.
_TYPES = {**DUCKDB.types, "binary": "BLOB"}

#: The tables that there are views of; evidence is there to be looked up by reply_id.
VIEWED = (*TABLES, FAILING, REPLIES)


def views_sql(place: str, audit_name: str) -> str:
    """Give the script for the audit whose folder is `place`: an absolute path, or an s3:// URL."""
    views = [
        *_published(place),
        *_all(place, audit_name),
        *_current(place),
        *_history(),
        *_answers(),
    ]
    return "\n".join([_head(place, audit_name), *views])


def _head(place: str, audit_name: str) -> str:
    return (
        f"-- Views over all runs of the audit {on_one_line(audit_name)} in {on_one_line(place)}\n"
        "--\n"
        "--   duckdb -init FILE          then ask\n"
        "--   .read FILE                 in a session\n"
        "--\n"
        "-- The files are read by each query anew. Run this at the start of every session, even\n"
        "-- of one with a database file that has these views. A database has those of one audit.\n"
    )


def _view(name: str, meaning: str, query: str) -> str:
    return f"-- {meaning}\nCREATE OR REPLACE VIEW {name} AS\n{query};\n"


# --- all runs ------------------------------------------------------------------------------------


def _published(place: str) -> Iterator[str]:
    """A run has its manifest last: one without it is being written, or taken away."""
    pattern = _quoted(f"{_literally(place)}/runs/*/manifest.json")
    query = f"SELECT split_part(file, '/', -2) AS run_id\nFROM glob({pattern})"
    yield _view("published", "The runs that are whole, by their ids.", query)


def _all(place: str, audit_name: str) -> Iterator[str]:
    for table in VIEWED:
        folder = "evidence" if table is REPLIES else f"{table.name}/dt=*"
        name = f"{table.name}-*.parquet" if table is REPLIES else "*.parquet"
        pattern = _quoted(f"{_literally(place)}/runs/*/{folder}/{name}")
        has_any = f"has_{table.name}_{audit_name.replace('-', '_')}"
        meaning = f"{table.name} of all runs: {table.meaning}."
        yield f"SET VARIABLE {has_any} = (SELECT count(*) > 0 FROM glob({pattern}));"
        yield _view(f"all_{table.name}", meaning, _read(table, pattern, has_any))


def _read(table: Table, pattern: str, has_any: str) -> str:
    """The columns of the contract, whichever of them the files have: older ones may lack some.

    Where there was no file when the script was run, and now is one, a query is told so.
    """
    columns = ",\n".join(f"  NULL::{_TYPES[one.type]} AS {one.name}" for one in table.columns)
    found = (
        f"SELECT * FROM read_parquet({pattern}, union_by_name = true, hive_partitioning = false) "
        "WHERE run_id IN (SELECT run_id FROM published)"
    )
    return (
        f"SELECT\n{columns}\nWHERE false\nUNION ALL BY NAME\n"
        f"FROM query(CASE getvariable('{has_any}')\n"
        f"  WHEN true THEN\n    {_quoted(found)}\n"
        f"  WHEN false THEN\n    {_quoted(_nothing(table, pattern))}\n"
        f"  ELSE\n    {_quoted(_NOT_RUN)}\nEND)"
    )


#: A table that there is not: its name is what is said.
_NOT_RUN = 'FROM "run the script of checkpoint-audit views in this session first"'


def _nothing(table: Table, pattern: str) -> str:
    """No row, or an error in whatever column is looked at: an optimizer passes over others."""
    said = "error('run the script of checkpoint-audit views again: there is now ' || file)"
    columns = ", ".join(f"said::{_TYPES[one.type]} AS {one.name}" for one in table.columns)
    return f"SELECT {columns} FROM (SELECT {said} AS said FROM glob({pattern})) WHERE said = ''"


# --- the current run, and the nights -------------------------------------------------------------


def _current(place: str) -> Iterator[str]:
    pointer = _quoted(f"{_literally(place)}/current.json")
    query = f"SELECT content::JSON ->> 'run_id' AS run_id\nFROM read_text({pointer})"
    yield _view("current_run", "The id of the run that is current, by current.json.", query)
    for table in VIEWED:
        of = f"{table.name} of the current run."
        yield _view(f"current_{table.name}", of, _of_runs(table, "current_run"))


def _history() -> Iterator[str]:
    yield _view(
        "history_runs",
        "The nights: of each audit date the run that counts, as `history` chooses it: a complete\n"
        "-- one before others, of these the one begun last; run_count: how many there were.",
        dedent("""\
            SELECT *, count(*) OVER (PARTITION BY audit_name, audit_date) AS run_count
            FROM all_runs
            QUALIFY row_number() OVER (
              PARTITION BY audit_name, audit_date ORDER BY complete DESC, started_at DESC, run_id
            ) = 1"""),
    )
    for table in VIEWED:
        if table.name != "runs":
            of = f"{table.name} of the runs that count, one a night."
            yield _view(f"history_{table.name}", of, _of_runs(table, "history_runs"))


def _of_runs(table: Table, runs: str) -> str:
    return f"SELECT * FROM all_{table.name}\nWHERE run_id IN (SELECT run_id FROM {runs})"


# --- answers -------------------------------------------------------------------------------------


def _answers() -> Iterator[str]:
    yield _view(
        "cluster_rpo",
        "The age of each cluster's newest restorable point, night by night, beside its limit;\n"
        "-- exceeded is null without a limit, or where no point is known.",
        dedent("""\
            SELECT
              audit_date, group_id, cluster_name, verdict, newest_restorable_at,
              rpo_age_s, rpo_limit_s, rpo_age_s > rpo_limit_s AS exceeded
            FROM history_clusters"""),
    )
    yield _view(
        "first_failing",
        "What fails in the current run (FAIL or ABSENT, excused or not), and since which night it\n"
        "-- does so without a break, as the report says it. A run that does not tell (of 0.1.0)\n"
        "-- is the first to say so.",
        dedent("""\
            SELECT
              group_id, cluster_name, checkpoint_id, verdict, excused_by,
              coalesce(failing_since, audit_date) AS failing_since,
              audit_date
            FROM current_outcomes
            LEFT JOIN (
              SELECT group_id, cluster_name, checkpoint_id, failing_since FROM current_failing
            ) USING (group_id, cluster_name, checkpoint_id)
            WHERE verdict IN ('FAIL', 'ABSENT')"""),
    )
    yield _view(
        "missing_nights",
        "Dates without a run, between the first night and the last.",
        dedent("""\
            SELECT unnest(nights)::DATE AS audit_date
            FROM (
              SELECT generate_series(min(audit_date), max(audit_date), INTERVAL 1 DAY) AS nights
              FROM history_runs
            )
            EXCEPT
            SELECT audit_date FROM history_runs"""),
    )


# --- texts ---------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literally(path: str) -> str:
    """Keep what a glob would take for a pattern."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in path)
