"""What a policy provides, told to people: every rule, threshold and waiver, and where it is said.

Pure: the policy, the name of its file, and the time by which its waivers are judged are given.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from itertools import chain

import msgspec

from pipeline.cells import on_one_line
from pipeline.documents import key_lines
from pipeline.durations import as_duration
from pipeline.excuses import WaiverState, state_of, waiver_uses
from pipeline.policy import Policy, RuleTerms, Scope, Severity, Thresholds
from pipeline.rules import RULES

#: Where something is said that the policy's file leaves to the default.
DEFAULT = "default"


class Value(msgspec.Struct, frozen=True):
    """A value as text, and where it is said."""

    value: str
    origin: str


class Exemption(msgspec.Struct, frozen=True):
    """What an entry of `clusters` says of one threshold, for the clusters that its globs name."""

    entry: str
    project: str
    cluster: str
    value: str
    origin: str


class Threshold(msgspec.Struct, frozen=True):
    """A threshold in general, and its exemptions: of those that fit a cluster the last holds."""

    name: str
    value: str
    origin: str
    exemptions: tuple[Exemption, ...]


class Ownership(msgspec.Struct, frozen=True):
    """Who owns the clusters that the globs of an entry name."""

    entry: str
    project: str
    cluster: str
    owner: str
    origin: str


class RuleProvision(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, and what it is worth. `origins` are of its terms."""

    rule_id: str
    title: str
    scope: str
    severity: Severity
    fails: bool
    enabled: bool
    controls: tuple[str, ...]
    reads: tuple[str, ...]
    thresholds: tuple[str, ...]
    source: str
    origins: dict[str, str]


class WaiverProvision(msgspec.Struct, frozen=True, kw_only=True):
    """A waiver, and how it stands."""

    id: str
    state: WaiverState
    expires_on: date
    scope: str
    owner: str
    approver: str
    reason: str


class Provisions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a policy provides. Durations are written as a policy file has them."""

    name: str
    file: str
    policy_sha256: str
    owner_label: Value
    announce_waivers: Value
    allowed_drop: Value
    thresholds: tuple[Threshold, ...]
    owners: tuple[Ownership, ...]
    rules: tuple[RuleProvision, ...]
    waivers: tuple[WaiverProvision, ...]


class _Origins:
    """Where a policy says what: a line of its file, or the default."""

    def __init__(self, policy: Policy, file: str) -> None:
        self._lines = key_lines(policy.text) if file else {}

    def of(self, path: str) -> str:
        line = self._lines.get(path)
        return DEFAULT if line is None else f"line {line}"


def provisions(policy: Policy, file: str, as_of: datetime) -> Provisions:
    """Tell what a policy provides; `file` is where it was read, empty for the default policy."""
    origins = _Origins(policy, file)
    return Provisions(
        name=policy.name,
        file=file,
        policy_sha256=policy.sha256,
        owner_label=Value(policy.owner_label, origins.of("owner_label")),
        announce_waivers=Value(as_duration(policy.announce), origins.of("announce_waivers")),
        allowed_drop=Value(
            f"{policy.population.allowed_drop:g}", origins.of("population.allowed_drop")
        ),
        thresholds=tuple(
            _threshold(policy, name, origins) for name in Thresholds.__struct_fields__
        ),
        owners=tuple(
            Ownership(entry, scope.project, scope.cluster, scope.owner, origins.of(entry))
            for entry, scope in _entries(policy)
            if scope.owner
        ),
        rules=tuple(_rule(rule_id, policy.rules[rule_id], origins) for rule_id in RULES),
        waivers=tuple(_waivers(policy, as_of)),
    )


def _entries(policy: Policy) -> Iterator[tuple[str, Scope]]:
    """Give the entries of `clusters`, by the paths that faults call them."""
    for number, scope in enumerate(policy.scopes, start=1):
        yield f"clusters[{number}]", scope


def _threshold(policy: Policy, name: str, origins: _Origins) -> Threshold:
    return Threshold(
        name,
        _limit(getattr(policy.thresholds, name)),
        origins.of(f"thresholds.{name}"),
        tuple(
            Exemption(
                entry,
                scope.project,
                scope.cluster,
                _limit(scope.thresholds[name]),
                origins.of(f"{entry}.{name}"),
            )
            for entry, scope in _entries(policy)
            if name in scope.thresholds
        ),
    )


def _limit(limit: timedelta | int | None) -> str:
    """Write a threshold. A count of 0 asks for nothing, as a limit that is not set does."""
    if isinstance(limit, timedelta):
        return as_duration(limit)
    return str(limit) if limit else "not judged"


def _rule(rule_id: str, terms: RuleTerms, origins: _Origins) -> RuleProvision:
    rule = RULES[rule_id]
    return RuleProvision(
        rule_id=rule_id,
        title=rule.title,
        scope=rule.scope,
        severity=terms.severity,
        fails=terms.fails,
        enabled=terms.enabled,
        controls=terms.controls,
        reads=rule.reads,
        thresholds=rule.thresholds,
        source=rule.source,
        origins={key: origins.of(f"rules.{rule_id}.{key}") for key in RuleTerms.__struct_fields__},
    )


def _waivers(policy: Policy, as_of: datetime) -> Iterator[WaiverProvision]:
    for use in waiver_uses(policy, {}, as_of):
        known = msgspec.structs.asdict(use)
        yield WaiverProvision(**{name: known[name] for name in WaiverProvision.__struct_fields__})


# --- as text ------------------------------------------------------------------------------------


def as_json(found: Provisions) -> str:
    """Give all of it as a JSON document."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def as_text(found: Provisions) -> str:
    """Give it for a terminal, in lines; what a policy brings along cannot steer it."""
    sections = (
        _head(found),
        ["", "Thresholds", *chain.from_iterable(map(_threshold_lines, found.thresholds))],
        _titled("Owners", [_owner_line(one) for one in found.owners]),
        ["", "Rules", *chain.from_iterable(map(_rule_lines, found.rules))],
        _titled("Waivers", chain.from_iterable(map(_waiver_lines, found.waivers))),
    )
    # The indentation of a line is ours, and kept.
    return "\n".join(
        line[: len(line) - len(line.lstrip(" "))] + on_one_line(line)
        for line in chain.from_iterable(sections)
    )


