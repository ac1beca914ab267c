"""What goes wrong, and what an audit should make of it.

A plan is a value. Three layers of it lie over the fleet, the outer ones first:

* the run: an account suspended, a version withdrawn; nothing can be learned about anything.
* a project, or a checkpoint, for good or for a time; what is asked of it stays inconclusive.
* an ask now and then, which goes well when repeated; the checkpoint's own verdict still stands.

`Troubles` is a plan at work: it counts and it looks at the clock.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from pipeline.simulator.chance import draw, shuffled
from pipeline.simulator.fleet import Fleet, Triple
from pipeline.simulator.sample import TROUBLED

if TYPE_CHECKING:
    from collections.abc import Callable, Container

Transient = Literal[
    "500",
    "502-html",
    "503",
    "503-retry-after",
    "429",
    "429-no-retry-after",
    "429-zero",
    "429-date",
    "429-no-headers",
    "empty-200",
    "text-200",
    "cut-json",
    "cut-body",
    "reset",
    "slow",
]
"""Kinds that pass: the next ask of the same path is answered.

cut-json is a body cut in the middle whose length is right for what was sent; cut-body announces
more than it sends and closes; reset closes before any answer; slow answers late, but well.
"""

Lasting = Literal["always-500", "gone", "gzip-bomb", "html-200", "oversized", "redirect", "teapot"]
"""Kinds that one checkpoint keeps for good."""

Misery = Literal["down", "hangs", "refuses", "throttled", "unauthorized"]
"""Kinds that a whole project has: 503, no answer at all, 403, 429, and 401 for a missing role."""

RunWide = Literal["access_list", "account_suspended", "maintenance", "withdrawn"]

TRANSIENT: tuple[Transient, ...] = get_args(Transient)
LASTING: tuple[Lasting, ...] = get_args(Lasting)
RUN_WIDE: tuple[RunWide, ...] = get_args(RunWide)

HOUR_S = 3600
LASTING_EVERY = 10_000


class ProjectFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is wrong with a project.

    `retry_after` (seconds) is what `throttled` and `down` advise; None sends no such header.
    `seconds` is how long it lasts from the first ask of the project on; None is for ever.
    """

    kind: Misery
    retry_after: int | None = None
    seconds: float | None = None


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong, and when; the fields are the keys of its TOML document.

    seed, rate, kinds: the share of paths (0 to 1) whose first asks meet a transient fault, and
        which kinds there are to meet.
    repeats: how many asks of such a path in a row go wrong.
    slow_s: seconds that the kind `slow` takes. retry_after: seconds that transient faults advise.
    stray_401_at: the number (from 1) of the one API request that is answered 401 out of the blue.
    projects: faults by group id. checkpoints: lasting kinds by checkpoint id.
    account_suspended, access_list, withdrawn, maintenance: every API request is answered 402,
        403, 410 or 503.
    revoke_after: after so many API requests every credential is answered 401.
    rate_limits_refused: the rate-limit resource answers 403.
    page_shift: a cluster's list changes while it is read: once its second or a later page is asked
        for, every page, the first one too, begins so many items late, as when the first ones are
        deleted (below zero: early, as when some are added). count_error: is added to every
        totalCount of such a list.
    deprecated_on, sunset_on: moments that good answers announce in Deprecation and Sunset headers.
    """

    seed: int = 7
    rate: float = 0.0
    kinds: tuple[Transient, ...] = TRANSIENT
    repeats: int = 1
    slow_s: float = 0.2
    retry_after: int = 1
    stray_401_at: int | None = None
    projects: dict[str, ProjectFault] = {}
    checkpoints: dict[str, Lasting] = {}
    account_suspended: bool = False
    access_list: bool = False
    withdrawn: bool = False
    maintenance: bool = False
    revoke_after: int | None = None
    rate_limits_refused: bool = False
    page_shift: int = 0
    count_error: int = 0
    deprecated_on: datetime | None = None
    sunset_on: datetime | None = None

    def __post_init__(self) -> None:
        """Check what types cannot say; raises ValueError."""
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is a share from 0 to 1, not {self.rate}")
        if self.rate and not self.kinds:
            raise ValueError("kinds is empty, so there is nothing for rate to choose from")
        if any(moment.tzinfo is None for moment in self.notices.values()):
            raise ValueError("deprecated_on and sunset_on need a time zone")

    @classmethod
    def none(cls) -> FaultPlan:
        """Return the plan in which nothing goes wrong."""
        return cls()

    @classmethod
    def demo(cls) -> FaultPlan:
        """Return the demo's plan: two projects of its fleet in trouble, some hiccups elsewhere."""
        refusing, throttled = Fleet.demo().projects[-TROUBLED:]
        return cls(
            rate=0.15,
            kinds=("500", "502-html", "503", "empty-200", "cut-body", "reset"),
            projects={
                refusing.group_id: ProjectFault("refuses"),
                throttled.group_id: ProjectFault("throttled", retry_after=HOUR_S),
            },
        )

    @classmethod
    def nightly(cls, fleet: Fleet, seed: int, rate: float = 0.05) -> FaultPlan:
        """Return a plan with something of everything that a whole night may bring.

        Every transient kind, one stray 401, every lasting kind on a checkpoint or more, and, in a
        fleet of four projects or more, one that refuses with 403 and one with 401.
        """
        refused = _refused(fleet, seed) if len(fleet.projects) >= 2 * TROUBLED else {}
        return cls(
            seed=seed,
            rate=rate,
            stray_401_at=max(2, len(fleet) // 2),
            projects=refused,
            checkpoints=_lasting(fleet, seed, refused),
        )

    @classmethod
    def parse(cls, text: str) -> FaultPlan:
        """Read a plan from a TOML document whose keys are this class's fields.

        Raises ValueError that names what is unknown or of the wrong type.
        """
        try:
            return msgspec.convert(tomllib.loads(text), cls)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as trouble:
            raise ValueError(f"not a plan of faults: {trouble}") from trouble

    @property
    def notices(self) -> dict[str, datetime]:
        """The headers of good answers that announce an end, and their moments."""
        dates = {"Deprecation": self.deprecated_on, "Sunset": self.sunset_on}
        return {name: moment for name, moment in dates.items() if moment is not None}

    @property
    def run_wide(self) -> RunWide | None:
        """What is wrong with everything, or None."""
        return next((kind for kind in RUN_WIDE if getattr(self, kind)), None)

    def expected(self, triple: Triple) -> str:
        """Return the verdict that a sound audit reaches about a triple under this plan.

        A project's fault that passes (`seconds`) changes nothing: an audit can wait for its end.
        `revoke_after` is not looked at: what was answered before it depends on the auditor's order.
        """
        fault = self.projects.get(triple.group_id)
        lost = (
            self.run_wide is not None
            or (fault is not None and fault.seconds is None)
            or triple.checkpoint_id in self.checkpoints
        )
        return "INCONCLUSIVE" if lost else triple.expected_verdict


class Troubles:
    """A plan at work in one server; `clock` returns seconds and never goes back."""

    def __init__(self, plan: FaultPlan, clock: Callable[[], float]) -> None:
        self.plan = plan
        self._clock = clock
        self._asked: Counter[str] = Counter()
        self._first_asked: dict[str, float] = {}
        self._requests = 0

    def strays(self) -> bool:
        """Count one API request and say whether it is the one to refuse out of the blue."""
        self._requests += 1
        return self._requests == self.plan.stray_401_at

    def of_project(self, group_id: str) -> tuple[ProjectFault, float | None] | None:
        """Return what is wrong with a project now, and the seconds left of it (None: for ever)."""
        fault = self.plan.projects.get(group_id)
        if fault is None or fault.seconds is None:
            return None if fault is None else (fault, None)
        now = self._clock()
        left = self._first_asked.setdefault(group_id, now) + fault.seconds - now
        return (fault, left) if left > 0 else None

    def of_path(self, path: str) -> Transient | None:
        """Return what goes wrong with this ask of a path, if anything."""
        plan = self.plan
        if not plan.rate or draw(1_000_000, plan.seed, "meets", path) >= plan.rate * 1_000_000:
            return None
        # Only the paths chosen are counted: the others, nearly all, cost no memory.
        self._asked[path] += 1
        if self._asked[path] > plan.repeats:
            return None
        return plan.kinds[draw(len(plan.kinds), plan.seed, "kind", path)]


def _refused(fleet: Fleet, seed: int) -> dict[str, ProjectFault]:
    forbidden, unauthorized = shuffled(fleet.projects, seed, "refused")[:TROUBLED]
    return {
        forbidden.group_id: ProjectFault("refuses"),
        unauthorized.group_id: ProjectFault("unauthorized"),
    }


def _lasting(fleet: Fleet, seed: int, spared: Container[str]) -> dict[str, Lasting]:
    """Give every lasting kind to one checkpoint in `LASTING_EVERY`, and to one at least.

    Projects to be spared refuse everything anyhow, so that a fault there would never be seen.
    """
    wanted = min(len(fleet), len(LASTING) * max(1, len(fleet) // LASTING_EVERY))
    chosen: dict[str, Lasting] = {}
    # A bound, since a small fleet may not have as many places as are wanted.
    for attempt in range(20 * wanted):
        triple = fleet.triple(draw(len(fleet), seed, "lasting", attempt))
        seen = fleet.project(triple.group_id) is not None and triple.group_id not in spared
        if seen and len(chosen) < wanted:
            chosen.setdefault(triple.checkpoint_id, LASTING[len(chosen) % len(LASTING)])
    return chosen
