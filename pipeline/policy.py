"""The policy: what each rule is worth, what the rules compare with, what was decided to be borne.

A policy is TOML text; the one in force is kept with the evidence exactly as it was read. A file is
laid over the default, which comes with this program: what the file does not say stays as it is
there. All that is wrong with a file is told at once, by key and line (see `documents`).
"""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from pipeline.documents import (
    Document,
    Table,
    Wrong,
    day_of,
    flag_of,
    nearest,
    share_of,
    text_of,
)
from pipeline.durations import duration_of
from pipeline.errors import ConfigurationWrong
from pipeline.outcomes import EXCUSABLE_KINDS, FailureKind

#: What excuses an absence by the retention window; no waiver can be called so.
RETENTION = "retention"


class Severity(StrEnum):
    """How bad a finding is, worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class RuleTerms(msgspec.Struct, frozen=True):
    """What a policy says about one rule.

    `fails`: that what it objects to is a FAIL; else it is a finding beside the verdict. `enabled`:
    that it is judged at all.
    """

    severity: Severity
    controls: tuple[str, ...] = ()
    fails: bool = True
    enabled: bool = True


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules compare with; None: not judged.

    `rpo_age`: of the newest restorable point; `gap`: between two neighbouring ones;
    `token_spread`: from a checkpoint's first token to its last; `token_distance`: from its
    `timestamp` to any token; `run_time`: from `started` to `completed`; `retention`: how long
    checkpoints are kept; `min_restorable`: checkpoints of a cluster that pass, 0: not judged.
    """

    rpo_age: timedelta | None = None
    gap: timedelta | None = None
    token_spread: timedelta | None = None
    token_distance: timedelta | None = None
    run_time: timedelta | None = None
    retention: timedelta | None = None
    min_restorable: int = 1


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy says about the clusters that two globs name: owner, and changed thresholds.

    `thresholds` holds those it names only; None lifts a limit.
    """

    project: str = "*"
    cluster: str = "*"
    owner: str = ""
    thresholds: dict[str, timedelta | int | None] = {}


class Waiver(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody decided to bear, until the end of the day `expires_on`, UTC.

    It excuses the findings of `rules`, and triples without a checkpoint of these `kinds`, in
    clusters that the globs name; of `checkpoints` only, where there are any.
    """

    id: str
    reason: str
    owner: str
    approver: str
    expires_on: date
    rules: tuple[str, ...] = ()
    kinds: tuple[FailureKind, ...] = ()
    project: str = "*"
    cluster: str = "*"
    checkpoints: tuple[str, ...] = ()


class PopulationTerms(msgspec.Struct, frozen=True):
    """What a policy says about the population.

    `allowed_drop` is the share, from 0 to 1, of the triples of the last complete run that may be
    gone before a run is not complete.
    """

    allowed_drop: float = 0.2


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy as read, with its text.

    `owner_label` names the input's column that says who owns a cluster, for those that no scope
    has an owner for. A waiver is announced `announce` before it lapses. Later `scopes` go before
    earlier ones, threshold by threshold. `base_text` is that of the default which it is laid over;
    empty where it is a default itself.
    """

    text: str
    base_text: str = ""
    rules: dict[str, RuleTerms]
    name: str = "unnamed"
    population: PopulationTerms = PopulationTerms()
    thresholds: Thresholds = Thresholds()
    scopes: tuple[Scope, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    owner_label: str = ""
    announce: timedelta = timedelta(days=14)

    @property
    def sha256(self) -> str:
        """The digest of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def thresholds_of(self, group_id: str, cluster_name: str) -> Thresholds:
        """Give the thresholds that hold for a cluster."""
        changed: dict[str, Any] = {}
        for scope in self.scopes:
            if _names(scope, group_id, cluster_name):
                changed |= scope.thresholds
        return msgspec.structs.replace(self.thresholds, **changed)

    def owner_of(self, group_id: str, cluster_name: str, labels: Mapping[str, str]) -> str:
        """Name who owns a cluster, by scope or by its line's labels; empty where nobody does."""
        owners = [s.owner for s in self.scopes if s.owner and _names(s, group_id, cluster_name)]
        return owners[-1] if owners else labels.get(self.owner_label, "")

    def waivers_of(self, group_id: str, cluster_name: str) -> list[Waiver]:
        """Give the waivers that are about a cluster, in force or not."""
        return [waiver for waiver in self.waivers if _names(waiver, group_id, cluster_name)]


