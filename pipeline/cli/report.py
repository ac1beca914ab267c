"""The command `report`: a published run is reported again, offline, or judged anew."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.audited import print_result
from pipeline.errors import ExitCode
from pipeline.options import (
    LogFormat,
    LogFormatOption,
    OutputDir,
    PolicyFile,
    Quiet,
    Run,
    read_folder,
)

if TYPE_CHECKING:
    from pipeline.published import PublishedRun

log = logging.getLogger("pipeline")

_PAGES = ["html", "md", "json"]


def report(
    run: Run,
    to: Annotated[
        Path,
        typer.Option(
            parser=read_folder,
            metavar="DIR",
            help="Where it is written; never in or below a run.",
        ),
    ],
    policy: PolicyFile = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="html|md|json|csv",
            help="What is written; may be given repeatedly. csv: outcomes and findings, for a "
            "spreadsheet. Default: html, md and json.",
        ),
    ] = None,
    output_dir: OutputDir = Path("outputs"),
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Report a published run again, offline: what it said, as this version says it.

    With --policy its evidence is judged anew, without Atlas: DIR, which is new or empty, becomes a
    folder like a run's, with an id of its own. It never becomes an audit's current run.

    Ends with 0 once all is written, however the run itself ended: that stands in the report.
    """
    from pipeline import talk
    from pipeline.published import find_run
    from pipeline.tables import only_write

    talk.set_up(log_format=log_format, quiet=quiet)
    only_write()
    asked = _formats(formats)
    if policy is not None and formats:
        raise typer.BadParameter(
            "--policy writes a whole run: report DIR with --format once more, then"
        )
    found = find_run(output_dir, run)
    said = _report(found, asked, to) if policy is None else _judge(found, policy, to)
    talk.say_end(ExitCode.COMPLETE, said)
    if not quiet:
        print_result(str(to))
    raise typer.Exit(ExitCode.COMPLETE)


def _formats(formats: list[str] | None) -> list[str]:
    asked = list(dict.fromkeys(formats or _PAGES))
    unknown = [each for each in asked if each not in {*_PAGES, "csv"}]
    if unknown:
        raise typer.BadParameter(f"--format {unknown[0]!r} is none of html, md, json, csv")
    return asked


def _report(run: "PublishedRun", formats: list[str], to: Path) -> str:
    from pipeline.replay import Format, report_again

    written = report_again(run, [Format(each) for each in formats], to)
    return f"reported {run.run_id} again: {', '.join(path.name for path in written)}"


def _judge(run: "PublishedRun", policy: Path, to: Path) -> str:
    from pipeline.policy import read_policy_file
    from pipeline.replay import judge_anew

    summary = judge_anew(run, read_policy_file(policy), to, datetime.now(UTC))
    said = f"judged {run.run_id} anew as {summary.run.run_id}"
    return f"{said}: {summary.answer}: {summary.headline} Report: {to / 'report.html'}"
