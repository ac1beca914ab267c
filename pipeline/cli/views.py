"""The command `views`: SQL views over the runs of an audit, for DuckDB."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.access import set_up_talk
from pipeline.errors import ConfigurationWrong
from pipeline.options import LogFormat, LogFormatOption, OutputDir, Quiet, is_audit_name

log = logging.getLogger("pipeline")


def views(
    audit: Annotated[str, typer.Argument(metavar="AUDIT", help="The name of an audit.")],
    output_dir: OutputDir = Path("outputs"),
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Print SQL with views over all runs of AUDIT for DuckDB, which reads the files as they are.

    Use it as `duckdb -init FILE`. There need be no run yet.
    """
    from pipeline.discover import writing
    from pipeline.warehouse.views import views_sql

    set_up_talk(log_format, quiet=quiet)
    if not is_audit_name(audit):
        raise ConfigurationWrong(f"{audit!r} is not the name of an audit")
    place = _place(output_dir, audit)
    if isinstance(output_dir, Path) and not (Path(place) / "current.json").exists():
        log.warning("there is no run in %s yet: the views have no rows", place)
    with writing(None) as write:
        write(views_sql(place, audit))


def _place(output_dir: OutputDir, audit: str) -> str:
    """Give the audit's folder as it is found from anywhere."""
    if isinstance(output_dir, Path):
        return str(output_dir.absolute() / audit)  # links stay as they are named
    return f"{output_dir}/{audit}"
