"""The command line: argv and environment → one command → one exit code."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import __version__
from pipeline.errors import ConfigurationWrong, ExitCode, OutputsUnwritable
from pipeline.loop import run_loop
from pipeline.options import (
    AcceptDrop,
    Attempts,
    AttemptsAtList,
    BaseUrl,
    CaFile,
    Complete,
    Concurrency,
    Deadline,
    ExitZero,
    Fetch,
    Input,
    Keep,
    LogFormat,
    LogFormatOption,
    MaxInputAge,
    MaxShare,
    MetricsFile,
    MinTriples,
    NoProgress,
    OutputDir,
    Quiet,
    Timeout,
    is_audit_name,
    read_audit_date,
    read_audit_name,
    read_deadline,
    read_duration,
    read_input_age,
)
from pipeline.outcomes import FetchBy

if TYPE_CHECKING:
    from pipeline.atlas import Limits
    from pipeline.audit import Watcher
    from pipeline.auth import Credentials
    from pipeline.discover import Found, Wanted
    from pipeline.findings import Judgement
    from pipeline.plan import Read
    from pipeline.publication import Published
    from pipeline.published import PublishedRun
    from pipeline.reach import Reach
    from pipeline.runs import AuditFolder
    from pipeline.settings import Settings
    from pipeline.simulator import BucketRules, FaultPlan, Fleet
    from pipeline.simulator.server import Simulator

log = logging.getLogger("pipeline")

ATLAS = "https://cloud.mongodb.com"

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Audit MongoDB Atlas legacy backup checkpoints: one verdict each, with its evidence.",
)


class PlanFormat(StrEnum):
    """How a plan is printed."""

    TEXT = "text"
    JSON = "json"


class Refill(StrEnum):
    """How a bucket of the simulator fills up again."""

    STEPPED = "stepped"
    CONTINUOUS = "continuous"


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if version:
        sys.stdout.write(f"checkpoint-audit {__version__}\n")
        raise typer.Exit(0)


def start() -> int:
    """Run the command that argv names; gives its exit code. Other endings are raised."""
    try:
        code = app(standalone_mode=False)
    except _WRONG_USAGE as error:
        return _say_usage(error, sys.argv[1:])
    return code if isinstance(code, int) else ExitCode.COMPLETE


#: What typer raises for a wrong command line. It brings its own click, and of its errors exports
#: this one only, whose base has all of them below it.
_WRONG_USAGE: type[Any] = typer.BadParameter.__mro__[2]


def _say_usage(error: Any, argv: list[str]) -> int:
    """Say what is wrong with the command line in the way that, as far as can be seen, it wants."""
    from pipeline import talk

    if talk.wanted_by(argv) == ("text", False):
        error.show()
    else:
        talk.say_end(ExitCode.USAGE, error.format_message(), hint="see checkpoint-audit --help")
    return ExitCode.USAGE


# --- run ----------------------------------------------------------------------------------------


@app.command()
def run(
    input_: Annotated[
        str, typer.Argument(metavar="INPUT", help="A CSV file, .gz too; - is standard input.")
    ] = "",
    complete: Complete = "",
    output_dir: OutputDir = Path("outputs"),
    audit_name: Annotated[
        str, typer.Option(help="Lock, history and current run go by it. Default: INPUT's stem.")
    ] = "",
    audit_date: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", help="Label of the slice. Default: today, UTC.")
    ] = "",
    base_url: BaseUrl = ATLAS,
    ca_file: CaFile = None,
    concurrency: Concurrency = 64,
    attempts: Attempts = 5,
    timeout: Timeout = 30.0,
    max_share: MaxShare = 0.9,
    envelope: Annotated[
        bool,
        typer.Option("--envelope", help="Have Atlas wrap its single answers with their status."),
    ] = False,
    fetch: Fetch = FetchBy.GET,
    min_triples: MinTriples = None,
    max_input_age: MaxInputAge = "",
    accept_drop: AcceptDrop = False,
    deadline: Deadline = "",
    keep: Keep = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew even if this run was begun before.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="A bad line stops before the first request.")
    ] = False,
    exit_zero: ExitZero = False,
    metrics_file: MetricsFile = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Audit every triple of a CSV file.

    What was stopped on the way goes on when the same command is started again.

    Credentials come from the environment: MONGODB_ATLAS_CLIENT_ID and _CLIENT_SECRET of a service
    account, or MONGODB_ATLAS_PUBLIC_API_KEY and _PRIVATE_API_KEY, or MONGODB_ATLAS_ACCESS_TOKEN;
    each also as a file named by the variable with _FILE at its end. A healthcheck whose address is
    in CHECKPOINT_AUDIT_PING_URL is told of the start and of the end.
    """
    from pipeline import talk
    from pipeline.auth import read_credentials
    from pipeline.collect import Asking
    from pipeline.ending import watched
    from pipeline.fetch import Retry
    from pipeline.population import Expected
    from pipeline.runs import AuditFolder
    from pipeline.settings import Settings
    from pipeline.transport import proxy_for, read_base_url

    _set_up_talk(log_format, quiet=quiet)
    of_an_input = (audit_name, audit_date, max_input_age, min_triples, accept_drop)
    _check_subject(complete, input_, of_an_input)
    known = _known_folder(output_dir, complete, audit_name, input_)
    with watched(known, metrics_file, os.environ) as ending:
        parent = _parent(complete, output_dir)
        name = parent.manifest.audit_name if parent else read_audit_name(audit_name, input_)
        ending.folder = AuditFolder(output_dir, name)
        address = read_base_url(base_url)
        _check_address(parent, address)
        settings = Settings(
            source=input_,
            output_dir=output_dir,
            audit_name=name,
            audit_date=parent.manifest.audit_date if parent else read_audit_date(audit_date),
            parent=parent,
            credentials=_credentials(lambda: read_credentials(os.environ)),
            base_url=address,
            ca_file=ca_file,
            proxy=proxy_for(address, os.environ),
            timeout=timeout,
            asking=Asking(concurrency, max_share, Retry(attempts), envelope, fetch),
            expected=Expected(
                min_triples=min_triples,
                max_age=read_input_age(max_input_age, input_),
                accept_drop=accept_drop,
            ),
            deadline=read_deadline(deadline, datetime.now(UTC)),
            keep=keep,
            fresh=fresh,
            strict=strict,
        )
        log.info("asking %s as %s %s", address, settings.credentials.kind, settings.credentials.id)
        _say_deadline(settings.deadline)
        watcher = talk.watcher(no_progress=no_progress, quiet=quiet, log_format=log_format)
        published = run_loop(
            _audit(
                settings,
                watcher,
                reread=lambda: read_credentials(os.environ),
                locked=ending.begin,
            )
        )
        code = _final_code(published, exit_zero=exit_zero)
        ending.published(code, _words(published))
    _report(published, code, quiet=quiet, hint=_hint(published))
    raise typer.Exit(code)


