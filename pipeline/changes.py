"""What changed between two runs of one audit, told apart by who changed it."""

from enum import StrEnum

import msgspec

from pipeline.outcomes import Verdict


class ChangeKind(StrEnum):
    """How a triple stands to what it was in the run before."""

    NEW = "new"
    GONE = "gone"
    BECAME_UNRESTORABLE = "became_unrestorable"
    RECOVERED = "recovered"
    STILL_FAILING = "still_failing"
    NEWLY_INCONCLUSIVE = "newly_inconclusive"


class Cause(StrEnum):
    """Who made a triple's verdict another one: Atlas's answers, or the rules and the policy."""

    ATLAS = "atlas"
    RULES = "rules"


class Change(msgspec.Struct, frozen=True):
    """One triple that is not as it was, or still failing.

    `before` and `after` are None where the triple was not part of that run; `since` is the audit
    date of the first of the consecutive runs in which it fails, ISO 8601.
    """

    kind: ChangeKind
    group_id: str
    cluster_name: str
    checkpoint_id: str
    before: Verdict | None
    after: Verdict | None
    cause: Cause = Cause.ATLAS
    since: str | None = None


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What changed since an earlier run; `shown` are the first few of each kind, worst first.

    `rules_changed` says that rules or policy differ between the two: the older evidence was then
    judged by the newer ones (`is_rejudged`), or could not be, as `note` says.
    """

    since_run_id: str
    since_audit_date: str
    counts: dict[ChangeKind, int]
    by_rules: dict[ChangeKind, int]
    shown: tuple[Change, ...]
    left_out: int
    rules_changed: bool = False
    is_rejudged: bool = False
    note: str = ""
