"""The HTML page in a real browser: silent, offline, on a phone, in the dark, on paper, by keys."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from playwright.async_api import Page, async_playwright

from pipeline.checkpoints import Checkpoint, CheckpointRef, Part
from pipeline.findings import judge
from pipeline.judgements import RpoStatus
from pipeline.outcomes import Answer, Failure, FailureKind, Verdict, microseconds
from pipeline.policy import default_policy
from pipeline.report import Tally, render_html
from pipeline.report.summary import BadLines, Rows, Summary
from pipeline.triples import BadLine, Fault
from tests.summaries import (
    HOSTILE,
    START,
    beyond,
    changes,
    clean,
    cluster,
    facts,
    hostile,
    timeline,
    troubled,
)

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PHONE = {"width": 390, "height": 844}
#: A4 between Chromium's margins, in its pixels.
PAPER = {"width": 718, "height": 1046}
TABLET = {"width": 800, "height": 1000}
DESK = {"width": 1280, "height": 900}

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
    counted = facts(
        line_count=lines + len(bad),
        triple_count=lines,
        duplicate_count=0,
        bad_line_count=len(bad),
        input_source="/a/rather/long/path/" * 5,
    )
    tally.changes, tally.beyond, tally.timeline = changes(), beyond(), timeline()
    waivers = troubled().waivers
    return render_html(msgspec.structs.replace(tally.summary(counted, bad), waivers=waivers))


LABELS = json.dumps({"owner": "team", "k" * 90: "v" * 250})


def found() -> Iterator[tuple[Any, ...]]:
    sound = Checkpoint(
        completed=START, timestamp=START, restorable=True, parts=(Part(token_discovered=True),)
    )
    yield sound, 1, "get", microseconds(START + timedelta(hours=7))
    yield Checkpoint(restorable=False), 1, "get", microseconds(START)
    for kind in (FailureKind.CHECKPOINT_ABSENT, FailureKind.THROTTLED, FailureKind.UNREACHABLE):
        yield Failure(kind, 404, "SOME_ERROR_CODE", "z" * 300), 5, "get", microseconds(START)


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
    """Open a file; gives the page, and whatever it said or asked for.

    A browser that does not go on is given up: what is evaluated in a page has no limit of its own.
    """
    heard: list[str] = []
    async with asyncio.timeout(300), async_playwright() as playwright:
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


@pytest.mark.parametrize("viewport", [PHONE, TABLET, DESK], ids=["phone", "tablet", "desk"])
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
        table = page.get_by_role("table", name="Worst first")
        row = table.get_by_role("row").nth(1)

        assert await row.evaluate("e => getComputedStyle(e).display") == "block"
        assert await row.get_by_role("cell").count() == 5
        assert await row.get_by_role("rowheader").count() == 1


async def test_paper_shows_what_the_screen_folds_away(report: Path) -> None:
    async with opened(report, viewport=PAPER) as (page, _):
        folded = page.locator("details tr").first
        assert not await folded.is_visible()

        await page.emulate_media(media="print")
        paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")

        assert await folded.is_visible()
        assert paper == "rgb(255, 255, 255)"
        assert await page.evaluate("document.documentElement.scrollWidth") <= PAPER["width"]
        assert await page.locator("#cluster-table thead").is_visible()
        assert await page.locator(".off").first.is_visible()
        assert not await page.locator(".controls").first.is_visible()
        assert not await page.locator("nav").is_visible()


async def test_the_keyboard_skips_to_what_to_do(report: Path) -> None:
    async with opened(report, viewport=DESK) as (page, _):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")

        assert await focused.inner_text() == "Skip to what to do"
        box = await focused.bounding_box()
        assert box is not None
        assert box["x"] >= 0


# --- for everybody ------------------------------------------------------------------------------


def of_every_section() -> Summary:
    """The page of trouble with fewer rows: each is like the others, and axe looks at every word."""
    rest = troubled()
    return troubled(
        clusters=rest.clusters[:3],
        failing=Rows(rest.failing.shown[:22], 3),
        absent=Rows(rest.absent.shown[:2], 3),
        inconclusive=Rows(rest.inconclusive.shown[:2], 3),
        cluster_findings=rest.cluster_findings[:22],
        bad_lines=BadLines(rest.bad_lines.shown[:2], 3),
    )


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("summary", [clean(), of_every_section()], ids=["clean", "troubled"])
async def test_axe_finds_nothing(
    tmp_path: Path, summary: Summary, viewport: dict[str, int]
) -> None:
    """The rules of axe-core, those of WCAG 2.2 AA and its best practices, in light and dark."""
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    async with opened(write(tmp_path, summary), viewport=viewport) as (page, _):
        await page.evaluate("document.querySelectorAll('details').forEach((d) => d.open = true)")
        await page.evaluate(axe)
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            found = await page.evaluate("axe.run({ resultTypes: ['violations'] })")

            assert len(found["passes"]) > 20
            assert [
                (violation["id"], node["html"])
                for violation in found["violations"]
                for node in violation["nodes"]
            ] == []


# --- the table of clusters ----------------------------------------------------------------------

AGES = {"old": 90_000.0, "older": 180_000.0, "none": None, "young": 60.0}
STATUSES = {"none": RpoStatus.NO_POINT, "young": RpoStatus.WITHIN}


def of_clusters(count: int) -> Summary:
    """A run of so many clusters, four of them with names of their own."""
    known = (
        cluster(
            cluster_name=name,
            verdict=Verdict.PASS if age else Verdict.FAIL,
            newest_restorable_at=START - timedelta(seconds=age) if age else None,
            rpo_age_s=age,
            rpo_status=STATUSES.get(name, RpoStatus.EXCEEDED),
            owner="team-b" if name == "old" else "team-a",
        )
        for name, age in AGES.items()
    )
    others = (cluster(cluster_name=f"prod-{i}", owner="team-c") for i in range(count - len(AGES)))
    return clean(clusters=(*known, *others))


def write(folder: Path, summary: Summary) -> Path:
    file = folder / "report.html"
    file.write_text(render_html(summary), encoding="utf-8")
    return file


async def names(page: Page) -> list[str]:
    """The clusters that can be seen, in their order."""
    seen: list[str] = await page.evaluate(
        """() => [...document.querySelectorAll("#cluster-table tbody tr")]
             .filter((row) => row.checkVisibility())
             .map((row) => row.querySelector(".name").textContent)"""
    )
    return seen


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
async def test_clusters_are_filtered_by_words_verdict_and_status(
    tmp_path: Path, viewport: dict[str, int]
) -> None:
    async with opened(write(tmp_path, of_clusters(1_000)), viewport=viewport) as (page, heard):
        text, status = page.get_by_role("searchbox"), page.get_by_role("status")
        assert len(await names(page)) == 25
        assert await status.inner_text() == "Showing 25 of 1,000."

        await text.fill(" OLD")
        assert await names(page) == ["old", "older"]
        assert await status.inner_text() == "2 of 1,000 match. Showing 2."

        await text.fill("team-a")
        await page.get_by_label("RPO").select_option("too old")
        assert await names(page) == ["older"]

        await text.fill("")
        await page.get_by_label("RPO").select_option("any")
        await page.get_by_role("combobox", name="Verdict").select_option("FAIL")
        assert await names(page) == ["none"]

        await text.fill("there is no such cluster")
        assert await names(page) == []
        assert await status.inner_text() == "0 of 1,000 match. Showing 0."
        assert len(heard) == 1


async def test_more_clusters_are_shown_when_somebody_asks(tmp_path: Path) -> None:
    async with opened(write(tmp_path, of_clusters(100)), viewport=DESK) as (page, _):
        await page.get_by_role("button", name="Show all 100").click()

        assert len(await names(page)) == 100
        assert await page.get_by_role("status").inner_text() == "Showing 100 of 100."
        assert not await page.get_by_role("button", name="Show all").is_visible()
        assert await page.evaluate("document.activeElement.tagName") == "BUTTON"


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
async def test_clusters_are_sorted_by_mouse(tmp_path: Path, viewport: dict[str, int]) -> None:
    """A column's better way first, then the other, then as the page had them."""
    async with opened(write(tmp_path, of_clusters(4)), viewport=viewport) as (page, heard):
        header = page.get_by_role("columnheader", name="Newest restorable point")
        orders = []
        for _ in range(3):
            await header.get_by_role("button").click()
            orders.append((await header.get_attribute("aria-sort"), await names(page)))

        assert orders == [
            ("ascending", ["none", "older", "old", "young"]),
            ("descending", ["young", "old", "older", "none"]),
            (None, ["old", "older", "none", "young"]),
        ]
        assert len(heard) == 1


