"""The pages say every number of the summary, and nothing in it can act on whoever reads them."""

import base64
import hashlib
import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from markdown_it import MarkdownIt

from pipeline.errors import MEANINGS, ExitCode
from pipeline.judgements import Cluster, Finding
from pipeline.outcomes import FailureKind, Verdict
from pipeline.report.advice import ADVICE
from pipeline.report.pages import (
    DATA,
    OPEN_ROWS,
    age,
    code,
    exact,
    plural,
    render_html,
    render_markdown,
    share,
    spans,
)
from pipeline.report.summary import (
    BadLines,
    Counts,
    KindCount,
    Law,
    ProjectCounts,
    Row,
    Rows,
    RuleCount,
    RunFacts,
    Summary,
)
from pipeline.report.tally import STATEMENTS

GROUP = "5840e3b0e196714b215bb700"
START = datetime(2026, 11, 23, 3, 0, 0, tzinfo=UTC)
NONE = Rows((), 0)

#: Everything that a label, an error detail or a name may try.
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "javascript:alert(1)",
    "[click](https://example.com)",
    "![x](https://example.com/x.png)",
    "https://example.com/a",
    "www.example.com",
    "@everyone",
    "someone@example.com",
    "#1",
    "GH-1",
    "a | b | c",
    "`rm -rf`",
    "**bold** _it_ ~~gone~~ <b>b</b>",
    "1. first",
    "# heading",
    "{{ summary }}{% raw %}",
    "line\nbreak\r\n\n# heading",
    "</td></tr></table>",
    "</style><script>alert(1)</script>",
    "\u202egnp.exe",
    "a\u200bb\ufeff\x00\x1b[31m",
    "\ud800",
)


def facts(**changes: Any) -> RunFacts:
    known: dict[str, Any] = {
        "run_id": "20261123T030000Z-nightly-7f3a9c",
        "audit_name": "nightly",
        "audit_date": date(2026, 11, 23),
        "parent_run_id": None,
        "started_at": START,
        "finished_at": START + timedelta(seconds=754.5),
        "tool_version": "0.1.0",
        "schema_version": "7",
        "rules_version": "9",
        "base_url": "https://cloud.example.com",
        "credential_id": "mdb_sa_id_0123456789abcdef01234567",
        "input_source": "inputs/nightly.csv",
        "input_sha256": "ab" * 32,
        "policy_sha256": "cd" * 32,
        "line_count": 2_013,
        "triple_count": 2_001,
        "duplicate_count": 12,
        "bad_line_count": 0,
        "request_count": 2_345,
        "refusal_count": 67,
    }
    return RunFacts(**(known | changes))


def clean(**changes: Any) -> Summary:
    """A run in which everything passes."""
    counts = Counts(2_001, 2_001, 0, 0, 0)
    known: dict[str, Any] = {
        "summary_version": 1,
        "run": facts(),
        "answer": "Yes",
        "headline": "2,001 of 2,001 checkpoints pass: and no rule objects.",
        "exit_code": 0,
        "exit_meaning": MEANINGS[ExitCode.COMPLETE],
        "complete": True,
        "population": "population: 2,001 triples from nightly.csv, supplied by the operator",
        "counts": counts,
        "excused_count": 0,
        "duration_s": 754.5,
        "laws": (Law("lines = triples + duplicates + bad lines", 2_013, 2_013),),
        "shortfalls": (),
        "notices": (),
        "projects": (ProjectCounts(2_001, 2_001, 0, 0, 0, GROUP, 3),),
        "clusters": (cluster(),),
        "clusters_left_out": 0,
        "failing": NONE,
        "absent": NONE,
        "inconclusive": NONE,
        "rules": (),
        "kinds": (),
        "cluster_findings": (),
        "cluster_findings_left_out": 0,
        "bad_lines": BadLines((), 0),
        "statements": STATEMENTS,
    }
    return Summary(**(known | changes))


def cluster(**changes: Any) -> Cluster:
    known: dict[str, Any] = {
        "group_id": GROUP,
        "cluster_name": "orders-prod",
        "verdict": Verdict.PASS,
        "triple_count": 31,
        "pass_count": 31,
        "fail_count": 0,
        "absent_count": 0,
        "inconclusive_count": 0,
        "newest_restorable_at": START - timedelta(hours=5),
        "rpo_age_s": 18_060.5,
        "rpo_limit_s": 21_600.0,
        "oldest_restorable_at": START - timedelta(days=30),
        "largest_gap_s": 97_184.0,
    }
    return Cluster(**(known | changes))


def row(index: int, verdict: Verdict, reason: str, **labels: str) -> Row:
    return Row(GROUP, "orders-prod", f"{index:024x}", 5_000 + index, verdict, (reason,), labels)


def rows(verdict: Verdict, count: int, left_out: int = 0) -> Rows:
    shown = (row(i, verdict, f"reason {i}", owner=f"team {i}") for i in range(count))
    return Rows(tuple(shown), left_out)


def finding(index: int = 0, **changes: Any) -> Finding:
    known: dict[str, Any] = {
        "group_id": GROUP,
        "cluster_name": f"cluster-{index}",
        "checkpoint_id": None,
        "scope": "cluster",
        "rule_id": "no-restorable-checkpoint",
        "severity": "critical",
        "message": "none is restorable",
        "observed": f"0 of {30 + index} restorable",
        "expected": "at least 1",
        "controls": "NIST SP 800-53 Rev. 5 CP-9",
    }
    return Finding(**(known | changes))


def kind(failure: FailureKind, verdict: Verdict, count: int) -> KindCount:
    return KindCount(failure, verdict, count, *ADVICE[failure])


