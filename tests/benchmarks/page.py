"""The report's page of a run in which everything fails: its size, and when it can be used.

Every cluster has failing checkpoints, long words, and text that must be escaped everywhere.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
from playwright.async_api import async_playwright

from pipeline.changes import Change, ChangeKind, Changes
from pipeline.checkpoints import Checkpoint, CheckpointRef
from pipeline.findings import judge
from pipeline.judgements import Judgement, RpoStatus
from pipeline.outcomes import Answer, Failure, FailureKind, Verdict, microseconds
from pipeline.policy import default_policy
from pipeline.report import Tally, render_html
from pipeline.report.summary import RunFacts, Summary
from pipeline.report.timeline import MOST_BINS, Bin, Timeline
from tests.benchmarks.figures import BenchmarkFailed, Section, markdown, spread

START = datetime(2026, 11, 23, 3, tzinfo=UTC)
CLUSTERS_OF_A_PROJECT = 25

_COLUMNS = ("triples", "clusters", "MB", "interactive, ms", "a sort seen after, ms")
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run")

#: Since navigation began, in milliseconds: when the script was done, and when a click on a header
#: had sorted the table and the next frame was drawn.
_MEASURE = """() => new Promise((resolve) => {
  const ready = performance.getEntriesByType("navigation")[0].domInteractive;
  const began = performance.now();
  document.querySelector("#cluster-table thead button").click();
  requestAnimationFrame(() => setTimeout(() => resolve([ready, performance.now() - began])));
})"""


def failing_summary(triples: int, clusters: int) -> Summary:
    """Sum up a run in which each of so many triples, in so many clusters, fails or is unknown."""
    tally, each = Tally(default_policy()), triples // clusters
    for judgement in _judgements(clusters, each):
        tally.add(judgement)
    tally.timeline = Timeline(started_at=START, bin_s=60, bins=(Bin(900, 80, 20, 0.1),) * MOST_BINS)
    tally.changes = _changes()
    return tally.summary(_facts(clusters * each), [])


def _judgements(clusters: int, each: int) -> Iterator[Judgement]:
    """Judge one cluster, and say the same of all others."""
    answers = [Answer(CheckpointRef("0" * 24, "c", f"{i:024x}"), *_rest(i)) for i in range(each)]
    model = judge(answers, default_policy(), START)
    for number in range(clusters):
        at = {
            "group_id": f"{number // CLUSTERS_OF_A_PROJECT:024x}",
            "cluster_name": f"{number:05}-{'x' * 58}",
        }
        yield Judgement(
            msgspec.structs.replace(model.cluster, **at),
            tuple(msgspec.structs.replace(outcome, **at) for outcome in model.outcomes),
            tuple(msgspec.structs.replace(finding, **at) for finding in model.findings),
            rpo_status=RpoStatus.EXCEEDED,
            owner=f"{number} {HOSTILE}",
        )


HOSTILE = "<\"&'>" * 60
_LABELS = msgspec.json.encode({f"{n} {HOSTILE}": HOSTILE for n in range(30)}).decode()


def _rest(index: int) -> tuple[int, str, Checkpoint | Failure, int, str, int]:
    found: tuple[Checkpoint | Failure, ...] = (
        Checkpoint(restorable=False),
        Failure(FailureKind.CHECKPOINT_ABSENT, 404, "CHECKPOINT_NOT_FOUND", HOSTILE * 3),
        Failure(FailureKind.UNREADABLE, 200, None, HOSTILE * 3),
    )
    return index + 2, _LABELS, found[index % len(found)], 5, "get", microseconds(START)


def _changes() -> Changes:
    change = Change(
        ChangeKind.STILL_FAILING, "0" * 24, "x" * 64, "f" * 24, Verdict.FAIL, Verdict.FAIL
    )
    return Changes(
        since_run_id="20261122T030000Z-nightly-7f3a9c",
        since_audit_date="2026-11-22",
        counts=dict.fromkeys(ChangeKind, 1_000),
        by_rules={},
        shown=(change,) * 50 * len(ChangeKind),
        left_out=9_000,
    )


def _facts(triples: int) -> RunFacts:
    return RunFacts(
        run_id="20261123T030000Z-nightly-7f3a9c",
        audit_name="nightly",
        audit_date=date(2026, 11, 23),
        parent_run_id=None,
        started_at=START,
        finished_at=START + timedelta(hours=1),
        tool_version="0",
        schema_version="0",
        rules_version="0",
        base_url="https://cloud.example.com",
        credential_id="mdb_sa_id_0123456789abcdef01234567",
        input_source="nightly.csv",
        input_sha256="ab" * 32,
        policy_sha256="cd" * 32,
        line_count=triples,
        triple_count=triples,
        duplicate_count=0,
        bad_line_count=0,
        request_count=triples,
        refusal_count=0,
    )


def open_page(triples: int, clusters: int, repeat: int) -> Section:
    """Write the page, open it so often, each time in a new browser, and click."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise BenchmarkFailed("a page wants a Chromium that is installed")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        file = Path(name) / "report.html"
        file.write_text(render_html(failing_summary(triples, clusters)), "utf-8")
        timed = [asyncio.run(_time(file, chromium)) for _ in range(repeat)]
        size = file.stat().st_size
    row = [
        f"{triples:,}",
        f"{clusters:,}",
        f"{size / 1e6:.2f}",
        spread([ready for ready, _ in timed]).text(0),
        spread([clicked for _, clicked in timed]).text(0),
    ]
    raw: list[dict[str, object]] = [
        {"bytes": size, "ready_ms": ready, "sort_ms": clicked} for ready, clicked in timed
    ]
    return Section("The page, when everything fails", markdown(_COLUMNS, [row]), raw)


async def _time(file: Path, chromium: str) -> tuple[float, float]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        page = await browser.new_page()
        await page.goto(file.as_uri())
        ready, clicked = await page.evaluate(_MEASURE)
        await browser.close()
        return ready, clicked