def _check_subject(complete: str, input_: str, of_an_input: tuple[object, ...]) -> None:
    """Raise a usage error unless there is one thing to audit."""
    if not complete and not input_:
        raise typer.BadParameter("give an INPUT, or --complete RUN")
    if complete and (input_ or any(of_an_input)):
        raise typer.BadParameter(
            "--complete RUN takes the input, what is expected of it, audit name and date from RUN: "
            "give none of them"
        )


def _known_folder(output_dir: Path, complete: str, name: str, source: str) -> "AuditFolder | None":
    """Give the audit's folder as far as the command line tells it; of one to complete, if there."""
    from pipeline.runs import AuditFolder

    if complete:
        is_there = is_audit_name(complete) and (output_dir / complete).is_dir()
        return AuditFolder(output_dir, complete) if is_there else None
    try:
        return AuditFolder(output_dir, read_audit_name(name, source))
    except ConfigurationWrong:
        return None  # raised again once the run is watched


def _parent(named: str, output_dir: Path) -> "PublishedRun | None":
    """Find the run to complete; None where an input is audited."""
    from pipeline.published import find_run

    return find_run(output_dir, named) if named else None


def _check_address(parent: "PublishedRun | None", address: str) -> None:
    if parent is not None and parent.manifest.base_url != address:
        raise ConfigurationWrong(
            f"{parent.run_id} asked {parent.manifest.base_url}, and this would ask {address}",
            hint="give the same --base-url: answers of two places are not one run",
        )


