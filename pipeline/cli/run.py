"""The command `run`: an input, or a run to complete, is audited."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.access import credentials_by, set_up_talk
from pipeline.cli.audited import audited, say_published, words_of
from pipeline.errors import ConfigurationWrong, ExitCode
from pipeline.loop import run_loop
from pipeline.objects import SCHEME
from pipeline.options import (
    ATLAS,
    AcceptDrop,
    Attempts,
    BaseUrl,
    CaFile,
    Complete,
    Concurrency,
    Deadline,
    Discovered,
    ExitZero,
    FailOn,
    FailOnOption,
    Fetch,
    Keep,
    LogFormat,
    LogFormatOption,
    MaxInputAge,
    MaxShare,
    MetricsFile,
    MinTriples,
    NoProgress,
    OutputDir,
    PolicyFile,
    Quiet,
    SignKey,
    Timeout,
    WorkDir,
    is_audit_name,
    read_audit_date,
    read_audit_name,
    read_deadline,
    read_input_age,
)
from pipeline.outcomes import FetchBy, Verdict

if TYPE_CHECKING:
    from pipeline.policy import Policy
    from pipeline.publication import Published
    from pipeline.published import PublishedRun
    from pipeline.runs import AuditFolder
    from pipeline.signing import Signer

log = logging.getLogger("pipeline")


def run(
    input_: Annotated[
        str, typer.Argument(metavar="INPUT", help="A CSV file, .gz too; - is standard input.")
    ] = "",
    complete: Complete = "",
    output_dir: OutputDir = Path("outputs"),
    work_dir: WorkDir = None,
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
    policy: PolicyFile = None,
    discovered: Discovered = None,
    min_triples: MinTriples = None,
    max_input_age: MaxInputAge = "",
    accept_drop: AcceptDrop = False,
    deadline: Deadline = "",
    keep: Keep = None,
    sign_key: SignKey = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew even if this run was begun before.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="A bad line stops before the first request.")
    ] = False,
    fail_on: FailOnOption = FailOn.ANY,
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
    from pipeline import progress
    from pipeline.auth import read_credentials
    from pipeline.collect import Asking
    from pipeline.ending import watched
    from pipeline.fetch import Retry
    from pipeline.population import Expected
    from pipeline.settings import Settings
    from pipeline.stored import audit_folder
    from pipeline.transport import proxy_for, read_base_url

    set_up_talk(log_format, quiet=quiet)
    of_an_input = (audit_name, audit_date, max_input_age, min_triples, accept_drop)
    _check_subject(complete, input_, of_an_input)
    _check_standard_input(input_, discovered)
    known = _known_folder(output_dir, work_dir, complete, audit_name, input_)
    with watched(known, metrics_file, os.environ) as ending:
        parent = _parent(complete, output_dir)
        name = parent.manifest.audit_name if parent else read_audit_name(audit_name, input_)
        ending.folder = audit_folder(output_dir, name, work_dir)
        address = read_base_url(base_url)
        _check_address(parent, address)
        settings = Settings(
            source=input_,
            output_dir=output_dir,
            work_dir=work_dir,
            audit_name=name,
            audit_date=parent.manifest.audit_date if parent else read_audit_date(audit_date),
            parent=parent,
            credentials=credentials_by(lambda: read_credentials(os.environ)),
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
            policy=_policy(policy, parent),
            discovered=discovered,
            deadline=read_deadline(deadline, datetime.now(UTC)),
            keep=keep,
            signer=_signer(sign_key),
            fresh=fresh,
            strict=strict,
        )
        log.info("asking %s as %s %s", address, settings.credentials.kind, settings.credentials.id)
        _say_deadline(settings.deadline)
        watcher = progress.watcher(no_progress=no_progress, quiet=quiet, log_format=log_format)
        published = run_loop(
            audited(
                settings,
                watcher,
                reread=lambda: read_credentials(os.environ),
                locked=ending.begin,
            )
        )
        code = _final_code(published, fail_on, exit_zero=exit_zero)
        news = _news(published, fail_on)
        ending.published(code, words_of(published, news))
    say_published(published, code, quiet=quiet, hint=_hint(published), news=news)
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


def _check_standard_input(input_: str, discovered: str | None) -> None:
    """Raise a usage error where standard input would have to be read twice."""
    if input_ == discovered == "-":
        raise typer.BadParameter(
            "INPUT and --discovered cannot both be standard input: name a file for one of them"
        )


def _known_folder(
    output_dir: OutputDir, work_dir: Path | None, complete: str, name: str, source: str
) -> "AuditFolder | None":
    """Give the audit's folder as far as the command line tells it; of one to complete, if there."""
    from pipeline.stored import audit_folder

    if complete:
        folder = audit_folder(output_dir, complete, work_dir) if is_audit_name(complete) else None
        return folder if folder is not None and folder.path.is_dir() else None
    try:
        return audit_folder(output_dir, read_audit_name(name, source), work_dir)
    except ConfigurationWrong:
        return None  # raised again once the run is watched


