"""What to do: the summary turned into a list of things for people, the most urgent first."""

from collections import Counter
from collections.abc import Iterator

import msgspec

from pipeline.excuses import WaiverState, WaiverUse
from pipeline.outcomes import Verdict
from pipeline.report.summary import KindCount, OwnerCount, RuleCount, Summary
from pipeline.report.words import plural, sentence

#: Clusters and rules that an action names before it only counts them.
_NAMED = 3


class Action(msgspec.Struct, frozen=True):
    """Something to do: how many of what, what is so, the advice, the section that says more.

    `who` names the owners, where the policy does.
    """

    count: str
    so: str
    advice: str
    section: str
    who: str = ""


def actions_of(summary: Summary) -> Iterator[Action]:
    """What to do, most urgent first; that some may be missing before what is said of the others.

    What a waiver or the retention window excuses is nothing to do.
    """
    for shortfall in summary.shortfalls:
        so = sentence(shortfall.rstrip("."))
        yield Action("Population", so, "Find out whether the list is whole", "population")
    failing = [rule for rule in summary.rules if rule.fails and _open(rule)]
    for rule in failing:
        if rule.scope == "cluster":
            yield _about_clusters(rule, summary)
    if count := summary.counts.fail_count - summary.excused_of(Verdict.FAIL):
        yield _about_checkpoints(count, [r for r in failing if r.scope == "checkpoint"])
    for kind in sorted(summary.kinds, key=lambda kind: kind.verdict, reverse=True):
        if count := kind.count - kind.excused_count:
            yield _about_kind(kind, count)
    yield from _about_waivers([use for use in summary.waivers if _wants_a_decision(use)])
    if count := summary.run.bad_line_count:
        so, advice = "Could not be used, so nothing was asked", "Mend them in the input"
        yield Action(plural(count, "input line"), so, advice, "bad-lines")
    if count := summary.counts.inconclusive_count - summary.excused_of(Verdict.INCONCLUSIVE):
        so = "Could not be determined, in all"
        advice = f"When the causes are gone, start run --complete {summary.run.run_id}"
        yield Action(plural(count, "triple"), so, advice, "inconclusive")


def _open(rule: RuleCount) -> int:
    return rule.count - rule.waived_count


def _about_clusters(rule: RuleCount, summary: Summary) -> Action:
    so = sentence(rule.title.replace("`", "").rstrip("."))
    found = [
        finding
        for finding in summary.cluster_findings
        if finding.rule_id == rule.rule_id and finding.waiver_id is None
    ]
    names = _told_apart([(finding.cluster_name, finding.group_id) for finding in found])
    named = f"See to these first: {_first(names, _open(rule))}"
    return Action(plural(_open(rule), "cluster"), so, named, "clusters", _who(rule.owners))


def _about_checkpoints(count: int, rules: list[RuleCount]) -> Action:
    names = [f"{rule.rule_id} {_open(rule):,}" for rule in rules]
    so = f"A rule objects ({_first(names, len(names))})" if names else "A rule objects"
    owners = [one for rule in rules for one in rule.owners]
    advice = "Do not rely on them; the reason stands beside each"
    return Action(plural(count, "checkpoint"), so, advice, "failing", _who(owners))


def _about_kind(kind: KindCount, count: int) -> Action:
    advice = sentence(kind.advice)
    return Action(plural(count, "triple"), sentence(kind.meaning), advice, kind.verdict.lower())


def _wants_a_decision(use: WaiverUse) -> bool:
    has_lapsed, is_about_to = use.state is WaiverState.LAPSED, use.state is WaiverState.LAPSES_SOON
    return is_about_to or (has_lapsed and use.count > 0)


def _about_waivers(uses: list[WaiverUse]) -> Iterator[Action]:
    """The first few by themselves; many may lapse on one day."""
    yield from map(_about_waiver, uses[:_NAMED])
    if more := len(uses[_NAMED:]):
        so = "Lapsed, or lapse soon"
        yield Action(plural(more, "more waiver"), so, "See to their dates too", "waivers")


def _about_waiver(use: WaiverUse) -> Action:
    lapses = "Lapsed" if use.state is WaiverState.LAPSED else "Lapses"
    advice = "Mend what it bears, or have it approved anew"
    who = f"Owner: {use.owner}"
    return Action(f"Waiver {use.id}", f"{lapses} on {use.expires_on}", advice, "waivers", who)


def _told_apart(clusters: list[tuple[str, str]]) -> list[str]:
    """Name clusters, with their project where several share a name."""
    shared = Counter(name for name, _ in clusters)
    return [f"{name} of {project}" if shared[name] > 1 else name for name, project in clusters]


def _first(names: list[str], count: int) -> str:
    """Name the first few of so many."""
    named = names[:_NAMED]
    more = count - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")


def _who(owners: list[OwnerCount] | tuple[OwnerCount, ...]) -> str:
    names = list(dict.fromkeys(one.owner for one in owners if one.owner))
    return f"Owners: {_first(names, len(names))}" if names else ""