async def test_clusters_are_sorted_by_keyboard(tmp_path: Path) -> None:
    async with opened(write(tmp_path, of_clusters(4)), viewport=DESK) as (page, _):
        await page.get_by_role("combobox", name="RPO").focus()
        await page.keyboard.press("Tab")
        assert (await page.locator(":focus").inner_text()).startswith("Cluster")

        await page.keyboard.press("Enter")
        assert await names(page) == ["none", "old", "older", "young"]
        await page.keyboard.press("Space")
        assert await names(page) == ["young", "older", "old", "none"]

        for _ in range(4):
            await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        assert await names(page) == ["older", "none", "young", "old"]
        sorted_by = page.locator("[aria-sort]")
        assert await sorted_by.count() == 1
        assert (await sorted_by.inner_text()).startswith("Owner")


async def test_numbers_in_names_are_sorted_as_numbers(tmp_path: Path) -> None:
    summary = clean(clusters=tuple(cluster(cluster_name=f"prod-{n}") for n in (10, 9, 1)))
    async with opened(write(tmp_path, summary), viewport=DESK) as (page, _):
        await page.get_by_role("button", name="Cluster").click()

        assert await names(page) == ["prod-1", "prod-9", "prod-10"]


async def test_without_script_the_page_says_the_same(tmp_path: Path) -> None:
    file = write(tmp_path, of_clusters(100))
    async with opened(file, viewport=DESK, java_script_enabled=False) as (page, heard):
        assert await page.locator("#cluster-table tbody tr:visible").count() == 100
        assert not await page.locator(".controls:visible").count()
        assert not await page.get_by_role("button").count()
        assert heard == [file.as_uri()]


