"""The summary as pages: Markdown for terminals and chats, one HTML file for everybody else.

Every value that a template prints goes through one gate of its page (Jinja's `finalize`), so none
is forgotten: on the HTML page it makes characters visible that would hide or reorder text, and
autoescape does the rest; in Markdown it puts whatever could be read as markup into a code span.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.changes import TURNS, Cause, ChangeKind
from pipeline.errors import ExitCode
from pipeline.excuses import WaiverState
from pipeline.judgements import RpoStatus
from pipeline.outcomes import Verdict
from pipeline.policy import Severity
from pipeline.report import words
from pipeline.report.actions import actions_of
from pipeline.report.charts import chart, portion, spans
from pipeline.report.summary import ClusterRow, PolicyFacts, RuleCount, Summary
from pipeline.report.words import age, code, exact, moment, n, plural, visible

#: Rows of a list that the HTML page shows before the others, folded, and all that Markdown shows.
OPEN_ROWS = 20
#: Things to do that the first screen shows before the others.
OPEN_ACTIONS = 5
#: The summary has more; a page that has them all might not open.
MOST_PROJECTS = 500
MOST_ROWS = 100

#: Verdict → what it says of a triple.
VERDICT_MEANINGS = {
    Verdict.PASS: "Atlas reports it as restorable, and no rule fails it",
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

#: How a cluster's newest point stands to the limit → words, and the tone they are set in; the most
#: urgent first.
RPO_WORDS = {
    RpoStatus.NO_POINT: ("no point", "fail"),
    RpoStatus.EXCEEDED: ("too old", "fail"),
    RpoStatus.NOT_JUDGED: ("not judged", "inconclusive"),
    RpoStatus.NO_LIMIT: ("no limit", ""),
    RpoStatus.WITHIN: ("within", "pass"),
}

#: What came of a triple → words and tone, worst first.
CHANGE_WORDS = {
    ChangeKind.BECAME_UNRESTORABLE: ("became unrestorable", "fail"),
    ChangeKind.NEWLY_INCONCLUSIVE: ("newly inconclusive", "inconclusive"),
    ChangeKind.STILL_FAILING: ("still failing", "fail"),
    ChangeKind.NEW: ("new", ""),
    ChangeKind.RECOVERED: ("recovered", "pass"),
    ChangeKind.DETERMINED: ("determined", "pass"),
    ChangeKind.GONE: ("gone", ""),
}

CAUSE_WORDS = {Cause.ATLAS: "Atlas", Cause.RULES: "rules or policy"}

WAIVER_WORDS = {
    WaiverState.LAPSED: ("lapsed", "fail"),
    WaiverState.LAPSES_SOON: ("lapses soon", "inconclusive"),
    WaiverState.IN_FORCE: ("in force", "pass"),
}

#: The page's colour: what the reader should feel before reading.
_TONES = {ExitCode.COMPLETE: "pass", ExitCode.INCOMPLETE: "inconclusive"}

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
    """Render the summary as one HTML file that needs nothing else, and no network.

    Its one style and its one script are allowed by their digests and nothing else is; without the
    script the page says the same.
    """
    parts: dict[str, Any] = {}
    for name, file in (("style", "report.css"), ("script", "report.js")):
        text = resources.files("pipeline.report").joinpath(f"templates/{file}").read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        parts |= {name: Markup(text), f"{name}_sha256": digest}  # noqa: S704
    return _environment(visible).get_template("report.html").render(_names(summary), **parts)


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
    for name in ("age", "clock", "code", "exact", "moment", "n", "plural", "sentence", "share"):
        environment.filters[name] = getattr(words, name)
    environment.tests["troubled"] = _is_troubled
    environment.filters |= {"portion": portion, "spans": spans, "ticks": words.ticks}
    return environment


def _names(summary: Summary) -> dict[str, Any]:
    """What the templates speak of."""
    order = list(Severity).index
    actions = tuple(actions_of(summary))
    return {
        "s": summary,
        "run": summary.run,
        "tone": _TONES.get(ExitCode(summary.exit_code), "fail"),
        "tally": [(v.lower(), f"{_count(summary, v):,} {v.lower()}") for v in Verdict],
        "actions": actions,
        "rules": sorted(
            summary.rules, key=lambda rule: (order(Severity(rule.severity)), -rule.count)
        ),
        "controls": _controls(summary),
        "projects": sorted(
            summary.projects,
            key=lambda p: (-p.fail_count, -p.inconclusive_count, -p.absent_count, p.group_id),
        ),
        "statuses": [status for status in RPO_WORDS if _has_status(summary, status)],
        "has_owners": any(cluster.owner for cluster in summary.clusters),
        "chart": chart(summary.timeline) if summary.timeline else None,
        "contents": _contents(summary),
        "facts": _facts(summary),
        "verdict_meanings": VERDICT_MEANINGS,
        "rpo_words": RPO_WORDS,
        "rpo_order": {status: place for place, status in enumerate(RPO_WORDS)},
        "change_words": CHANGE_WORDS,
        "cause_words": CAUSE_WORDS,
        "turns": TURNS,
        "waiver_words": WAIVER_WORDS,
        "data": DATA,
        "open_rows": OPEN_ROWS,
        "open_actions": OPEN_ACTIONS,
        "most_projects": MOST_PROJECTS,
        "most_rows": MOST_ROWS,
    }


# --- the gate of Markdown -----------------------------------------------------------------------


def _quoted(value: Any) -> Any:
    """Put text into a code span unless it is harmless as it is."""
    if isinstance(value, Markup | int | float):
        return value
    text = visible(value)
    return text if not text or _HARMLESS.fullmatch(text) else code(text)


# --- what a page says in several places ----------------------------------------------------------


def _count(summary: Summary, verdict: Verdict) -> int:
    return int(getattr(summary.counts, f"{verdict.lower()}_count"))


def _is_troubled(cluster: ClusterRow) -> bool:
    """Whether there is something about a cluster that somebody must see to."""
    _, tone = RPO_WORDS[cluster.rpo_status]
    return cluster.verdict is not Verdict.PASS or tone in {"fail", "inconclusive"}


def _has_status(summary: Summary, status: RpoStatus) -> bool:
    return any(cluster.rpo_status is status for cluster in summary.clusters)


def _controls(summary: Summary) -> dict[str, list[RuleCount]]:
    """Control → the rules whose findings bear on it."""
    controls: dict[str, list[RuleCount]] = {}
    for rule in summary.rules:
        for control in filter(None, rule.controls):
            controls.setdefault(control, []).append(rule)
    return dict(sorted(controls.items()))


def _contents(summary: Summary) -> list[tuple[str, str, int | None]]:
    """Sections of the page: id, title, how many rows (None: it is no list)."""
    counts, bad_lines = summary.counts, summary.run.bad_line_count
    listed = [
        ("clusters", "Clusters", len(summary.clusters) + summary.clusters_left_out),
        ("changes", "What changed", None),
        ("rules", "Findings by rule", sum(rule.count for rule in summary.rules)),
        ("waivers", "Waivers", len(summary.waivers) + summary.waivers_left_out),
        ("failing", "Fail", counts.fail_count),
        ("absent", "Absent", counts.absent_count),
        ("inconclusive", "Not determined", counts.inconclusive_count),
        *([("bad-lines", "Bad lines", bad_lines)] if bad_lines else []),
        *([("timeline", "The run in time", None)] if summary.timeline else []),
        ("population", "Population", summary.counts.triple_count),
        ("projects", "Projects", len(summary.projects)),
        ("statements", "What this says, and what not", None),
        ("facts", "Facts", None),
        ("data", "Data", None),
    ]
    return [(target, title, count) for target, title, count in listed]


def _facts(summary: Summary) -> list[tuple[str, str]]:
    """Facts of the run: name, value."""
    run = summary.run
    lines = (
        plural(run.line_count, "line") + ": " + plural(run.triple_count, "triple"),
        plural(run.duplicate_count, "duplicate"),
        plural(run.bad_line_count, "bad line"),
    )
    refused = f"{n(run.refusal_count)} of them refused by a rate limit"
    versions = f"schema {run.schema_version}, rules {run.rules_version}"
    return [
        ("Input", ", ".join(lines)),
        ("Requests", f"{plural(run.request_count, 'request')}, {refused}"),
        ("Duration", f"{age(summary.duration_s)} ({exact(summary.duration_s)})"),
        ("Started", moment(run.started_at)),
        ("Finished", moment(run.finished_at)),
        ("Versions", f"checkpoint-audit {run.tool_version}, {versions}"),
        ("Policy", _policy(summary.policy) if summary.policy else "not told"),
        ("Base URL", run.base_url),
        ("Credential", run.credential_id),
        ("Follows run", run.parent_run_id or "none"),
        ("Input file", run.input_source),
    ]


def _policy(policy: PolicyFacts) -> str:
    """Write the policy in short: its name, its limits, how much else it has."""
    limits = [
        f"{name.replace('_', ' ')} {n(int(value)) if name == 'min_restorable' else age(value)}"
        for name, value in policy.thresholds.items()
    ]
    scopes = f"{policy.scope_count:,} for some clusters" if policy.scope_count else ""
    waivers = plural(policy.waiver_count, "waiver")
    return f"{policy.name}: {'; '.join(filter(None, (*limits, scopes, waivers)))}"