def _names(globs: Scope | Waiver, group_id: str, cluster_name: str) -> bool:
    return fnmatchcase(group_id, globs.project) and fnmatchcase(cluster_name, globs.cluster)


class PolicyWrong(ConfigurationWrong):
    """A policy file that cannot be used; `faults` are all of its faults, a line each."""

    hint = "mend the file; `checkpoint-audit policy check FILE` lists its faults, one a line"

    def __init__(self, source: str, faults: list[str]) -> None:
        self.faults = tuple(faults)
        more = len(faults) - _SAID_FAULTS
        said = [*faults[:_SAID_FAULTS], *([f"and {more} more"] if more > 0 else [])]
        super().__init__(f"{source} cannot be used: {'; '.join(said)}")


#: Faults that the message of a refused policy names.
_SAID_FAULTS = 20


def read_policy(text: str, source: str = "the policy") -> Policy:
    """Read a policy and lay it over the default; `source` is what errors call it.

    Raises `PolicyWrong` with every fault.
    """
    return _read(text, source, default_policy())


def read_policy_over(text: str, base_text: str, source: str) -> Policy:
    """Read a policy as it was once laid over the default of its day; raises as `read_policy`.

    `base_text` is empty where it was the default itself.
    """
    base = _read(base_text, f"the default under {source}", None) if base_text else None
    return _read(text, source, base)


