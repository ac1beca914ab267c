"""The pages say every number of the summary, and nothing in it can act on whoever reads them."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import msgspec
import pytest
from markdown_it import MarkdownIt

from pipeline.changes import Cause, ChangeKind
from pipeline.excuses import WaiverState
from pipeline.judgements import RpoStatus
from pipeline.outcomes import FailureKind, Verdict
from pipeline.report.charts import spans
from pipeline.report.pages import (
    CAUSE_WORDS,
    CHANGE_WORDS,
    DATA,
    MOST_ROWS,
    OPEN_ROWS,
    RPO_WORDS,
    VERDICT_MEANINGS,
    WAIVER_WORDS,
    render_html,
    render_markdown,
)
from pipeline.report.summary import Counts, ProjectCounts, Summary
from pipeline.report.words import age, code, exact, plural, share
from tests.benchmarks.page import failing_summary
from tests.summaries import GROUP, HOSTILE, clean, cluster, finding, hostile, kind, rows, troubled


class Page(HTMLParser):
    """A parsed page: its text, and its elements with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "input"}:
            self.open.append(tag)
        if tag in {"td", "th", "li", "dt", "dd", "div", "br"}:
            self.words.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


# --- what is said -------------------------------------------------------------------------------


@pytest.mark.parametrize("summary", [clean(), troubled()], ids=["clean", "troubled"])
def test_both_pages_answer_first(summary: Summary) -> None:
    text, markdown = Page(render_html(summary)).text, render_markdown(summary)

    assert markdown.startswith(f"# {summary.answer}\n\n{summary.headline}\n")
    answer = f"Can these checkpoints be trusted? {summary.answer} {summary.headline}"
    assert text.partition(answer)[0].endswith("2026-11-23 Skip to what to do ")
    assert "What to do" in text.partition(answer)[2].partition("Audit nightly")[0]


def test_html_holds_every_number_of_the_summary() -> None:
    summary = troubled()
    text = Page(render_html(summary)).text

    run = summary.run
    wanted = [
        *(f"{n:,} {name}" for n, name in [(1_000, "pass"), (600, "fail"), (301, "absent")]),
        "100 inconclusive",
        "All triples 2,001 100 % 17",
        "FAIL a rule objects 600 30.0 % 5",
        f"Exit code 4 {summary.exit_meaning}",
        "12 min 34 s (754.5 s)",
        "2,345 requests, 67 of them refused",
        "2,253 lines: 2,001 triples, 12 duplicates, 240 bad lines",
        "2,013 = 2,013: holds",
        "226 clusters",  # what is waived is nothing to do
        "595 checkpoints",  # likewise what is excused
        "290 triples",
        "88 triples",
        "12 triples",
        "231 clusters 5 waived team-a 200, nobody named 20, others 11",
        "Owners: team-a",
        "Clusters 2,000",
        "5 h 1 min old",
        "within limit 6 h 0 min",
        "team-of-the-cluster",
        "1 d 2 h",
        "What changed since 2026-11-22",
        "became unrestorable 3 0 1",
        "still failing 40 37 0",
        "as it was 1,234 0 0",
        "3 triples and 1 finding on whole clusters",
        "healed5840e3b0e196714b215bb700 recovered FAIL → PASS",
        "still failing PASS → FAIL since 2026-11-20 –",
        "became unrestorable PASS → FAIL since 2026-11-20 rules or policy",
        "the older evidence was judged by today’s",
        "W-1 A reason. lapsed lapsed after 2026-11-22 nothing; it would excuse 4",
        "W-2 A reason. lapses soon until 2026-11-25 2",
        "owner the owner, approved by the approver",
        "the highest for 15 answers",
        "11 good 3 refused 2 failed",
        "The least that was left of a project’s quota: 25 %",
        "7 answers of another time",
        "03:00:00.0 10 3 2 25 %",
        "discovered.csv lists 40 checkpoints, 9 of them, of 2 clusters, beyond the input.",
        "forgotten5840e3b0e196714b215bb700 9 checkpoints newest",
        "1 more cluster left out here",
        "strict: rpo age 6 h 0 min; min restorable 2; 1 for some clusters; 2 waivers",
        "2026-11-22 22:00:00 UTC",
        "2,001 triples in 3 clusters",
        "0 of 30 restorable; wanted: at least 1",
        "2026-11-23 03:00:00 UTC",
        "2026-11-23 03:12:34 UTC",
        run.run_id,
        "schema 7, rules 9",
        run.base_url,
        run.credential_id,
        run.input_sha256,
        run.policy_sha256,
        "earlier-run",
        "line 5003",
        "reason 99",
        "team 99",
        *summary.statements,
        *summary.notices,
        *(kind.meaning[1:] for kind in summary.kinds),
        *(kind.advice[1:] for kind in summary.kinds),
    ]

    assert [words for words in wanted if words not in text] == []


