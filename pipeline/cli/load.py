"""The command `load`: a published run into a warehouse."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.audited import print_result
from pipeline.errors import ExitCode
from pipeline.options import LogFormat, LogFormatOption, OutputDir, Quiet, Run

if TYPE_CHECKING:
    from pipeline.warehouse.load import Loaded


def load(
    run: Run,
    schema: Annotated[
        str, typer.Option(metavar="NAME", help="Where the tables are; made if it is not there.")
    ] = "checkpoint_audit",
    replace_anyway: Annotated[
        bool,
        typer.Option(
            "--replace-anyway",
            help="Load also a run that is older than the loaded one, has over a fifth fewer "
            "triples or more inconclusive ones, is judged anew, or was made from a loopback "
            "address.",
        ),
    ] = False,
    output_dir: OutputDir = Path("outputs"),
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Load a published run into PostgreSQL or DuckDB; it replaces what is loaded of its slice.

    The address comes from CHECKPOINT_AUDIT_WAREHOUSE_URL, or from the file that
    CHECKPOINT_AUDIT_WAREHOUSE_URL_FILE names. Ends with 0 once all is loaded, however the run
    itself ended; with 74 where it is not, and the warehouse is as it was then (where the connection
    is lost in the last moment, this is not known, and the last line says so: load the run again).
    """
    from pipeline import talk
    from pipeline.published import find_run
    from pipeline.tables import only_write
    from pipeline.warehouse.address import read_address
    from pipeline.warehouse.load import load as loaded_into
    from pipeline.warehouse.statements import checked_schema

    talk.set_up(log_format=log_format, quiet=quiet)
    only_write()
    checked_schema(schema)
    address = read_address(os.environ)
    for secret in address.secrets:
        talk.hide(secret)
    found = find_run(output_dir, run)
    loaded = loaded_into(found, address, schema, datetime.now(UTC), replace_anyway=replace_anyway)
    where = f"{address.shown}, schema {schema}"
    talk.say_end(ExitCode.COMPLETE, f"loaded {found.run_id} into {where}: {_what(loaded)}")
    if not quiet:
        print_result(found.run_id)
    raise typer.Exit(ExitCode.COMPLETE)


def _what(loaded: "Loaded") -> str:
    rows = ", ".join(f"{name} {count:,}" for name, count in loaded.rows.items())
    replaced = f"; replaced {loaded.replaced}" if loaded.replaced else "; nothing was replaced"
    ignored = f"; although {'; although '.join(loaded.ignored)}" if loaded.ignored else ""
    return f"rows: {rows}{replaced}{ignored}"
