"""The command `simulate`: the simulator by itself."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.audited import print_result
from pipeline.errors import ConfigurationWrong, OutputsUnwritable
from pipeline.loop import run_loop

if TYPE_CHECKING:
    from pipeline.simulator import BucketRules, FaultPlan, Fleet
    from pipeline.simulator.server import Simulator

log = logging.getLogger("pipeline")


class Refill(StrEnum):
    """How a bucket of the simulator fills up again."""

    STEPPED = "stepped"
    CONTINUOUS = "continuous"


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same fleet and faults.")] = 7,
    projects: Annotated[int, typer.Option(min=1)] = 6,
    clusters: Annotated[int, typer.Option(min=1, help="A project.")] = 3,
    checkpoints: Annotated[int, typer.Option(min=1, help="A cluster.")] = 12,
    faults: Annotated[
        str, typer.Option(help="none, nightly, demo (with the demo's fleet), or a TOML file.")
    ] = "none",
    write_triples: Annotated[
        Path | None, typer.Option(help="Write the fleet's triples to this CSV file.")
    ] = None,
    latency: Annotated[float, typer.Option(min=0.0, help="Seconds an answer takes.")] = 0.0,
    capacity: Annotated[int, typer.Option(min=1, help="Of each project's bucket.")] = 1200,
    refill_rate: Annotated[int, typer.Option(min=1, help="Requests a refill.")] = 500,
    refill_seconds: Annotated[float, typer.Option(min=0.1, help="Between refills.")] = 60.0,
    refill: Annotated[Refill, typer.Option(help="In steps or all the time.")] = Refill.STEPPED,
) -> None:
    """Serve the simulator on loopback until a signal ends it."""
    from pipeline import talk
    from pipeline.simulator import BucketRules, Fleet

    talk.set_up()
    fleet = (
        Fleet.demo()
        if faults == "demo"
        else Fleet.seeded(seed, projects=projects, clusters=clusters, checkpoints=checkpoints)
    )
    plan = _fault_plan(faults, fleet, seed)
    if write_triples is not None:
        _write_triples(fleet, plan, write_triples)
    rules = BucketRules(
        capacity=capacity,
        refill_rate=refill_rate,
        refill_duration=refill_seconds,
        shape=refill.value,
    )
    run_loop(_simulate(fleet, plan, rules, port, latency))


def _write_triples(fleet: "Fleet", plan: "FaultPlan", path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            fleet.write_triples(file, plan)
    except OSError as error:
        raise OutputsUnwritable(
            f"{path} cannot be written: {error.strerror}", hint="check --write-triples"
        ) from error


def _fault_plan(name: str, fleet: "Fleet", seed: int) -> "FaultPlan":
    from pipeline.simulator import FaultPlan

    known: dict[str, Callable[[], FaultPlan]] = {
        "none": FaultPlan.none,
        "demo": FaultPlan.demo,
        "nightly": lambda: FaultPlan.nightly(fleet, seed),
    }
    try:
        return known[name]() if name in known else FaultPlan.parse(Path(name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationWrong(
            f"--faults {name}: {error}", hint="none, nightly, demo, or a TOML file"
        ) from error


async def _simulate(
    fleet: "Fleet", plan: "FaultPlan", rules: "BucketRules", port: int, latency: float
) -> None:
    from pipeline.simulator import Credentials, serve

    known = Credentials()
    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _resolve, stopped, number)
    async with _serving(
        serve(fleet, faults=plan, buckets=rules, credentials=known, port=port, latency=latency)
    ) as simulator:
        print_result(f"listening on {simulator.base_url}")
        log.info("its credentials are not secret:")
        log.info("export MONGODB_ATLAS_CLIENT_ID=%s", known.client_id)
        log.info("export MONGODB_ATLAS_CLIENT_SECRET=%s", known.client_secret)
        log.info("export MONGODB_ATLAS_BASE_URL=%s", simulator.base_url)
        signal_number = await stopped
    log.info("stopped by signal %d", signal_number)
    raise typer.Exit(128 + signal_number)


@asynccontextmanager
async def _serving(server: "AbstractAsyncContextManager[Simulator]") -> "AsyncIterator[Simulator]":
    async with AsyncExitStack() as stack:
        try:
            simulator = await stack.enter_async_context(server)
        except OSError as error:
            raise ConfigurationWrong(
                f"the simulator cannot listen: {error.strerror}",
                hint="choose another --port, or leave it out for a free one",
            ) from error
        yield simulator


def _resolve(stopped: "asyncio.Future[int]", number: int) -> None:
    if not stopped.done():
        stopped.set_result(number)
