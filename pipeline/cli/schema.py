"""The command `schema`: the SQL of a warehouse, and dbt's sources."""

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli.access import set_up_talk
from pipeline.options import LogFormat, LogFormatOption, Quiet


class DialectName(StrEnum):
    """The warehouses whose SQL is known."""

    DUCKDB = "duckdb"
    POSTGRES = "postgres"
    SNOWFLAKE = "snowflake"
    BIGQUERY = "bigquery"
    REDSHIFT = "redshift"
    DATABRICKS = "databricks"
    CLICKHOUSE = "clickhouse"


def schema(
    dialect: Annotated[
        DialectName | None, typer.Option(help="Whose SQL: tables, and the load of a run.")
    ] = None,
    dbt: Annotated[bool, typer.Option("--dbt", help="Instead: a sources file for dbt.")] = False,
    schema_name: Annotated[
        str, typer.Option("--schema", metavar="NAME", help="The tables' schema.")
    ] = "checkpoint_audit",
    location: Annotated[
        str,
        typer.Option(
            metavar="RUN-FOLDER-OR-URL",
            help="Where the warehouse finds the run. Without it: a placeholder to replace.",
        ),
    ] = "",
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Print the SQL that makes a warehouse's tables and loads a run into them.

    The load can be repeated: it replaces the slice (audit name, audit date) of all tables. With
    --dbt, print a sources file with dbt's tests and freshness instead.
    """
    from pipeline.discover import writing
    from pipeline.warehouse.dbt import sources
    from pipeline.warehouse.dialects import DIALECTS
    from pipeline.warehouse.script import counts_of, script
    from pipeline.warehouse.statements import checked_schema

    set_up_talk(log_format, quiet=quiet)
    if dbt == (dialect is not None):
        raise typer.BadParameter("give either --dialect NAME or --dbt")
    if dbt and location:
        raise typer.BadParameter("--location goes with --dialect")
    where = checked_schema(schema_name)
    text = (
        sources(where)
        if dialect is None
        else script(DIALECTS[dialect], where, location, counts_of(location))
    )
    with writing(None) as write:
        write(text)
