"""The command `discover`: from a credential to the CSV of what it sees."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.access import reach_for, set_up_talk
from pipeline.errors import ExitCode
from pipeline.loop import run_loop
from pipeline.options import (
    ATLAS,
    AttemptsAtList,
    BaseUrl,
    CaFile,
    Concurrency,
    LogFormat,
    LogFormatOption,
    MaxShare,
    Quiet,
    Timeout,
    read_duration,
)

if TYPE_CHECKING:
    from pipeline.discover import Found, Wanted
    from pipeline.reach import Reach

log = logging.getLogger("pipeline")


def discover(
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The CSV. Default: standard output.")
    ] = None,
    project: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Id or name; may be repeated.")
    ] = None,
    cluster: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Name; may be repeated.")
    ] = None,
    newer_than: Annotated[
        str,
        typer.Option(metavar="DURATION", help="Only those made since: 90m, 36h, 7d, by their ids."),
    ] = "",
    older_than: Annotated[
        str, typer.Option(metavar="DURATION", help="Only those made before that.")
    ] = "",
    base_url: BaseUrl = ATLAS,
    ca_file: CaFile = None,
    concurrency: Concurrency = 64,
    attempts: AttemptsAtList = 5,
    timeout: Timeout = 30.0,
    max_share: MaxShare = 0.9,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Write the CSV that `run` audits: every checkpoint that the credential sees.

    Best into a file first: discover --to FILE && run FILE. This goes on only after a 0; where a
    list with a few places missing (3) is worth an audit too, start `run` by itself. Or, with rows
    as they are found, under `set -o pipefail`: discover | run - --audit-name NAME. Credentials as
    for `run`.

    A project or cluster that cannot be listed ends this with 3. The CSV then has all the rest, and
    a last line for each such place that names it and is no triple, so that an audit of it ends as
    not complete even where nobody sees this exit code. A CSV that a signal or an error cuts short
    on standard output ends in such a line too; a FILE is then left as it was. What ends at once, by
    SIGKILL or a second signal, leaves no such line: what reads the pipe takes the rows so far for
    all there are.
    """
    from pipeline.discover import writing

    set_up_talk(log_format, quiet=quiet)
    wanted = _wanted(project, cluster, newer_than, older_than)
    reach = reach_for("discover", base_url, ca_file, timeout)
    with writing(None if to == Path("-") else to) as write:
        found = run_loop(_discover(reach, concurrency, max_share, attempts, wanted, write))
    raise typer.Exit(_report_found(found))


def _wanted(
    projects: list[str] | None, clusters: list[str] | None, newer_than: str, older_than: str
) -> "Wanted":
    from pipeline.discover import Wanted

    now = datetime.now(UTC)
    young = read_duration("--newer-than", newer_than)
    old = read_duration("--older-than", older_than)
    return Wanted(
        projects=tuple(projects or ()),
        clusters=tuple(clusters or ()),
        since=now - young if young is not None else None,
        until=now - old if old is not None else None,
    )


async def _discover(
    reach: "Reach",
    concurrency: int,
    max_share: float,
    attempts: int,
    wanted: "Wanted",
    write: Callable[[str], None],
) -> "Found":
    from pipeline.discover import Discovery
    from pipeline.fetch import Fetcher, Retry, unrecorded
    from pipeline.limits import Governor
    from pipeline.reach import reached
    from pipeline.stopping import stoppable

    async with reached(reach) as transport:
        governor = Governor(concurrency=concurrency, share=max_share)
        fetcher = Fetcher(transport, governor, unrecorded, retry=Retry(attempts))
        walk = Discovery(fetcher, wanted, write).run()
        return await stoppable(walk, hint="start the same command again")


def _report_found(found: "Found") -> int:
    """Say what a walk came upon, or why there is nothing; gives the exit code."""
    from pipeline import talk

    log.info("%s", found)
    if not found.unlisted:
        said = f"{found.written:,} checkpoints written"
        talk.say_end(0, said if found.written else f"no checkpoint written: {found.reason}")
        return ExitCode.COMPLETE
    first = "; ".join(map(str, found.unlisted[:_SHOWN_PLACES]))
    more = ", …" if len(found.unlisted) > _SHOWN_PLACES else ""
    talk.say_end(
        ExitCode.INCOMPLETE,
        f"{found.written:,} checkpoints written, but {len(found.unlisted):,} places could not be "
        f"listed: {first}{more}; each has a line at the CSV's end that is no triple",
        hint="start again later, or ask for the role Project Read Only in these projects",
    )
    return ExitCode.INCOMPLETE


_SHOWN_PLACES = 5
