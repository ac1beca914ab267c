"""Options that several commands have, each with its meaning, its help and how its text is read."""

import re
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigurationWrong
from pipeline.outcomes import FetchBy


class LogFormat(StrEnum):
    """How lines on stderr look."""

    TEXT = "text"
    JSON = "json"


Input = Annotated[
    str, typer.Argument(metavar="INPUT", help="A CSV file, .gz too; - is standard input.")
]
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
Fetch = Annotated[
    FetchBy,
    typer.Option(
        "--fetch",
        help="get: each triple by itself. list: those of one cluster from its list, up to 500 a "
        "request. auto: list where a project's rate limit would be waited for.",
    ),
]
LogFormatOption = Annotated[LogFormat, typer.Option(help="Lines on stderr: text or json.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing unless the exit code is not 0.")]
MetricsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write figures of each end here, for Prometheus."),
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Lines instead of a live bar.")]
ExitZero = Annotated[
    bool, typer.Option("--exit-zero", help="End with 0 instead of 1 and 3 instead of 4.")
]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_duration(option: str, text: str) -> timedelta | None:
    """Read the value of `option`, as 90m, 36h, 7d or 2w; None where it is empty.

    Raises `ConfigurationWrong`, also for one that reaches back to before there was Atlas.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text, re.ASCII)
    if found is None:
        raise ConfigurationWrong(
            f"{option} {text!r} is not a duration", hint="write it as 90m, 36h, 7d or 2w"
        )
    duration = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if duration > _LONGEST_DURATION:
        raise ConfigurationWrong(
            f"{option} {text!r} is longer than there has been Atlas",
            hint="leave it out, or write it as 90m, 36h, 7d or 2w",
        )
    return duration


#: Far more than Atlas's age, and far less than what calendars can take away from today.
_LONGEST_DURATION = timedelta(days=36_500)


_AUDIT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def read_audit_name(name: str, source: str) -> str:
    """Check the name given, or make one of the input's stem.

    Raises `ConfigurationWrong`.
    """
    if name:
        if not _AUDIT_NAME.fullmatch(name):
            raise ConfigurationWrong(
                f"--audit-name {name!r} is not a name",
                hint="use up to 40 of a-z, 0-9 and -, a letter or digit first",
            )
        return name
    if source == "-":
        raise ConfigurationWrong(
            "standard input has no name", hint="give the audit one with --audit-name"
        )
    stem = Path(source).name.partition(".")[0]
    made = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].rstrip("-")
    if not made:
        raise ConfigurationWrong(
            f"no audit name can be made of {source!r}", hint="give one with --audit-name"
        )
    return made


def read_audit_date(text: str) -> date | None:
    """Read `--audit-date`; None where it is empty.

    Raises `ConfigurationWrong` for what is no date, or for none that a run can have.
    """
    if not text:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.isoformat() != text:
        raise ConfigurationWrong(
            f"--audit-date {text!r} is not a date", hint="write it as 2026-11-20"
        )
    # A run dated later than the others stays current until they have caught up.
    if not _FIRST_DATE <= found <= datetime.now(UTC).date() + timedelta(days=1):
        raise ConfigurationWrong(
            f"--audit-date {text} lies in the future, or before there was Atlas",
            hint="name the day that the run is for",
        )
    return found


_FIRST_DATE = date(2016, 1, 1)