def test_markdown_holds_the_numbers_that_matter() -> None:
    summary = troubled()
    text = render_markdown(summary)

    wanted = [
        "PASS         |      1,000 |  50.0 %",
        "FAIL         |        600 |  30.0 %",
        "ABSENT       |        301 |  15.0 %",
        "INCONCLUSIVE |        100 |   5.0 %",
        "all triples  |      2,001 |   100 %",
        "17 triples excused",
        "high: 600 × restorable-false",
        "231 × no-restorable-checkpoint (5 waived)",
        "What changed since 2026-11-22",
        "3 became unrestorable, 1 of them by other rules or policy",
        "since 2026-11-20",
        "W-1: lapsed, it ended with 2026-11-22; would excuse 4",
        "W-2: lapses soon, until 2026-11-25; excuses 2",
        "policy strict, sha256:",
        "within",
        "team-of-the-cluster",
        f"Exit code 4: {summary.exit_meaning}",
        "2,345 requests, 67 of them refused",
        "2,013 and 2,013",
        "226 clusters",
        "88 triples",
        "2026-11-22 22:00:00 UTC",
        "5 h 1 min",
        summary.run.run_id,
        summary.run.input_sha256,
        summary.run.policy_sha256,
        *summary.statements,
        *summary.notices,
    ]

    assert [words for words in wanted if words not in text] == []


def test_every_list_that_is_cut_says_how_much_is_left_out_and_where_it_is() -> None:
    summary = troubled()
    html, markdown = Page(render_html(summary)).text, render_markdown(summary)

    for left_out, noun, where in [
        (500, "row", "the tables outcomes/ and findings/"),
        (201, "row", "the table outcomes/"),
        (75, "row", "unresolved.csv and the table outcomes/"),
        (1_970, "cluster", "the table clusters/"),
        (31, "finding", "the table findings/"),
        (40, "line", "the input itself, evidence/input.csv.gz"),
    ]:
        assert f"{left_out:,} more {noun}s left out here: all are in {where}" in html
    for left_out, where in [
        (580, "all are in the tables outcomes/ and findings/"),
        (281, "all are in the table outcomes/"),
        (80, "all are in unresolved.csv and the table outcomes/"),
        (211, "all are in the table findings/"),
        (220, "the input itself is evidence/input.csv.gz"),
    ]:
        assert f"- {left_out:,} more left out here: {where}" in markdown
    assert "1,980 more clusters left out here: all are in the table clusters/" in markdown


def test_long_lists_open_with_their_first_rows() -> None:
    page = render_html(troubled())

    assert f"Show {MOST_ROWS - OPEN_ROWS} more rows" in page
    assert f"Show {200 - OPEN_ROWS} more findings" in page
    assert "<details open" not in page


def test_a_markdown_report_stays_short() -> None:
    assert len(render_markdown(troubled()).splitlines()) < 350


def test_a_clean_run_says_that_nothing_is_open_and_what_it_does_not_say() -> None:
    html, markdown = Page(render_html(clean())).text, render_markdown(clean())

    for text in (html, markdown):
        assert "Nothing is open." in text
        assert "No restore was tested" in text
        assert "more left out" not in text
    assert "Checkpoints that fail 0 None." in html
    assert "Absent 0 None." in html
    assert "Could not be determined 0 None." in html
    assert "bad-lines" not in render_html(clean())
    assert 'class="hero pass"' in render_html(clean())
    assert "None: the policy waives nothing." in html
    assert "None: the policy waives nothing." in markdown
    assert "Not compared: there is no earlier run" in html
    assert "discover was not asked" in html
    for heading in ("Absent", "Checkpoints that fail", "Could not", "Clusters", "Findings"):
        assert f"## {heading}" not in markdown


