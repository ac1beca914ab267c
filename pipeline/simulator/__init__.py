"""An embedded MongoDB Atlas for people without an account.

It speaks real HTTP on the loopback interface, over a seeded fleet, with token buckets, three kinds
of credentials and a plan of faults. It shares no code with the rest of the package: it is a second,
independent reading of the API, so that the two can disagree.

    async with serve(Fleet.demo(), faults=FaultPlan.demo()) as simulator:
        print(simulator.base_url)
"""

from __future__ import annotations

from pipeline.simulator.buckets import BucketRules
from pipeline.simulator.credentials import Credentials
from pipeline.simulator.faults import FaultPlan
from pipeline.simulator.fleet import Fleet
from pipeline.simulator.sample import sample_csv
from pipeline.simulator.server import serve

__all__ = ["BucketRules", "Credentials", "FaultPlan", "Fleet", "sample_csv", "serve"]