def _say_deadline(deadline: datetime | None) -> None:
    """Say which moment is meant: a time of day that has just passed is tomorrow's."""
    if deadline is not None:
        log.info("the deadline is %s UTC", f"{deadline:%Y-%m-%d %H:%M}")


def _set_up_talk(log_format: LogFormat, *, quiet: bool) -> None:
    """Begin to talk; what secrets the environment holds is known before anything is said."""
    from pipeline import talk
    from pipeline.auth import secrets_in

    talk.set_up(log_format=log_format, quiet=quiet)
    for secret in secrets_in(os.environ):
        talk.hide(secret)


def _credentials(read: "Callable[[], Credentials]") -> "Credentials":
    from pipeline import talk

    credentials = read()
    talk.hide(credentials.secret)
    return credentials


async def _audit(
    settings: "Settings",
    watcher: "Watcher",
    *,
    reread: "Callable[[], Credentials] | None" = None,
    locked: "Callable[[], None]" = lambda: None,
    judged: "Callable[[Judgement], None]" = lambda _: None,
) -> "Published":
    from pipeline.audit import Audit
    from pipeline.stopping import Stopping
    from pipeline.tables import only_write

    only_write()

    def again() -> "Credentials":
        return _credentials(reread) if reread else settings.credentials

    stopping = Stopping()
    audit = Audit(
        settings,
        watcher=watcher,
        reread=again,
        locked=locked,
        begun=lambda: stopping.begin(audit.stop),
        judged=judged,
    )
    try:
        return await audit.run()
    finally:
        stopping.end()
        watcher.ended()


def _final_code(published: "Published", *, exit_zero: bool) -> int:
    code = published.summary.exit_code
    return _exit_zero(code) if exit_zero else code


def _words(published: "Published") -> str:
    """The answer of a published run, and before it what else whoever loads it has to know."""
    said = f"{published.summary.answer}: {published.summary.headline}"
    return said if published.is_current else f"{_NOT_CURRENT}. {said}"


_NOT_CURRENT = "published, but not current: a later night's run is, or another of this night"


def _hint(published: "Published") -> str:
    """What to do about triples that could not be determined; nothing where there are none."""
    summary = published.summary
    if not summary.counts.inconclusive_count:
        return ""
    named = summary.run.audit_name if published.is_current else summary.run.run_id
    return f"later, `run --complete {named}` asks for just the inconclusive triples again"


def _report(published: "Published", code: int, *, quiet: bool, hint: str = "") -> None:
    """Say how a published run ended, and what to do if there is something."""
    from pipeline import talk

    summary = published.summary
    counts, facts = summary.counts, summary.run
    log.info(
        "lines %d = triples %d + duplicates %d + bad lines %d",
        facts.line_count,
        facts.triple_count,
        facts.duplicate_count,
        facts.bad_line_count,
    )
    log.info(
        "triples %d = pass %d + fail %d + absent %d + inconclusive %d",
        counts.triple_count,
        counts.pass_count,
        counts.fail_count,
        counts.absent_count,
        counts.inconclusive_count,
    )
    for notice in summary.notices:
        log.warning("%s", notice)
    report = published.path / "report.html"
    digest = f"manifest sha256:{published.manifest_sha256}"
    said = f"{_words(published)} Report: {report} ({digest})"
    talk.say_end(code, said, hint=hint, is_notable=not published.is_current)
    if code or not quiet or not published.is_current:
        _print(str(published.path))


def _exit_zero(code: int) -> int:
    return {
        ExitCode.OPEN: ExitCode.COMPLETE,
        ExitCode.OPEN_AND_INCOMPLETE: ExitCode.INCOMPLETE,
    }.get(ExitCode(code), ExitCode(code))


