"""Options that several commands have, each with its meaning, its help and how its text is read."""

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from pipeline.durations import duration_of
from pipeline.errors import ConfigurationWrong
from pipeline.objects import SCHEME, Objects
from pipeline.outcomes import FetchBy
from pipeline.published import Outputs

#: Where Atlas is, unless `--base-url` says otherwise.
ATLAS = "https://cloud.mongodb.com"


class FailOn(StrEnum):
    """What of the open makes `run` end with 1 or 4."""

    ANY = "any"
    NEW = "new"


class LogFormat(StrEnum):
    """How lines on stderr look."""

    TEXT = "text"
    JSON = "json"


class TextOrJson(StrEnum):
    """How a result on stdout looks."""

    TEXT = "text"
    JSON = "json"


Input = Annotated[
    str, typer.Argument(metavar="INPUT", help="A CSV file, .gz too; - is standard input.")
]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="An audit (its current run), a run's id, a folder, or an address in a store.",
    ),
]


def read_output_dir(text: str | Path) -> Outputs:
    """Read `--output-dir`; raises `ConfigurationWrong` for an address that names no bucket.

    What looks like an address of another kind would be a folder of that name, where nobody looks.
    """
    if isinstance(text, str) and text.startswith(SCHEME):
        return Objects(text)
    if _is_address(text):
        raise ConfigurationWrong(
            f"--output-dir {text} is an address of a kind that is not known",
            hint="write it as s3://BUCKET/PREFIX; a folder of that name as ./NAME",
        )
    return Path(text)


def read_folder(text: str | Path) -> Path:
    """Read an option that is a folder of this machine; raises `ConfigurationWrong` for an address.

    That would be a folder of that name here, and nothing where it points to.
    """
    if _is_address(text):
        raise ConfigurationWrong(
            f"{text} is an address, and a folder of this machine is wanted",
            hint="write a folder of that name as ./NAME",
        )
    return Path(text)


def _is_address(text: str | Path) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(text)) is not None


if TYPE_CHECKING:
    OutputDir = Outputs
else:  # typer knows no unions; what it makes of the text is what the parser gives
    OutputDir = Annotated[
        Path,
        typer.Option(
            parser=read_output_dir,
            metavar="DIR|s3://BUCKET/PREFIX",
            help="Where runs are published: a folder, or a store that speaks the S3 protocol.",
        ),
    ]
