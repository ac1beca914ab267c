"""The policy: what each rule is worth, and which controls its result bears on.

A policy is TOML text; the one in force is kept with the evidence exactly as it was read. For now
there is one, the default; `findings` asks it about every rule by its id.
"""

import hashlib
import tomllib
from enum import StrEnum
from importlib import resources
from typing import Annotated

import msgspec

from pipeline.errors import ConfigurationWrong


class Severity(StrEnum):
    """How bad a finding is, worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class RuleTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a policy says about one rule."""

    severity: Severity
    controls: tuple[str, ...] = ()


class PopulationTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a policy says about the population.

    `allowed_drop` is the share, from 0 to 1, of the triples of the last complete run that may be
    gone before a run is not complete.
    """

    allowed_drop: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rules: dict[str, RuleTerms]
    population: PopulationTerms = PopulationTerms()


class Policy(msgspec.Struct, frozen=True):
    """A policy as read, with its text."""

    text: str
    rules: dict[str, RuleTerms]
    population: PopulationTerms = PopulationTerms()

    @property
    def sha256(self) -> str:
        """The digest of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_policy(text: str) -> Policy:
    """Read a policy.

    Raises `ConfigurationWrong` naming the line or the key at fault.
    """
    try:
        document = msgspec.convert(tomllib.loads(text), _Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigurationWrong(f"the policy cannot be used: {error}") from error
    return Policy(text, document.rules, document.population)


def default_policy() -> Policy:
    """Give the policy that comes with this program."""
    return read_policy(resources.files("pipeline").joinpath("policy.toml").read_text("utf-8"))