def _titled(title: str, lines: Iterable[str]) -> list[str]:
    return ["", title, *(list(lines) or ["  none"])]


def _head(found: Provisions) -> list[str]:
    named = f"policy {found.name}: {found.file}, laid over the default"
    label = found.owner_label
    return [
        named if found.file else "the default policy",
        f"sha256 {found.policy_sha256}",
        "",
        f"  allowed drop of the population: {_said(found.allowed_drop)}",
        f"  waivers are announced {_said(found.announce_waivers)} before they lapse",
        *([f"  owners are named by the column {_said(label)}"] if label.value else []),
    ]


def _said(value: Value | Threshold | Exemption) -> str:
    return f"{value.value} ({value.origin})"


def _threshold_lines(threshold: Threshold) -> Iterator[str]:
    yield f"  {threshold.name}: {_said(threshold)}"
    for one in threshold.exemptions:
        yield f"    {_globs(one)}: {_said(one)}"


def _globs(one: Exemption | Ownership) -> str:
    return f"{one.entry}, project {one.project} cluster {one.cluster}"


def _owner_line(one: Ownership) -> str:
    return f"  {_globs(one)}: {one.owner} ({one.origin})"


def _rule_lines(rule: RuleProvision) -> list[str]:
    leads_to = ("FAIL" if rule.fails else "a finding only") if rule.enabled else "not judged"
    changed = [f"{key} {origin}" for key, origin in rule.origins.items() if origin != DEFAULT]
    return [
        f"  {rule.rule_id}: {rule.severity}, {leads_to} ({', '.join(changed) or DEFAULT})",
        f"    objects to a {rule.scope} where {rule.title}",
        f"    reads {', '.join(rule.reads)}; source: {rule.source}",
        *([f"    compares with {', '.join(rule.thresholds)}"] if rule.thresholds else []),
        f"    bears on {'; '.join(rule.controls) or 'no control'}",
    ]


def _waiver_lines(waiver: WaiverProvision) -> list[str]:
    return [
        f"  {waiver.id}: {_STATES[waiver.state]}, last day {waiver.expires_on}",
        f"    excuses {waiver.scope}",
        f"    because {waiver.reason}",
        f"    owner {waiver.owner}, approved by {waiver.approver}",
    ]


_STATES = {
    WaiverState.LAPSED: "lapsed",
    WaiverState.LAPSES_SOON: "lapses soon",
    WaiverState.IN_FORCE: "in force",
}


# --- in a line ----------------------------------------------------------------------------------


def in_short(policy: Policy, as_of: datetime) -> str:
    """Say in a line what a policy holds that the default does not."""
    paths = key_lines(policy.text)
    said = [path.split(".") for path in paths]
    thresholds = sum(path[0] == "thresholds" for path in said if len(path) > 1)
    rules = len({path[1] for path in said if path[0] == "rules" and len(path) > 1})
    states = Counter(state_of(one, policy.announce, as_of) for one in policy.waivers)
    standing = [f"{states[state]} {_STATES[state]}" for state in WaiverState if states[state]]
    waivers = _n(len(policy.waivers), "waiver")
    parts = [
        _n(thresholds, "threshold"),
        _n(len(policy.scopes), "entry", "entries") + " for clusters",
        _n(rules, "rule") + " changed",
        f"{waivers} ({', '.join(standing)})" if standing else waivers,
    ]
    return f"policy {policy.name}: {', '.join(parts)}"


def _n(count: int, noun: str, nouns: str = "") -> str:
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"