def _print(line: str) -> None:
    """Print a result; that it cannot be written does not change how the run ended."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- discover ------------------------------------------------------------------------------------


@app.command()
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

    _set_up_talk(log_format, quiet=quiet)
    wanted = _wanted(project, cluster, newer_than, older_than)
    reach = _reach("discover", base_url, ca_file, timeout)
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


def _reach(command: str, base_url: str, ca_file: Path | None, timeout: float) -> "Reach":
    from pipeline.auth import read_credentials
    from pipeline.reach import Reach
    from pipeline.transport import proxy_for, read_base_url

    def read() -> "Credentials":
        return _credentials(lambda: read_credentials(os.environ))

    address = read_base_url(base_url)
    reach = Reach(
        command=command,
        base_url=address,
        credentials=read(),
        reread=read,
        timeout=timeout,
        ca_file=ca_file,
        proxy=proxy_for(address, os.environ),
    )
    log.info("asking %s as %s %s", address, reach.credentials.kind, reach.credentials.id)
    return reach


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


# --- plan ----------------------------------------------------------------------------------------


@app.command()
def plan(
    input_: Input,
    no_ask: Annotated[
        bool, typer.Option("--no-ask", help="Take the documented limits, ask Atlas nothing.")
    ] = False,
    format_: Annotated[
        PlanFormat, typer.Option("--format", help="text, or json with every project.")
    ] = PlanFormat.TEXT,
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

    _set_up_talk(log_format, quiet=quiet)
    found = read_input(input_)
    if no_ask or not has_credentials(os.environ):
        log.info("%s; the documented limits are taken", "not asked" if no_ask else "no credentials")
        told = {}
    else:
        told = run_loop(_ask_limits(_reach("plan", base_url, ca_file, timeout), found))
    made = make_plan(found, told, Pace(concurrency, max_share))
    with writing(None) as write:
        write((as_json(made) if format_ is PlanFormat.JSON else as_text(made)) + "\n")


async def _ask_limits(reach: "Reach", found: "Read") -> "dict[str, Limits]":
    from pipeline.plan import tell_limits
    from pipeline.reach import reached
    from pipeline.stopping import stoppable

    async with reached(reach) as transport:
        return await stoppable(tell_limits(transport, found), hint="start the same command again")


# --- demo and simulate --------------------------------------------------------------------------


@app.command()
def demo(
    input_: Annotated[
        Path | None, typer.Argument(metavar="[INPUT]", help="Triples. Default: the sample.")
    ] = None,
    output_dir: OutputDir = Path("outputs"),
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Run the audit against the embedded simulator, over real HTTP; no account is needed.

    The sample holds every verdict, so the demo ends with 4; a triple that does not end as the
    sample expects makes it end with 70, and nothing is published.
    """
    from pipeline import talk

    talk.set_up(log_format=log_format, quiet=quiet)
    watcher = talk.watcher(no_progress=no_progress, quiet=quiet, log_format=log_format)
    published = run_loop(_demo(input_, output_dir, watcher))
    log.info("exit %d means: %s", published.summary.exit_code, published.summary.exit_meaning)
    _report(published, published.summary.exit_code, quiet=quiet)
    raise typer.Exit(published.summary.exit_code)


async def _demo(source: Path | None, output_dir: Path, watcher: "Watcher") -> "Published":
    from pipeline.auth import Credentials, Kind
    from pipeline.demo import check
    from pipeline.settings import Settings
    from pipeline.simulator import Credentials as Simulated
    from pipeline.simulator import FaultPlan, Fleet, serve

    fleet, known = Fleet.demo(), Simulated()
    async with serve(fleet, faults=FaultPlan.demo(), credentials=known) as simulator:
        settings = Settings(
            source=str(source or _sample(output_dir, fleet)),
            output_dir=output_dir,
            audit_name="demo",
            credentials=Credentials(Kind.SERVICE_ACCOUNT, known.client_id, known.client_secret),
            base_url=simulator.base_url,
        )
        log.info("the simulator listens on %s", simulator.base_url)
        return await _audit(settings, watcher, judged=check)


def _sample(output_dir: Path, fleet: "Fleet") -> Path:
    from pipeline.runs import AuditFolder
    from pipeline.simulator import sample_csv

    AuditFolder(output_dir, "demo").prepare()
    path = output_dir / "demo" / "sample.csv"
    path.write_text(sample_csv(fleet), "utf-8")
    return path


