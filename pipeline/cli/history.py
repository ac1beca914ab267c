"""The commands `diff` and `history`: what changed between runs, and which there were."""

import logging
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.access import set_up_talk
from pipeline.errors import ConfigurationWrong, ExitCode
from pipeline.options import (
    LogFormat,
    LogFormatOption,
    OutputDir,
    Quiet,
    TextOrJson,
    is_audit_name,
    read_date,
)

log = logging.getLogger("pipeline")

_RUN = "An audit (its current run), a run id, or a run's folder."


class HistoryFormat(StrEnum):
    """How the nights are printed."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


class DiffFailOn(StrEnum):
    """What of a comparison makes an exit code."""

    NEW = "new"


class HistoryFailOn(StrEnum):
    """What of the nights makes an exit code."""

    MISSING = "missing"


def diff(
    older: Annotated[str, typer.Argument(metavar="OLD", help=_RUN)],
    newer: Annotated[str, typer.Argument(metavar="NEW", help=_RUN)],
    output_dir: OutputDir = Path("outputs"),
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Rows of each kind that are shown; 0: all.")
    ] = 50,
    format_: Annotated[
        TextOrJson, typer.Option("--format", help="text, or json with the same rows.")
    ] = TextOrJson.TEXT,
    fail_on: Annotated[
        DiffFailOn | None,
        typer.Option(help="new: end with 1 where something is open that was not."),
    ] = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Say what changed from the run OLD to the run NEW.

    Where rules or policy changed, OLD's evidence is judged again by today's rules under NEW's
    policy, so that Atlas's doing and the rules' are told apart. Nothing is asked of Atlas. Ends
    with 0 whether or not anything changed.
    """
    from pipeline.diff import as_json, as_text, make_diff
    from pipeline.discover import writing
    from pipeline.published import find_run

    set_up_talk(log_format, quiet=quiet)
    made = make_diff(find_run(output_dir, older), find_run(output_dir, newer), limit)
    for warning in made.warnings:
        log.warning("%s", warning)
    with writing(None) as write:
        write(as_json(made) if format_ is TextOrJson.JSON else as_text(made))
    is_failed = fail_on is DiffFailOn.NEW and made.changes.has_newly_open
    raise typer.Exit(ExitCode.OPEN if is_failed else ExitCode.COMPLETE)


def history(
    audit: Annotated[str, typer.Argument(metavar="AUDIT", help="The name of an audit.")],
    output_dir: OutputDir = Path("outputs"),
    from_: Annotated[
        str,
        typer.Option("--from", metavar="YYYY-MM-DD", help="Default: the audit's first night."),
    ] = "",
    to: Annotated[
        str, typer.Option("--to", metavar="YYYY-MM-DD", help="Default: today, UTC.")
    ] = "",
    format_: Annotated[
        HistoryFormat, typer.Option("--format", help="text, json, or csv for a spreadsheet.")
    ] = HistoryFormat.TEXT,
    fail_on: Annotated[
        HistoryFailOn | None,
        typer.Option(help="missing: end with 1 where a night is missing or a run damaged."),
    ] = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Give one row a night of AUDIT: its run, counts, completeness and policy.

    Nights without a run are named MISSING; of several runs of one night the latest complete one
    counts, else the latest. A run that cannot be read is named DAMAGED.
    """
    from pipeline.discover import writing
    from pipeline.history import as_csv, as_json, as_text, read_history
    from pipeline.published import address_of, folder_of

    set_up_talk(log_format, quiet=quiet)
    if not is_audit_name(audit):
        raise ConfigurationWrong(f"{audit!r} is not the name of an audit")
    first, last = read_date("--from", from_), read_date("--to", to)
    if first and last and first > last:
        raise ConfigurationWrong(f"--from {first} is later than --to {last}")
    folder, today = folder_of(output_dir, audit), datetime.now(UTC).date()
    found = read_history(folder, first, last, today, address_of(output_dir, folder))
    shown = {
        HistoryFormat.TEXT: as_text,
        HistoryFormat.JSON: as_json,
        HistoryFormat.CSV: as_csv,
    }[format_]
    with writing(None) as write:
        write(shown(found))
    is_failed = fail_on is HistoryFailOn.MISSING and not found.is_sound
    raise typer.Exit(ExitCode.OPEN if is_failed else ExitCode.COMPLETE)