def _parent(named: str, output_dir: OutputDir) -> "PublishedRun | None":
    """Find the run to complete; None where an input is audited."""
    from pipeline.published import find_run

    return find_run(output_dir, named) if named else None


def _policy(file: Path | None, parent: "PublishedRun | None") -> "Policy":
    """Read the policy asked for; else the one of the run to complete; else the default."""
    from pipeline.evidence import policy_of
    from pipeline.policy import default_policy, read_policy_file

    if file is not None:
        return read_policy_file(file)
    return policy_of(parent) if parent is not None else default_policy()


def _signer(key: Path | None) -> "Signer | None":
    """Make sure that the key signs, before anything is asked."""
    from pipeline.signing import Signer

    return Signer(key) if key is not None else None


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


def _final_code(published: "Published", fail_on: FailOn, *, exit_zero: bool) -> int:
    """The code that the process ends with, which the options may make milder than the run's own."""
    code, changes = published.summary.exit_code, published.summary.changes
    # Without a run to compare with, or where it cannot be read, everything counts as new.
    is_known = changes is not None and not changes.has_newly_open and not _untold_news(published)
    if changes is not None and is_known and fail_on is FailOn.NEW and code != _exit_zero(code):
        log.info("what is open was open in %s already", changes.since_run_id)
        return _exit_zero(code)
    return _exit_zero(code) if exit_zero else code


def _news(published: "Published", fail_on: FailOn) -> str:
    """Say how much of what is open was not, where the exit code goes by that."""
    summary = published.summary
    changes = summary.changes
    if fail_on is FailOn.ANY or summary.exit_code == _exit_zero(summary.exit_code):
        return ""
    if changes is None:
        return "There is nothing to compare with, so all that is open counts as new."
    counts = (
        (changes.newly_open, "checkpoint"),
        (changes.newly_open_findings, "finding on clusters"),
    )
    said = " and ".join(f"{count:,} {noun}" for count, noun in counts if count)
    found = f"Newly open since {changes.since_audit_date}: {said or 'nothing'}."
    return " ".join([found, *map(_counted_too, _untold_news(published))])


def _untold_news(published: "Published") -> list["Published"]:
    """Those of the runs that nobody was told of in which something was newly open."""
    return [
        each
        for each in published.untold
        if each.summary.exit_code != _exit_zero(each.summary.exit_code)
        and (each.summary.changes is None or each.summary.changes.has_newly_open)
    ]


def _counted_too(untold: "Published") -> str:
    day = untold.summary.run.audit_date
    return f"What was newly open on {day} counts too: that run was left by an earlier start."


def _hint(published: "Published") -> str:
    """What to do about triples that could not be determined; nothing where all are excused."""
    from pipeline.signing import signature_of

    summary = published.summary
    if summary.counts.inconclusive_count <= summary.excused.get(Verdict.INCONCLUSIVE, 0):
        return ""
    named = summary.run.audit_name if published.is_current else summary.run.run_id
    is_signed = signature_of(published.path / "manifest.json").is_file()
    store = published.address.rsplit("/", 3)[0] if published.address.startswith(SCHEME) else ""
    command = (
        f"run --complete {named}"
        + (f" --output-dir {store}" if store else "")
        + (" --sign-key FILE" if is_signed else "")
    )
    return f"later, `{command}` asks for just the inconclusive triples again"


def _exit_zero(code: int) -> int:
    return {
        ExitCode.OPEN: ExitCode.COMPLETE,
        ExitCode.OPEN_AND_INCOMPLETE: ExitCode.INCOMPLETE,
    }.get(ExitCode(code), ExitCode(code))