@app.command()
def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same fleet and faults.")] = 7,
    projects: Annotated[int, typer.Option(min=1)] = 6,
    clusters: Annotated[int, typer.Option(min=1, help="A project.")] = 3,
    checkpoints: Annotated[int, typer.Option(min=1, help="A cluster.")] = 12,
    faults: Annotated[
        str, typer.Option(help="none, nightly, demo (with the demo's fleet), or a TOML file.")
    ] = "none",
    write_triples: Annotated[
        Path | None, typer.Option(help="Write the fleet's triples to this CSV file.")
    ] = None,
    latency: Annotated[float, typer.Option(min=0.0, help="Seconds an answer takes.")] = 0.0,
    capacity: Annotated[int, typer.Option(min=1, help="Of each project's bucket.")] = 1200,
    refill_rate: Annotated[int, typer.Option(min=1, help="Requests a refill.")] = 500,
    refill_seconds: Annotated[float, typer.Option(min=0.1, help="Between refills.")] = 60.0,
    refill: Annotated[Refill, typer.Option(help="In steps or all the time.")] = Refill.STEPPED,
) -> None:
    """Serve the simulator on loopback until a signal ends it."""
    from pipeline import talk
    from pipeline.simulator import BucketRules, Fleet

    talk.set_up()
    fleet = (
        Fleet.demo()
        if faults == "demo"
        else Fleet.seeded(seed, projects=projects, clusters=clusters, checkpoints=checkpoints)
    )
    plan = _fault_plan(faults, fleet, seed)
    if write_triples is not None:
        _write_triples(fleet, plan, write_triples)
    rules = BucketRules(
        capacity=capacity,
        refill_rate=refill_rate,
        refill_duration=refill_seconds,
        shape=refill.value,
    )
    run_loop(_simulate(fleet, plan, rules, port, latency))


def _write_triples(fleet: "Fleet", plan: "FaultPlan", path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            fleet.write_triples(file, plan)
    except OSError as error:
        raise OutputsUnwritable(
            f"{path} cannot be written: {error.strerror}", hint="check --write-triples"
        ) from error


def _fault_plan(name: str, fleet: "Fleet", seed: int) -> "FaultPlan":
    from pipeline.simulator import FaultPlan

    known: dict[str, Callable[[], FaultPlan]] = {
        "none": FaultPlan.none,
        "demo": FaultPlan.demo,
        "nightly": lambda: FaultPlan.nightly(fleet, seed),
    }
    try:
        return known[name]() if name in known else FaultPlan.parse(Path(name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationWrong(
            f"--faults {name}: {error}", hint="none, nightly, demo, or a TOML file"
        ) from error


async def _simulate(
    fleet: "Fleet", plan: "FaultPlan", rules: "BucketRules", port: int, latency: float
) -> None:
    from pipeline.simulator import Credentials, serve

    known = Credentials()
    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _resolve, stopped, number)
    async with _serving(
        serve(fleet, faults=plan, buckets=rules, credentials=known, port=port, latency=latency)
    ) as simulator:
        _print(f"listening on {simulator.base_url}")
        log.info("its credentials are not secret:")
        log.info("export MONGODB_ATLAS_CLIENT_ID=%s", known.client_id)
        log.info("export MONGODB_ATLAS_CLIENT_SECRET=%s", known.client_secret)
        log.info("export MONGODB_ATLAS_BASE_URL=%s", simulator.base_url)
        signal_number = await stopped
    log.info("stopped by signal %d", signal_number)
    raise typer.Exit(128 + signal_number)


@asynccontextmanager
async def _serving(server: "AbstractAsyncContextManager[Simulator]") -> "AsyncIterator[Simulator]":
    async with AsyncExitStack() as stack:
        try:
            simulator = await stack.enter_async_context(server)
        except OSError as error:
            raise ConfigurationWrong(
                f"the simulator cannot listen: {error.strerror}",
                hint="choose another --port, or leave it out for a free one",
            ) from error
        yield simulator


def _resolve(stopped: "asyncio.Future[int]", number: int) -> None:
    if not stopped.done():
        stopped.set_result(number)
