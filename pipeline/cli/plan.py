"""The command `plan`: what a run will cost."""

import logging
import os
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.access import reach_for, set_up_talk
from pipeline.loop import run_loop
from pipeline.options import (
    ATLAS,
    BaseUrl,
    CaFile,
    Concurrency,
    Input,
    LogFormat,
    LogFormatOption,
    MaxShare,
    Quiet,
    TextOrJson,
    Timeout,
)

if TYPE_CHECKING:
    from pipeline.atlas import Limits
    from pipeline.plan import Read
    from pipeline.reach import Reach

log = logging.getLogger("pipeline")


def plan(
    input_: Input,
    no_ask: Annotated[
        bool, typer.Option("--no-ask", help="Take the documented limits, ask Atlas nothing.")
    ] = False,
    format_: Annotated[
        TextOrJson, typer.Option("--format", help="text, or json with every project.")
    ] = TextOrJson.TEXT,
    base_url: BaseUrl = ATLAS,
    ca_file: CaFile = None,
    concurrency: Concurrency = 64,
    timeout: Timeout = 30.0,
    max_share: MaxShare = 0.9,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Say what a run of INPUT costs: requests, expected duration, and what bounds it.

    No checkpoint is asked for. Where credentials are set, Atlas is asked for the rate limits of
    projects with more than 100 triples; else the documented limits are taken. The estimate counts
    on full buckets that nobody else spends from.
    """
    from pipeline.auth import has_credentials
    from pipeline.discover import writing
    from pipeline.plan import Pace, as_json, as_text, make_plan, read_input

    set_up_talk(log_format, quiet=quiet)
    found = read_input(input_)
    if no_ask or not has_credentials(os.environ):
        log.info("%s; the documented limits are taken", "not asked" if no_ask else "no credentials")
        told = {}
    else:
        told = run_loop(_ask_limits(reach_for("plan", base_url, ca_file, timeout), found))
    made = make_plan(found, told, Pace(concurrency, max_share))
    with writing(None) as write:
        write((as_json(made) if format_ is TextOrJson.JSON else as_text(made)) + "\n")


async def _ask_limits(reach: "Reach", found: "Read") -> "dict[str, Limits]":
    from pipeline.plan import tell_limits
    from pipeline.reach import reached
    from pipeline.stopping import stoppable

    async with reached(reach) as transport:
        return await stoppable(tell_limits(transport, found), hint="start the same command again")
