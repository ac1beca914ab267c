"""The command `demo`: the audit against the embedded simulator."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.audited import audited, say_published
from pipeline.loop import run_loop
from pipeline.options import LogFormat, LogFormatOption, NoProgress, OutputDir, Quiet

if TYPE_CHECKING:
    from pipeline.audit import Watcher
    from pipeline.demo import Comparison
    from pipeline.publication import Published
    from pipeline.simulator import Fleet

log = logging.getLogger("pipeline")


def demo(
    input_: Annotated[
        Path | None, typer.Argument(metavar="[INPUT]", help="Triples. Default: the sample.")
    ] = None,
    output_dir: OutputDir = Path("outputs"),
    log_format: LogFormatOption = LogFormat.TEXT,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Run the audit against the embedded simulator, over real HTTP; no account is needed.

    The sample holds every verdict, so the demo ends with 4; a triple that does not end as the
    sample expects, or a finding too many or too few, makes it end with 70 and publish nothing.
    """
    from pipeline import progress, talk
    from pipeline.demo import Comparison

    talk.set_up(log_format=log_format, quiet=quiet)
    watcher = progress.watcher(no_progress=no_progress, quiet=quiet, log_format=log_format)
    comparison = Comparison()
    published = run_loop(_demo(input_, output_dir, watcher, comparison))
    if comparison.planted:
        log.info("%s", comparison)
    log.info("exit %d means: %s", published.summary.exit_code, published.summary.exit_meaning)
    say_published(published, published.summary.exit_code, quiet=quiet)
    raise typer.Exit(published.summary.exit_code)


async def _demo(
    source: Path | None, output_dir: OutputDir, watcher: "Watcher", comparison: "Comparison"
) -> "Published":
    from pipeline.auth import Credentials, Kind
    from pipeline.settings import Settings
    from pipeline.simulator import Credentials as Simulated
    from pipeline.simulator import FaultPlan, Fleet, serve

    fleet, known = Fleet.demo(), Simulated()
    async with serve(fleet, faults=FaultPlan.demo(), credentials=known) as simulator:
        settings = Settings(
            source=str(source or _sample(output_dir, fleet)),
            output_dir=output_dir,
            audit_name="demo",
            credentials=Credentials(Kind.SERVICE_ACCOUNT, known.client_id, known.client_secret),
            base_url=simulator.base_url,
        )
        log.info("the simulator listens on %s", simulator.base_url)
        return await audited(settings, watcher, judged=comparison.check)


def _sample(output_dir: OutputDir, fleet: "Fleet") -> Path:
    from pipeline.simulator import sample_csv
    from pipeline.stored import audit_folder

    folder = audit_folder(output_dir, "demo")
    folder.prepare()
    path = folder.path / "sample.csv"
    path.write_text(sample_csv(fleet), "utf-8")
    return path
