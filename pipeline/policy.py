"""The policy: what each rule is worth, and which controls its result bears on.

A policy is TOML text; the one in force is kept with the evidence exactly as it was read. For now
there is one, the default; `findings` asks it about every rule by its id.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from datetime import date, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec

from pipeline.errors import ConfigurationWrong
from pipeline.outcomes import FailureKind


class Severity(StrEnum):
    """How bad a finding is, worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class RuleTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a policy says about one rule; `fails`: that what it objects to is a FAIL."""

    severity: Severity
    controls: tuple[str, ...] = ()
    fails: bool = True


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules compare with; None: not judged.

    `rpo_age`: of the newest restorable point; `gap`: between two neighbouring ones;
    `token_spread`: from a checkpoint's first token to its last; `token_distance`: from its
    `timestamp` to any token; `run_time`: from `started` to `completed`; `retention`: how long
    checkpoints are kept; `min_restorable`: checkpoints of a cluster that pass.
    """

    rpo_age: timedelta | None = None
    gap: timedelta | None = None
    token_spread: timedelta | None = None
    token_distance: timedelta | None = None
    run_time: timedelta | None = None
    retention: timedelta | None = None
    min_restorable: int = 1


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy says about the clusters that two globs name: owner, and changed thresholds."""

    project: str = "*"
    cluster: str = "*"
    owner: str = ""
    thresholds: dict[str, timedelta | int] = {}


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


class PopulationTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a policy says about the population.

    `allowed_drop` is the share, from 0 to 1, of the triples of the last complete run that may be
    gone before a run is not complete.
    """

    allowed_drop: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rules: dict[str, RuleTerms]
    population: PopulationTerms = PopulationTerms()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy as read, with its text.

    `owner_label` names the input's column that says who owns a cluster, for those that no scope
    has an owner for. A waiver is announced `announce` before it lapses. Later `scopes` go before
    earlier ones, threshold by threshold.
    """

    text: str
    rules: dict[str, RuleTerms]
    name: str = "default"
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


def read_policy(text: str, source: str = "the policy") -> Policy:
    """Read a policy; `source` is what errors call it.

    Raises `ConfigurationWrong` naming the line or the key at fault.
    """
    try:
        document = msgspec.convert(tomllib.loads(text), _Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigurationWrong(f"{source} cannot be used: {error}") from error
    return Policy(text=text, rules=document.rules, population=document.population)


def read_policy_file(path: Path) -> Policy:
    """Read the policy in a file, as `read_policy` does.

    Raises `ConfigurationWrong` also where the file cannot be read.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationWrong(f"the policy {path} cannot be read: {said}") from error
    return read_policy(text, str(path))


def default_policy() -> Policy:
    """Give the policy that comes with this program."""
    return read_policy(resources.files("pipeline").joinpath("policy.toml").read_text("utf-8"))
