"""The rate scenarios: how many triples in which projects, against buckets of which kind.

Sizes are such that the longest takes about four minutes, which is what buckets refilled by the
minute need to show anything.
"""

import math
from dataclasses import dataclass
from typing import Literal

from tests.benchmarks.triples import zipf_sizes

REFILL_DURATION_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario; `sizes` are the triples of each project.

    `drain` is what another client takes of every bucket, in tokens a second; `readable` says
    whether Atlas tells its limits.
    """

    name: str
    sizes: tuple[int, ...]
    capacity: int = 1200
    refill_rate: int = 500
    shape: Literal["stepped", "continuous"] = "stepped"
    drain: float = 0.0
    readable: bool = True

    @property
    def ideal_s(self) -> float:
        """Seconds in which nobody can be faster: the largest project's, spending its whole quota.

        A drain is not subtracted: it takes what lies in the bucket, and who is ideal leaves
        nothing lying there.
        """
        return max(self._ideal_s(size) for size in self.sizes)

    def _ideal_s(self, size: int) -> float:
        refills = max(0.0, (size - self.capacity) / self.refill_rate)
        return REFILL_DURATION_S * (math.ceil(refills) if self.shape == "stepped" else refills)


_ZIPF = tuple(zipf_sizes(20, 10_000))

SCENARIOS = (
    Scenario(name="one project", sizes=(2780,)),
    Scenario(name="20 projects, Zipf sizes", sizes=_ZIPF),
    Scenario(name="20 projects, Zipf sizes, limits not readable", sizes=_ZIPF, readable=False),
    Scenario(name="20 projects, Zipf sizes, continuous", sizes=_ZIPF, shape="continuous"),
    Scenario(
        name="20 projects, Zipf sizes, continuous, limits not readable",
        sizes=_ZIPF,
        shape="continuous",
        readable=False,
    ),
    Scenario(name="another client takes 4 a second", sizes=(1900,), drain=4.0),
    Scenario(name="a tenth of the documented bucket", sizes=(300,), capacity=120, refill_rate=50),
    Scenario(
        name="a tenth of the documented bucket, limits not readable",
        sizes=(300,),
        capacity=120,
        refill_rate=50,
        readable=False,
    ),
)