def test_a_finding_on_a_cluster_that_passes_does_not_call_it_failing() -> None:
    """Some rules over a cluster are, by the policy, findings only."""
    warned = clean(cluster_findings=(finding(rule_id="shards-gone", message="c is gone"),))

    for text in (Page(render_html(warned)).text, render_markdown(warned)):
        assert "Findings on whole clusters" in text
        assert "Clusters that fail" not in text


def test_a_run_without_any_answer_looks_like_neither_a_pass_nor_an_absence() -> None:
    nothing = cluster(
        verdict=Verdict.INCONCLUSIVE,
        triple_count=25,
        pass_count=0,
        inconclusive_count=25,
        newest_restorable_at=None,
        rpo_age_s=None,
        rpo_limit_s=None,
        oldest_restorable_at=None,
        largest_gap_s=None,
    )
    summary = clean(
        answer="Not all known",
        headline="0 of 25 checkpoints pass; 25 triples could not be determined.",
        exit_code=3,
        counts=Counts(25, 0, 0, 0, 25),
        clusters=(nothing,),
        projects=(ProjectCounts(25, 0, 0, 0, 25, GROUP, 1),),
        inconclusive=rows(Verdict.INCONCLUSIVE, 25),
        kinds=(kind(FailureKind.UNREACHABLE, Verdict.INCONCLUSIVE, 25),),
    )
    html, markdown = render_html(summary), render_markdown(summary)

    assert 'class="hero inconclusive"' in html
    assert 'rect class="pass"' not in html
    assert 'rect class="absent"' not in html
    assert "25 triples: No connection, every time. Check network" in markdown
    assert "INCONCLUSIVE |         25 |   100 %" in markdown


def test_controls_are_borne_on_and_never_satisfied() -> None:
    text = Page(render_html(troubled())).text

    assert "NIST SP 800-53 Rev. 5 CP-9 no-restorable-checkpoint on 231 clusters" in text
    for page in (text, render_markdown(troubled())):
        assert "othing here says that a control is satisfied" in page
        assert page.count("satisf") == 1
        assert "complian" not in page


# --- what cannot happen to a reader -------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_adds_nothing_to_the_html_page(text: str) -> None:
    """The same elements with the same attributes as for an innocent text; nothing hides."""
    page, innocent = (Page(render_html(hostile(some))) for some in (text, "innocent"))

    assert page.elements == innocent.elements
    assert all(c.isprintable() or c == "\n" for c in render_html(hostile(text)))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stands_in_code_spans_of_the_markdown(text: str) -> None:
    markdown = render_markdown(hostile(text))
    headings = re.compile(r"^##? [A-Z]", re.MULTILINE)
    outside = headings.sub("", re.sub(r"`[^`\n]*`", "", markdown))
    innocent = render_markdown(hostile("innocent"))

    assert not re.search(r"[<>@#*~`{]|\]\(|://|www\.|GH-\d", outside)
    assert all(c.isprintable() or c == "\n" for c in markdown)
    assert len(markdown.splitlines()) == len(innocent.splitlines())
    assert markdown.count("|") == innocent.count("|")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_adds_nothing_to_rendered_markdown(text: str) -> None:
    """A Markdown reader sees the same blocks, and inside them nothing but text and code."""
    read = MarkdownIt("commonmark").enable("table").parse
    page, innocent = (read(render_markdown(hostile(some))) for some in (text, "innocent"))

    assert [token.type for token in page] == [token.type for token in innocent]
    inside = {child.type for token in page for child in token.children or ()}
    assert inside <= {"text", "code_inline", "softbreak"}


def test_harmless_text_stays_plain_in_markdown() -> None:
    said = "cluster_not_found (404): There is no such cluster.; parameters [\"a\"], 'b' - c"
    markdown = render_markdown(clean(notices=(said,)))

    assert f"- Notice: {said}\n" in markdown
    assert code("a`b|c") == "`a'b¦c`"
    assert code("") == "` `"


