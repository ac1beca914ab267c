"""One audit under way, with its signals, and what is said of a run that is published."""

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.cli.access import credentials_by

if TYPE_CHECKING:
    from pipeline.audit import Watcher
    from pipeline.auth import Credentials
    from pipeline.judgements import Judgement
    from pipeline.publication import Published
    from pipeline.report import Summary
    from pipeline.settings import Settings

log = logging.getLogger("pipeline")


async def audited(
    settings: "Settings",
    watcher: "Watcher",
    *,
    reread: "Callable[[], Credentials] | None" = None,
    locked: "Callable[[], None]" = lambda: None,
    judged: "Callable[[Judgement], None]" = lambda _: None,
) -> "Published":
    """Run one audit to its end; a signal stops it gently. Raises what `Audit.run` does."""
    from pipeline.audit import Audit
    from pipeline.stopping import Stopping
    from pipeline.tables import only_write

    only_write()

    def again() -> "Credentials":
        return credentials_by(reread) if reread else settings.credentials

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


def words_of(published: "Published", news: str = "") -> str:
    """The answer of a published run, and before it what else whoever loads it has to know.

    `news` are sentences about what is new in it.
    """
    is_current, summary = published.is_current, published.summary
    said = ["" if is_current else _NOT_CURRENT, f"{summary.answer}: {summary.headline}", news]
    return " ".join(filter(None, [*said, *map(_left, published.untold), *_lapsed(summary)]))


_NOT_CURRENT = "published, but not current: a later night's run is, or another of this night."


def _left(untold: "Published") -> str:
    summary = untold.summary
    return (
        f"{summary.run.run_id} was left by an earlier start, and is published now too: "
        f"exit {summary.exit_code}."
    )


def _lapsed(summary: "Summary") -> list[str]:
    """Name the waivers that have lapsed and whose weight is felt again; the first few of them."""
    from pipeline.excuses import WaiverState

    missed = [use for use in summary.waivers if use.state is WaiverState.LAPSED and use.count]
    said = [f"Waiver {use.id} lapsed on {use.expires_on}." for use in missed[:_NAMED_WAIVERS]]
    return [*said, *(["More waivers have lapsed."] if len(missed) > _NAMED_WAIVERS else [])]


_NAMED_WAIVERS = 3


def say_published(
    published: "Published", code: int, *, quiet: bool, hint: str = "", news: str = ""
) -> None:
    """Say how a published run ended, what is new in it, and what to do if there is something."""
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
    report = f"{published.address}/report.html"
    digest = f"manifest sha256:{published.manifest_sha256}"
    said = f"{words_of(published, news)} Report: {report} ({digest})"
    is_notable = not published.is_current or bool(published.untold)
    talk.say_end(code, said, hint=hint, is_notable=is_notable)
    if code or not quiet or is_notable:
        print_result(published.address)


def print_result(line: str) -> None:
    """Print a result; that it cannot be written does not change how the run ended."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