def read_policy_file(path: Path) -> Policy:
    """Read the policy in a file, as `read_policy` does.

    Raises `ConfigurationWrong` also where the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationWrong(
            f"the policy {path} cannot be read: {said}",
            hint="check the path and its permissions; a policy is a TOML file in UTF-8",
        ) from error
    if len(content) > _MAX_BYTES:
        raise ConfigurationWrong(
            f"the policy {path} has more than {_MAX_BYTES:,} bytes",
            hint="check the path; thousands of waivers fit into less",
        )
    return read_policy(text, str(path))


#: Far more than anybody writes, and little enough to be read at once.
_MAX_BYTES = 4 * 1024 * 1024


@cache
def default_policy() -> Policy:
    """Give the policy that comes with this program."""
    text = resources.files("pipeline").joinpath("policy.toml").read_text("utf-8")
    return _read(text, "the default policy", None)


# --- reading ------------------------------------------------------------------------------------
#
# Each function reads one table. Values that are wrong are kept by the document as faults and stood
# in for, so that the reading goes on to the next; a policy with a fault never gets out of `_read`.


def _read(text: str, source: str, base: Policy | None) -> Policy:
    """Read a policy, laid over `base`; None: it is the default itself."""
    try:
        document = Document(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyWrong(source, [f"it is not TOML: {error}"]) from error
    policy = _policy(document.root, text, base or Policy(text=text, rules={}))
    if document.faults:
        raise PolicyWrong(source, [str(fault) for fault in document.in_order])
    return msgspec.structs.replace(policy, base_text=base.text if base is not None else "")


def _policy(root: Table, text: str, base: Policy) -> Policy:
    rules = _rules(root.table("rules"), base.rules)
    policy = Policy(
        text=text,
        name=root.take("name", text_of, "unnamed"),
        owner_label=root.take("owner_label", text_of, base.owner_label),
        announce=root.take("announce_waivers", _duration, base.announce),
        population=_population(root.table("population"), base.population),
        thresholds=_laid_over(base.thresholds, root.table("thresholds")),
        scopes=tuple(_scope(table) for table in root.tables("clusters")),
        rules=rules,
        waivers=_waivers(root.tables("waivers"), rules),
    )
    root.close()
    return policy


def _rules(table: Table, base: dict[str, RuleTerms]) -> dict[str, RuleTerms]:
    """Read what is said about rules. Which there are, the default policy says: it has no base."""
    rules = dict(base)
    for rule_id in table.values:
        terms = table.table(rule_id)
        if not base:
            severity = terms.need("severity", _severity, Severity.CRITICAL)
            rules[rule_id] = _rule(terms, RuleTerms(severity))
        elif rule_id in base:
            rules[rule_id] = _rule(terms, base[rule_id])
        else:
            table.fault(rule_id, f"there is no such rule; {nearest(rule_id, base)}")
    return rules


def _rule(table: Table, base: RuleTerms) -> RuleTerms:
    flag = _only_true if table.path in _UNCHANGEABLE else flag_of
    terms = RuleTerms(
        severity=table.take("severity", _severity, base.severity),
        controls=table.take_all("controls", _control, base.controls),
        fails=table.take("fails", flag, base.fails),
        enabled=table.take("enabled", flag, base.enabled),
    )
    table.close()
    return terms


#: Without these PASS would not say any more what it says.
_UNCHANGEABLE = ("rules.restorable-false", "rules.restorable-not-reported")


def _only_true(value: object) -> bool:
    if value is True:
        return True
    raise Wrong(value, "true: PASS says that Atlas reports it restorable; waive the FAIL instead")


def _population(table: Table, base: PopulationTerms) -> PopulationTerms:
    terms = PopulationTerms(allowed_drop=table.take("allowed_drop", share_of, base.allowed_drop))
    table.close()
    return terms


def _laid_over(base: Thresholds, table: Table) -> Thresholds:
    changed: dict[str, Any] = _thresholds(table)
    table.close()
    return msgspec.structs.replace(base, **changed)


def _thresholds(table: Table) -> dict[str, timedelta | int | None]:
    """Read the thresholds that a table names."""
    read = {name: table.take(name, reader, None) for name, reader in _THRESHOLDS.items()}
    return {name: value for name, value in read.items() if name in table.values}


def _scope(table: Table) -> Scope:
    if not {"project", "cluster"} & set(table.values):
        table.fault("", "names no cluster; wanted `project`, `cluster` or both")
    scope = Scope(
        project=table.take("project", _project, "*"),
        cluster=table.take("cluster", _cluster, "*"),
        owner=table.take("owner", text_of, ""),
        thresholds=_thresholds(table),
    )
    table.close()
    if not set(table.values) - {"project", "cluster"}:
        table.fault("", "says nothing about its clusters; wanted `owner` or a threshold")
    return scope


def _waivers(tables: list[Table], rules: Mapping[str, RuleTerms]) -> tuple[Waiver, ...]:
    waivers: dict[str, Waiver] = {}
    paths: dict[str, str] = {}
    for table in tables:
        waiver = _waiver(table, rules)
        if waiver.id in waivers:
            table.fault("id", f'"{waiver.id}" is the id of {paths[waiver.id]} too')
        elif waiver.id:
            waivers[waiver.id], paths[waiver.id] = waiver, table.path
    return tuple(waivers.values())


def _waiver(table: Table, rules: Mapping[str, RuleTerms]) -> Waiver:
    waiver_id = table.need("id", _waiver_id, "")
    table.about = f"waiver {waiver_id}" if waiver_id else ""
    if not {"rules", "kinds"} & set(table.values):
        table.fault("", "excuses nothing; wanted `rules`, `kinds` or both")
    waiver = Waiver(
        id=waiver_id,
        reason=table.need("reason", text_of, ""),
        owner=table.need("owner", text_of, ""),
        approver=table.need("approver", text_of, ""),
        expires_on=table.need("expires", _last_day, date.min),
        rules=table.take_all("rules", partial(_rule_id, rules), (), least=1),
        kinds=table.take_all("kinds", _kind, (), least=1),
        project=table.take("project", _project, "*"),
        cluster=table.take("cluster", _cluster, "*"),
        checkpoints=table.take_all("checkpoints", _checkpoint, (), least=1),
    )
    table.close()
    return waiver


# --- values: each gives what a value means, or raises `Wrong` ------------------------------------


def _severity(value: object) -> Severity:
    if isinstance(value, str) and value in set(Severity):
        return Severity(value)
    raise Wrong(value, f"one of {', '.join(Severity)}")


def _control(value: object) -> str:
    """Controls are joined by semicolons in a column."""
    if isinstance(value, str) and value.strip() and ";" not in value:
        return value.strip()
    raise Wrong(value, "the name of a control with its edition, without a semicolon")


def _duration(value: object) -> timedelta:
    try:
        return duration_of(value if isinstance(value, str) else "")
    except ValueError as error:
        raise Wrong(
            value, 'a duration of at most 36500d, as "60s", "90m", "36h" or "7d"'
        ) from error


def _limit(value: object) -> timedelta | None:
    if value == NONE:
        return None
    try:
        return _duration(value)
    except Wrong as wrong:
        raise Wrong(value, _LIMIT) from wrong


def _limit_above_zero(value: object) -> timedelta | None:
    """Nothing is as new, as near or as short-lived as this, so that it can only be a slip."""
    limit = _limit(value)
    if limit == timedelta(0):
        raise Wrong(value, f"more than that: {_LIMIT}")
    return limit


#: Where a limit is set in general, this lifts it.
NONE = "none"
_LIMIT = f'a duration of at most 36500d, as "60s", "90m", "36h" or "7d", or "{NONE}"'


def _count(value: object) -> int:
    if value == NONE:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise Wrong(value, f'a whole number from 0 on, or "{NONE}"')


_THRESHOLDS: dict[str, Callable[[object], timedelta | int | None]] = {
    "rpo_age": _limit_above_zero,
    "gap": _limit_above_zero,
    "token_spread": _limit,
    "token_distance": _limit,
    "run_time": _limit,
    "retention": _limit_above_zero,
    "min_restorable": _count,
}


def _project(value: object) -> str:
    """Ids are lower-cased in the input too. A project's name would never match."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f*?\[\]!-]+", value.lower()):
        return value.lower()
    raise Wrong(value, "a project's id, 24 hexadecimal digits, or a glob of ids")