# --- what cannot happen to a reader -------------------------------------------------------------


async def test_hostile_text_does_nothing_in_a_browser(tmp_path: Path) -> None:
    """No dialog, no request, no element that the same page of innocent text has not."""
    async with opened(write(tmp_path, hostile("innocent")), viewport=DESK) as (page, heard):
        page.on("dialog", lambda dialog: heard.append(f"dialog: {dialog.message}"))
        tags = "[...document.querySelectorAll('*')].map((e) => e.tagName)"
        innocent = await page.evaluate(tags)
        for text in HOSTILE:
            heard.clear()
            file = write(tmp_path, hostile(text))
            await page.goto(file.as_uri())
            await page.get_by_role("searchbox").fill(text.encode("utf-8", "replace").decode())

            assert await page.evaluate(tags) == innocent
            assert heard == [file.as_uri()]


async def test_what_slipped_through_could_still_not_act(tmp_path: Path) -> None:
    """The policy in the file stops a script, a handler, an image and a form of someone else's."""
    async with opened(write(tmp_path, clean()), viewport=DESK) as (page, _):
        answered: list[str] = []
        page.on("requestfinished", lambda request: answered.append(request.url))
        refused = await page.evaluate(
            """() => new Promise((resolve) => {
              const refused = [];
              addEventListener("securitypolicyviolation", (e) => {
                refused.push(e.effectiveDirective);
                if (refused.length === 4) resolve(refused.sort());
              });
              const script = document.createElement("script");
              script.textContent = "window.acted = true";
              document.body.append(script);
              const box = document.createElement("div");
              box.innerHTML = "<img src='https://example.com/x.png' style='color: red'>"
                + "<a id='acts' onclick='window.acted = true'>x</a>";
              document.body.append(box);
              document.getElementById("acts").click();
            })"""
        )

        assert refused == ["img-src", "script-src-attr", "script-src-elem", "style-src-attr"]
        assert await page.evaluate("window.acted") is None
        assert answered == []
