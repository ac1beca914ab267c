"""Options that several commands have, each with its meaning, its help and how its text is read."""

import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigurationWrong


class LogFormat(StrEnum):
    """How lines on stderr look."""

    TEXT = "text"
    JSON = "json"


OutputDir = Annotated[Path, typer.Option(help="Where runs are published.")]
BaseUrl = Annotated[str, typer.Option(envvar="MONGODB_ATLAS_BASE_URL", help="Address of Atlas.")]
CaFile = Annotated[
    Path | None, typer.Option(help="PEM certificates to trust instead of the system's.")
]
Concurrency = Annotated[int, typer.Option(min=1, max=1024, help="Requests in flight at most.")]
Attempts = Annotated[int, typer.Option(min=1, max=20, help="Requests a triple, refusals apart.")]
AttemptsAtList = Annotated[
    int, typer.Option(min=1, max=20, help="Requests a page of a list, refusals apart.")
]
Timeout = Annotated[float, typer.Option(min=0.1, max=3600.0, help="Seconds for a whole request.")]
MaxShare = Annotated[float, typer.Option(min=0.01, max=1.0, help="Of each project's rate limit.")]
LogFormatOption = Annotated[LogFormat, typer.Option(help="Lines on stderr: text or json.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing unless the exit code is not 0.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Lines instead of a live bar.")]
ExitZero = Annotated[
    bool, typer.Option("--exit-zero", help="End with 0 instead of 1 and 3 instead of 4.")
]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_duration(option: str, text: str) -> timedelta | None:
    """Read the value of `option`, as 90m, 36h, 7d or 2w; None where it is empty.

    Raises `ConfigurationWrong`.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text, re.ASCII)
    if found is None:
        raise ConfigurationWrong(
            f"{option} {text!r} is not a duration", hint="write it as 90m, 36h, 7d or 2w"
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