def troubled(**changes: Any) -> Summary:
    """A run with some of everything, and more of it than a page shows."""
    counts = Counts(2_001, 1_000, 600, 301, 100)
    rules = (
        RuleCount(
            "no-restorable-checkpoint",
            "critical",
            "cluster",
            "Nothing to restore this cluster from.",
            ("NIST SP 800-53 Rev. 5 CP-9",),
            231,
        ),
        RuleCount("restorable-false", "high", "checkpoint", "`restorable`: no.", ("",), 600),
    )
    known: dict[str, Any] = {
        "run": facts(bad_line_count=240, line_count=2_253, parent_run_id="earlier-run"),
        "answer": "No",
        "headline": "1,000 of 2,001 checkpoints pass; 600 fail.",
        "exit_code": 4,
        "exit_meaning": MEANINGS[ExitCode.OPEN_AND_INCOMPLETE],
        "complete": False,
        "counts": counts,
        "excused_count": 17,
        "notices": ("The replies are from another day.",),
        "clusters": tuple(
            cluster(cluster_name=f"cluster-{i}", verdict=Verdict.FAIL) for i in range(30)
        ),
        "clusters_left_out": 1_970,
        "failing": rows(Verdict.FAIL, 200, 400),
        "absent": rows(Verdict.ABSENT, 200, 101),
        "inconclusive": rows(Verdict.INCONCLUSIVE, 25, 75),
        "rules": rules,
        "kinds": (
            kind(FailureKind.CHECKPOINT_ABSENT, Verdict.ABSENT, 301),
            kind(FailureKind.THROTTLED, Verdict.INCONCLUSIVE, 88),
            kind(FailureKind.PROJECT_REFUSED, Verdict.INCONCLUSIVE, 12),
        ),
        "cluster_findings": tuple(finding(i) for i in range(200)),
        "cluster_findings_left_out": 31,
        "bad_lines": BadLines(tuple(f"line {i}, bad" for i in range(2, 202)), 40),
    }
    return clean(**(known | changes))


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
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        if tag in {"td", "th", "li", "dt", "dd", "div", "br"}:
            self.words.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def hostile(text: str) -> Summary:
    """The same hostile text wherever the API, the CSV or the environment may put one."""
    shown = Row(text, text, text, 7, Verdict.FAIL, (text, text), {text: text, "owner": text})
    return troubled(
        run=facts(
            audit_name=text,
            base_url=text,
            credential_id=text,
            input_source=text,
            bad_line_count=1,
            parent_run_id=text,
        ),
        headline=text,
        population=text,
        shortfalls=(),
        notices=(text,),
        clusters=(cluster(cluster_name=text, group_id=text, verdict=Verdict.FAIL),),
        projects=(ProjectCounts(1, 1, 0, 0, 0, text, 1),),
        failing=Rows((shown,), 0),
        absent=Rows((shown,), 0),
        inconclusive=Rows((shown,), 0),
        cluster_findings=(
            finding(cluster_name=text, group_id=text, message=text, observed=text, expected=text),
        ),
        bad_lines=BadLines((text,), 0),
    )


# --- what is said -------------------------------------------------------------------------------


@pytest.mark.parametrize("summary", [clean(), troubled()], ids=["clean", "troubled"])
def test_both_pages_answer_first(summary: Summary) -> None:
    text, markdown = Page(render_html(summary)).text, render_markdown(summary)

    assert markdown.startswith(f"# {summary.answer}\n\n{summary.headline}\n")
    answer = f"Can these checkpoints be trusted? {summary.answer} {summary.headline}"
    assert text.partition(answer)[0].endswith("2026-11-23 Skip to what to do ")


def test_html_holds_every_number_of_the_summary() -> None:
    summary = troubled()
    text = Page(render_html(summary)).text

    run = summary.run
    wanted = [
        *(f"{n:,} {name}" for n, name in [(1_000, "pass"), (600, "fail"), (301, "absent")]),
        "100 inconclusive",
        "17 of them excused",
        f"Exit code 4 {summary.exit_meaning}",
        "12 min 34 s (754.5 s)",
        "2,345 requests, 67 of them refused",
        "2,253 lines: 2,001 triples, 12 duplicates, 240 bad lines",
        "2,013 = 2,013: holds",
        "231 clusters",
        "600 checkpoints",
        "301 triples",
        "88 triples",
        "12 triples",
        "Clusters 2,000",
        "5 h 1 min old",
        "(18,060.5 s; limit 6 h 0 min, 21,600 s)",
        "1 d 2 h (97,184 s)",
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
        "reason 199",
        "team 199",
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
        f"Exit code 4: {summary.exit_meaning}",
        "2,345 requests, 67 of them refused",
        "2,013 and 2,013",
        "231 clusters",
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
        (400, "row", "the tables outcomes/ and findings/"),
        (101, "row", "the table outcomes/"),
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

    assert f"Show {200 - OPEN_ROWS} more rows" in page
    assert "Show 10 more clusters" in page
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
    for heading in ("Absent", "Checkpoints that fail", "Could not", "Clusters", "Findings"):
        assert f"## {heading}" not in markdown


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


def test_the_page_forbids_everything_but_its_own_style() -> None:
    page = render_html(troubled())
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    policy = Page(page).all("meta")[1]["content"]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert " style=" not in page
    assert "url(" not in style
    assert "@import" not in style


def test_links_lead_into_the_page_or_to_the_data_beside_it() -> None:
    page = Page(render_html(hostile("innocent")))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = {attributes["href"] or "" for attributes in page.all("a")}

    assert {target for target in targets if not target.startswith("#")} == set(DATA)
    assert {target[1:] for target in targets if target.startswith("#")} <= ids
    assert not page.all("script")
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