WorkDir = Annotated[
    Path | None,
    typer.Option(
        parser=read_folder,
        metavar="DIR",
        help="Where journal, lock and staging are, on a local disk. Default: in --output-dir; for "
        "one in a store outputs/.work.",
    ),
]
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
Complete = Annotated[
    str,
    typer.Option(
        metavar="RUN",
        help="Instead of INPUT: ask for RUN's inconclusive triples again, keep its other answers.",
    ),
]
Keep = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="NIGHTS",
        help="Then remove the runs of all but so many audit dates; never the current run, the last "
        "complete one, one that another completes, or one younger than a day. Default: keep all.",
    ),
]
Deadline = Annotated[
    str,
    typer.Option(
        metavar="WHEN",
        help="Stop asking in time to publish before it: 90m, or 06:30Z, 06:30+02:00, "
        "06:30+Europe/Berlin. What was not asked is inconclusive; --complete asks it later.",
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="TOML: thresholds, severities, waivers, owners."),
]
SignKey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Sign the manifest with this SSH key: a private one without passphrase, or a public "
        "one whose private half is in the agent.",
    ),
]
Discovered = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A CSV that `discover` wrote: what it lists beyond INPUT is counted and shown.",
    ),
]
MinTriples = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="A run of fewer triples is not complete (3)."),
]
MaxInputAge = Annotated[
    str,
    typer.Option(
        metavar="DURATION", help="A run of an INPUT changed longer ago is not complete (3)."
    ),
]
AcceptDrop = Annotated[
    bool,
    typer.Option(
        "--accept-drop",
        help="That there are so many fewer triples than in the last complete run is as it should "
        "be; else a drop of more than the policy allows is not complete (3).",
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
FailOnOption = Annotated[
    FailOn,
    typer.Option(
        "--fail-on",
        help="new: what was open in the previous run already does not end with 1 or 4.",
    ),
]


def read_duration(option: str, text: str) -> timedelta | None:
    """Read the value of `option`, as 90m, 36h, 7d or 2w; None where it is empty.

    Raises `ConfigurationWrong`, also for one that reaches back to before there was Atlas.
    """
    if not text:
        return None
    try:
        return duration_of(text)
    except ValueError as error:
        raise ConfigurationWrong(
            f"{option} {error}", hint="leave it out, or write it as 90m, 36h, 7d or 2w"
        ) from error


def read_input_age(text: str, source: str) -> timedelta | None:
    """Read `--max-input-age`, as `read_duration` does.

    Raises `ConfigurationWrong` also where standard input has no age.
    """
    age = read_duration("--max-input-age", text)
    if age is not None and source == "-":
        raise ConfigurationWrong(
            "standard input has no age", hint="leave --max-input-age out, or name a file"
        )
    return age


def read_deadline(text: str, now: datetime) -> datetime | None:
    """Read `--deadline`: a duration from `now` on, or the next HH:MM in a zone; None where empty.

    A zone is Z, an offset such as +02:00, or + and a name such as Europe/Berlin. Raises
    `ConfigurationWrong`.
    """
    found = re.fullmatch(r"(\d\d):(\d\d)(Z|[+-]\d\d:\d\d|\+[A-Za-z][\w/+-]*)", text, re.ASCII)
    if found is None and ":" in text:
        raise ConfigurationWrong(
            f"--deadline {text!r} is not a time of day with its zone", hint=_DEADLINES
        )
    if found is None:
        duration = read_duration("--deadline", text)
        return now + duration if duration is not None else None
    try:
        clock, zone = time(int(found[1]), int(found[2])), _zone(found[3])
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise ConfigurationWrong(
            f"--deadline {text!r} is not a time of day: {error}",
            hint=_DEADLINES,
        ) from error
    today = now.astimezone(zone).date()
    deadline = datetime.combine(today, clock, zone)
    if deadline <= now:
        deadline = datetime.combine(today + timedelta(days=1), clock, zone)
    return deadline.astimezone(UTC)


_DEADLINES = "write it as 06:30Z, 06:30+02:00 or 06:30+Europe/Berlin, or as a duration: 90m"


def _zone(text: str) -> tzinfo:
    if text == "Z":
        return UTC
    if text[1].isalpha():
        return ZoneInfo(text[1:])
    hours, minutes = int(text[1:3]), int(text[4:6])
    return timezone((-1 if text[0] == "-" else 1) * timedelta(hours=hours, minutes=minutes))


_AUDIT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def is_audit_name(text: str) -> bool:
    """Whether an audit can have this name."""
    return _AUDIT_NAME.fullmatch(text) is not None


def read_audit_name(name: str, source: str) -> str:
    """Check the name given, or make one of the input's stem.

    Raises `ConfigurationWrong`.
    """
    if name:
        if not is_audit_name(name):
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
    """Read `--audit-date`, as `read_date` does."""
    # A run dated later than the others stays current until they have caught up.
    return read_date("--audit-date", text)


def read_date(option: str, text: str) -> date | None:
    """Read the value of `option`; None where it is empty.

    Raises `ConfigurationWrong` for what is no date, or for none that a run can have.
    """
    if not text:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.isoformat() != text:
        raise ConfigurationWrong(f"{option} {text!r} is not a date", hint="write it as 2026-11-20")
    if not _FIRST_DATE <= found <= datetime.now(UTC).date() + timedelta(days=1):
        raise ConfigurationWrong(
            f"{option} {text} lies in the future, or before there was Atlas",
            hint="name the day that a run is for",
        )
    return found


_FIRST_DATE = date(2016, 1, 1)