def _cluster(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_*?\[\]!-]+", value):
        return value
    raise Wrong(value, "a cluster's name, or a glob of names")


def _checkpoint(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{24}", value.lower()):
        return value.lower()
    raise Wrong(value, "a checkpoint's id, 24 hexadecimal digits")


def _waiver_id(value: object) -> str:
    """Ids stand in a column, several of them joined by commas, beside `retention`."""
    if isinstance(value, str) and _WAIVER_ID.fullmatch(value) and value != RETENTION:
        return value
    raise Wrong(value, f"up to 60 letters, digits and . _ - / # :, and not the word {RETENTION}")


_WAIVER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/#:-]{0,59}")


def _last_day(value: object) -> date:
    """Read a day; one that nobody will live to see is no expiry."""
    try:
        day = day_of(value)
    except Wrong as wrong:
        raise Wrong(value, _LAST_DAY) from wrong
    if day.year >= _NEVER:
        raise Wrong(value, _LAST_DAY)
    return day


_NEVER = 2100
_LAST_DAY = f"its last day, a date before {_NEVER} without quotes, as 2027-03-31"


def _rule_id(rules: Mapping[str, RuleTerms], value: object) -> str:
    if isinstance(value, str) and value in rules:
        return value
    raise Wrong(value, f"the id of a rule; {nearest(str(value), rules)}")


def _kind(value: object) -> FailureKind:
    if not isinstance(value, str) or value not in set(FailureKind):
        raise Wrong(value, f"a kind of failure; {nearest(str(value), _EXCUSABLE)}")
    if value not in EXCUSABLE_KINDS:
        raise Wrong(value, f"a kind that can be excused: {', '.join(_EXCUSABLE)}")
    return FailureKind(value)


#: In the order in which the kinds are declared.
_EXCUSABLE = [kind for kind in FailureKind if kind in EXCUSABLE_KINDS]
