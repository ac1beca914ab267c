"""The summary as pages: Markdown for terminals and chats, one HTML file for everybody else.

Every value that a template prints goes through one gate of its page (Jinja's `finalize`), so none
is forgotten: on the HTML page it makes characters visible that would hide or reorder text, and
autoescape does the rest; in Markdown it puts whatever could be read as markup into a code span.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup, escape

from pipeline.errors import ExitCode
from pipeline.outcomes import Verdict
from pipeline.policy import Severity
from pipeline.report.summary import Counts, RuleCount, Summary

#: Rows of a list that the HTML page shows before the others, folded, and all that Markdown shows.
OPEN_ROWS = 20
#: The summary has every project; a page that has them all might not open.
MOST_PROJECTS = 1000

#: Verdict → what it says of a triple.
VERDICT_MEANINGS = {
    Verdict.PASS: "Atlas reports it as restorable, and no rule objects",
    Verdict.FAIL: "a rule objects",
    Verdict.ABSENT: "Atlas says, by its own error code, that there is none",
    Verdict.INCONCLUSIVE: "not known: no answer to judge by",
}

#: What lies beside the page → what it holds.
DATA = {
    "checkpoints/": "every checkpoint that Atlas answered with, PASS and FAIL",
    "parts/": "their parts: replica sets and shards with their tokens",
    "outcomes/": "every triple: verdict, failure, attempts, input line, labels",
    "clusters/": "every cluster: counts, newest restorable point, gaps",
    "findings/": "every objection of every rule, with severity and controls",
    "runs/": "this run in one row",
    "evidence/": "every reply as it was received, the input, the policy",
    "unresolved.csv": "the inconclusive triples, as an input to run again",
    "summary.json": "this page, for programs",
    "manifest.json": "every file with its rows, bytes and SHA-256",
    "SHA256SUMS": "the same digests, for sha256sum --check",
}

#: The page's colour: what the reader should feel before reading.
_TONES = {ExitCode.COMPLETE: "pass", ExitCode.INCOMPLETE: "inconclusive"}

#: A segment of a bar is at least this wide, in per cent: one of a million must be seen.
_LEAST_WIDTH = 1.5

#: Clusters that an action names before it only counts them.
_NAMED_CLUSTERS = 5

_MINUTE, _HOUR, _DAY = 60, 3600, 86400

#: Text that means nothing to Markdown, GitHub or a chat: no markup, link, mention or reference.
_HARMLESS = re.compile(
    r"""
    (?! .* (?: :// | \bwww\. | !\[ | \]\( | \b_ | _\b | \bGH-\d ) )  # links, emphasis, references
    (?! \s* \d+ [.)] \s )                                            # a numbered list
    \ * [\w(] [\w .,;:()/'"!?=\[\]%+×–…-]*
    """,
    re.VERBOSE,
)


def render_markdown(summary: Summary) -> str:
    """Render the summary as Markdown: the answer, what to do, and the first rows of each list."""
    text = _environment(_quoted).get_template("report.md").render(_names(summary))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def render_html(summary: Summary) -> str:
    """Render the summary as one HTML file that needs nothing else, neither script nor network."""
    style = resources.files("pipeline.report").joinpath("templates/report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = _environment(_visible).get_template("report.html")
    return page.render(_names(summary), style=Markup(style), style_sha256=digest)  # noqa: S704


@cache
def _environment(gate: Callable[[Any], Any]) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report"),
        autoescape=jinja2.select_autoescape(["html"]),
        finalize=gate,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (age, code, exact, moment, n, plural, sentence, share, spans, ticks)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


def _names(summary: Summary) -> dict[str, Any]:
    """What the templates speak of."""
    order = list(Severity).index
    return {
        "s": summary,
        "run": summary.run,
        "tone": _TONES.get(ExitCode(summary.exit_code), "fail"),
        "actions": tuple(_actions(summary)),
        "rules": sorted(
            summary.rules, key=lambda rule: (order(Severity(rule.severity)), -rule.count)
        ),
        "controls": _controls(summary),
        "projects": sorted(
            summary.projects,
            key=lambda p: (-p.fail_count, -p.inconclusive_count, -p.absent_count, p.group_id),
        ),
        "verdict_meanings": VERDICT_MEANINGS,
        "data": DATA,
        "open_rows": OPEN_ROWS,
        "most_projects": MOST_PROJECTS,
    }


# --- the gates ----------------------------------------------------------------------------------


def _visible(value: Any) -> Any:
    """Show characters that hide or reorder text as escapes, as Python's `repr` does."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def _quoted(value: Any) -> Any:
    """Put text into a code span unless it is harmless as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = _visible(value)
    return text if not text or _HARMLESS.fullmatch(text) else code(text)


# --- filters ------------------------------------------------------------------------------------


def code(text: str) -> Markup:
    """Put text into a code span of Markdown, which nothing in it can leave.

    A backtick becomes a quote: chat programs do not know longer fences.
    """
    inside = _visible(text).replace("`", "'").replace("|", "¦") or " "
    return Markup(f"`{inside}`")  # noqa: S704


def n(count: int) -> str:
    """Write a count: 12,345."""
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: 1 line, 2 lines."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def moment(at: datetime) -> str:
    """Write a time in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def age(seconds: float) -> str:
    """Write a duration as people say it, in its two largest units."""
    if seconds < 0:
        return "minus " + age(-seconds)
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    whole = round(seconds)
    days, hours, minutes = whole // _DAY, whole % _DAY // _HOUR, whole % _HOUR // _MINUTE
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % _MINUTE} s"


def exact(seconds: float) -> str:
    """Write a duration in seconds, to the millisecond."""
    return f"{seconds:,.3f}".rstrip("0").rstrip(".") + " s"


def share(part: int, whole: int) -> str:
    """Write a share in per cent; only all is 100 and only none is 0."""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"


def spans(counts: Counts) -> list[tuple[str, float, float]]:
    """Give the segments of a bar of verdicts: name, start and width, in per cent of the bar."""
    known = {verdict.lower(): getattr(counts, f"{verdict.lower()}_count") for verdict in Verdict}
    total = counts.triple_count or 1
    widths = {name: max(100 * c / total, _LEAST_WIDTH) for name, c in known.items() if c}
    scale, start, segments = 100 / (sum(widths.values()) or 1), 0.0, []
    for name, width in widths.items():
        segments.append((name, round(start, 2), round(width * scale, 2)))
        start += width * scale
    return segments


def sentence(text: str) -> str:
    """Begin with a capital."""
    return text[:1].upper() + text[1:]


def ticks(text: str) -> Markup:
    """Set what stands between backticks as code."""
    escaped = str(escape(_visible(text)))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))  # noqa: S704


