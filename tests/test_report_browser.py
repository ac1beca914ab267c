"""The HTML page in a real browser: silent, offline, readable on a phone, in the dark, on paper."""

import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Page, async_playwright

from pipeline.checkpoints import Checkpoint, CheckpointRef, Part
from pipeline.findings import judge
from pipeline.outcomes import Answer, Failure, FailureKind, microseconds
from pipeline.policy import default_policy
from pipeline.report import Tally, render_html
from pipeline.report.summary import RunFacts
from pipeline.triples import BadLine, Fault

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
START = datetime(2026, 11, 23, 3, 0, 0, tzinfo=UTC)

#: Every element with text of its own → [text, contrast with what lies behind it].
CONTRASTS = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = channels(color).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (channels(color)[3] !== 0) return color;
    }
    throw new Error("nothing lies behind " + element.outerHTML);
  };
  const speaks = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll("*")].filter(speaks).map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
    return [e.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
}"""


def page_of_everything() -> str:
    """A page with every section, long lists, and words too long for any screen."""
    tally, lines = Tally(default_policy()), 0
    tally.notice("Something that concerns the whole run.")
    for name in (*(f"cluster-{index}" for index in range(30)), "x" * 64):
        answers = [
            Answer(CheckpointRef("5840e3b0e196714b215bb700", name, f"{i:024x}"), i, LABELS, *rest)
            for i, rest in enumerate(found(), start=lines)
        ]
        lines += len(answers)
        tally.add(judge(answers, default_policy(), START))
    bad = [BadLine(i, (Fault("checkpoint_id", "y" * 80, "24 digits"),)) for i in range(300)]
    return render_html(tally.summary(facts(lines, len(bad)), bad))


LABELS = json.dumps({"owner": "team", "k" * 90: "v" * 250})


def found() -> Iterator[tuple[Any, ...]]:
    sound = Checkpoint(
        completed=START, timestamp=START, restorable=True, parts=(Part(token_discovered=True),)
    )
    yield sound, 1, "get", microseconds(START + timedelta(hours=7))
    yield Checkpoint(restorable=False), 1, "get", microseconds(START)
    for kind in (FailureKind.CHECKPOINT_ABSENT, FailureKind.THROTTLED, FailureKind.UNREACHABLE):
        yield Failure(kind, 404, "SOME_ERROR_CODE", "z" * 300), 5, "get", microseconds(START)


def facts(triples: int, bad_lines: int) -> RunFacts:
    return RunFacts(
        run_id="20261123T030000Z-nightly-7f3a9c",
        audit_name="nightly",
        audit_date=date(2026, 11, 23),
        parent_run_id=None,
        started_at=START,
        finished_at=START + timedelta(minutes=12),
        tool_version="0.1.0",
        schema_version="1",
        rules_version="1",
        base_url="https://cloud.example.com",
        credential_id="mdb_sa_id_0123456789abcdef01234567",
        input_source="/a/rather/long/path/" * 5,
        input_sha256="ab" * 32,
        policy_sha256="cd" * 32,
        line_count=triples + bad_lines,
        triple_count=triples,
        duplicate_count=0,
        bad_line_count=bad_lines,
        request_count=triples,
        refusal_count=0,
    )


def chromium() -> str:
    """An installed browser; its absence may pass on a desk, never in CI."""
    known = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, known)), None)
    if path is None and os.environ.get("CI") == "true":
        pytest.fail("CI must have a Chromium for this test")
    if path is None:
        pytest.skip("no Chromium is installed here")
    return path


@asynccontextmanager
async def opened(file: Path, **context: Any) -> AsyncIterator[tuple[Page, list[str]]]:
    """Open a file; gives the page, and whatever it said or asked for."""
    heard: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        page = await browser.new_page(**context)
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda request: heard.append(request.url))
        await page.goto(file.as_uri())
        try:
            yield page, heard
        finally:
            await browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page_of_everything(), encoding="utf-8")
    return file


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
async def test_it_is_silent_asks_for_nothing_and_fits(
    report: Path, viewport: dict[str, int]
) -> None:
    async with opened(report, viewport=viewport) as (page, heard):
        await page.evaluate("document.querySelectorAll('details').forEach((d) => d.open = true)")
        width = await page.evaluate("document.documentElement.scrollWidth")

        assert heard == [report.as_uri()]
        assert width <= viewport["width"]
        assert await page.locator(".answer").inner_text() == "No"
        assert await page.locator(".answer").evaluate("e => getComputedStyle(e).display") == "block"


@pytest.mark.parametrize(
    ("scheme", "media"), [("light", "screen"), ("dark", "screen"), ("dark", "print")]
)
async def test_every_word_stands_out_from_what_lies_behind_it(
    report: Path, scheme: str, media: Literal["print", "screen"]
) -> None:
    """WCAG AA: 4.5 to 1. Whoever reads in the dark prints on white paper all the same."""
    async with opened(report, viewport=DESK, color_scheme=scheme) as (page, _):
        await page.emulate_media(media=media)
        contrasts = await page.evaluate(CONTRASTS)

    assert len(contrasts) > 1000
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []


async def test_a_row_stays_a_row_when_a_phone_shows_it_as_a_card(report: Path) -> None:
    async with opened(report, viewport=PHONE) as (page, _):
        table = page.get_by_role("table", name="All clusters")
        row = table.first.get_by_role("row").nth(1)

        assert await row.evaluate("e => getComputedStyle(e).display") == "block"
        assert await row.get_by_role("cell").count() == 3
        assert await row.get_by_role("rowheader").count() == 1


async def test_paper_shows_what_the_screen_folds_away(report: Path) -> None:
    async with opened(report, viewport=DESK) as (page, _):
        folded = page.locator("details tr").first
        assert not await folded.is_visible()

        await page.emulate_media(media="print")
        paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")

        assert await folded.is_visible()
        assert paper == "rgb(255, 255, 255)"


async def test_the_keyboard_skips_to_what_to_do(report: Path) -> None:
    async with opened(report, viewport=DESK) as (page, _):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")

        assert await focused.inner_text() == "Skip to what to do"
        box = await focused.bounding_box()
        assert box is not None
        assert box["x"] >= 0