def test_the_page_forbids_everything_but_its_own_style_and_script() -> None:
    page = render_html(troubled())
    style, script = (
        page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0] for tag in ("style", "script")
    )

    policy = Page(page).all("meta")[1]["content"]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    attributes = {name for _, attributes in Page(page).elements for name in attributes}
    assert not [name for name in attributes if name == "style" or name.startswith("on")]
    assert not [word for word in ("innerHTML", "eval", "fetch", "http") if word in script]
    assert "url(" not in style
    assert "@import" not in style


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_links_lead_into_the_page_or_to_the_data_beside_it() -> None:
    page = Page(render_html(hostile("innocent")))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = {attributes["href"] or "" for attributes in page.all("a")}

    assert {target for target in targets if not target.startswith("#")} == set(DATA)
    assert {target[1:] for target in targets if target.startswith("#")} <= ids
    assert page.all("script") == [{}]
    assert not page.all("form")
    assert not page.all("link")
    assert not page.all("img")


def test_tables_have_captions_and_scopes() -> None:
    page = Page(render_html(troubled()))

    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in {"row", "col"} for attributes in page.all("th"))
    assert [name for name, _ in page.elements].count("h1") == 1
    assert page.open == []


def test_a_summary_read_back_gives_the_same_pages() -> None:
    summary = troubled()
    again = msgspec.json.decode(msgspec.json.encode(summary), type=Summary)

    assert render_html(again) == render_html(summary)
    assert render_markdown(again) == render_markdown(summary)


def test_a_page_stays_small_whatever_failed() -> None:
    """Every list beyond its bound, and every word long and full of what must be escaped."""
    summary = failing_summary(30_000, 3_000)
    page = render_html(summary)

    assert summary.clusters_left_out == 2_000
    assert min(summary.failing.left_out, summary.absent.left_out, summary.inconclusive.left_out) > 0
    assert len(page.encode()) < 5_000_000
    assert len(render_markdown(summary).encode()) < 300_000


def test_nothing_that_can_be_counted_is_without_words() -> None:
    assert set(VERDICT_MEANINGS) == set(Verdict)
    assert set(RPO_WORDS) == set(RpoStatus)
    assert set(CHANGE_WORDS) == set(ChangeKind)
    assert set(CAUSE_WORDS) == set(Cause)
    assert set(WAIVER_WORDS) == set(WaiverState)


# --- words and figures --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.25, "0.2 s"),
        (45, "45 s"),
        (59.99, "1 min 0 s"),
        (60, "1 min 0 s"),
        (3599.9, "1 h 0 min"),
        (15_350, "4 h 15 min"),
        (86_399.7, "1 d 0 h"),
        (412_301.306, "4 d 18 h"),
        (864_000_000, "10,000 d 0 h"),
        (-90, "minus 1 min 30 s"),
    ],
)
def test_ages_are_told_in_their_two_largest_units(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_exact_durations_are_seconds() -> None:
    assert exact(412_301.306_9) == "412,301.307 s"
    assert exact(21_600.0) == "21,600 s"
    assert exact(0.0) == "0 s"


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (1, 3, "33.3 %"),
        (1, 1_000_000, "0.1 %"),
        (999_999, 1_000_000, "99.9 %"),
    ],
)
def test_only_all_is_100_per_cent_and_only_none_is_0(part: int, whole: int, words: str) -> None:
    assert share(part, whole) == words


def test_one_of_a_million_is_seen_in_a_bar() -> None:
    segments = spans(Counts(1_000_000, 999_999, 1, 0, 0))

    assert [name for name, _, _ in segments] == ["pass", "fail"]
    assert segments[1][2] > 1
    assert sum(width for _, _, width in segments) == pytest.approx(100, abs=0.05)
    assert spans(Counts()) == []


def test_plurals() -> None:
    assert [plural(n, "line") for n in (0, 1, 2_000)] == ["0 lines", "1 line", "2,000 lines"]


def test_a_population_that_is_not_whole_is_the_first_thing_to_do() -> None:
    short = msgspec.structs.replace(clean(), shortfalls=("The population shrank: 3 triples.",))
    for page in (render_html(short), render_markdown(short)):
        assert "Nothing is open" not in page
        assert "The population shrank: 3 triples" in page
        assert "Find out whether the list is whole" in page