# --- what to do, what it bears on ---------------------------------------------------------------


class Action(msgspec.Struct, frozen=True):
    """Something to do: how many of what, what is so, the advice, the section that says more."""

    count: str
    so: str
    advice: str
    section: str


def _actions(summary: Summary) -> Iterator[Action]:
    """What to do, most urgent first; that some may be missing before what is said of the others."""
    for shortfall in summary.shortfalls:
        so = sentence(shortfall.rstrip("."))
        advice = "Find out whether the list is whole"
        yield Action("Population", so, advice, "facts")
    for rule in summary.rules:
        if rule.scope == "cluster":
            so = sentence(rule.title.replace("`", "").rstrip("."))
            advice = f"See to these first: {_clusters_of(rule, summary)}"
            yield Action(plural(rule.count, "cluster"), so, advice, "clusters")
    if count := summary.counts.fail_count:
        so, advice = "A rule objects", "Do not rely on them; the reason stands beside each"
        yield Action(plural(count, "checkpoint"), so, advice, "failing")
    for kind in sorted(summary.kinds, key=lambda kind: kind.verdict, reverse=True):
        so, advice = sentence(kind.meaning), sentence(kind.advice)
        yield Action(plural(kind.count, "triple"), so, advice, kind.verdict.lower())
    if count := summary.run.bad_line_count:
        so, advice = "Could not be used, so nothing was asked", "Mend them in the input"
        yield Action(plural(count, "input line"), so, advice, "bad-lines")
    if count := summary.counts.inconclusive_count:
        so = "Could not be determined, in all"
        advice = f"When the causes are gone, start run --complete {summary.run.run_id}"
        yield Action(plural(count, "triple"), so, advice, "inconclusive")


def _clusters_of(rule: RuleCount, summary: Summary) -> str:
    findings = [f for f in summary.cluster_findings if f.rule_id == rule.rule_id]
    names = [f"{f.cluster_name} of project {f.group_id}" for f in findings]
    named = names[:_NAMED_CLUSTERS]
    more = rule.count - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")


def _controls(summary: Summary) -> dict[str, list[RuleCount]]:
    """Control → the rules whose findings bear on it."""
    controls: dict[str, list[RuleCount]] = {}
    for rule in summary.rules:
        for control in filter(None, rule.controls):
            controls.setdefault(control, []).append(rule)
    return dict(sorted(controls.items()))
