"""Figures of an audit for Prometheus: the file that node_exporter's textfile collector reads.

    figures of the audit's outputs + this end → values → text → a file, replaced at once

Nothing is taken from the file as it was: what is said of the last runs comes from their own
outputs, so that it is true again after the file was lost, and kept after a run that failed.
"""

import errno
import logging
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline import __version__
from pipeline.errors import AuditError
from pipeline.runs import AuditFolder

log = logging.getLogger(__name__)

_PREFIX = "checkpoint_audit_"


class ClusterFigures(msgspec.Struct, frozen=True):
    """One cluster, as a run's summary has it."""

    group_id: str
    cluster_name: str
    newest_restorable_at: datetime | None
    inconclusive_count: int

    @property
    def is_restorable(self) -> bool | None:
        """Whether it has a restorable checkpoint; None where one may be among the undetermined."""
        if self.newest_restorable_at is not None:
            return True
        return None if self.inconclusive_count else False


class CountFigures(msgspec.Struct, frozen=True):
    """Triples by verdict, as a run's summary has them."""

    pass_count: int
    fail_count: int
    absent_count: int
    inconclusive_count: int


class RunFigures(msgspec.Struct, frozen=True):
    """What a run's summary says about the run itself."""

    finished_at: datetime
    bad_line_count: int
    request_count: int
    refusal_count: int


class Figures(msgspec.Struct, frozen=True):
    """What is needed of a run's `summary.json`; other versions of it may say more."""

    run: RunFigures
    counts: CountFigures
    complete: bool
    duration_s: float
    clusters: tuple[ClusterFigures, ...]
    clusters_left_out: int


class End(NamedTuple):
    """How a run ended, and what is known of the audit's runs so far.

    `current` is None before the first published run, `last_success` before the first complete one.
    """

    audit_name: str
    at: datetime
    exit_code: int
    current: Figures | None
    last_success: datetime | None


class _Metric(NamedTuple):
    """One metric: its name after the prefix, what it means, label names after `audit`, samples."""

    name: str
    meaning: str
    labels: tuple[str, ...]
    samples: Sequence[tuple[tuple[str, ...], float]]


def metrics_text(end: End) -> str:
    """Give the text of the file, in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    for metric in _metrics(end):
        gauge = Gauge(
            _PREFIX + metric.name, metric.meaning, ("audit", *metric.labels), registry=registry
        )
        for values, number in metric.samples:
            gauge.labels(end.audit_name, *values).set(number)
    return generate_latest(registry).decode()


def _metrics(end: End) -> Iterator[_Metric]:
    """All metrics. Gauges, each of them: a number tells of one run and may be less the next."""
    yield _Metric("info", "Version of the program.", ("version",), [((__version__,), 1)])
    yield _plain(
        "last_end_timestamp_seconds", "When a run last ended, whichever way.", _unix(end.at)
    )
    yield _plain("last_exit_code", "How it ended.", end.exit_code)
    if end.last_success is not None:
        yield _plain(
            "last_success_timestamp_seconds",
            "When the last complete run (exit 0 or 1) ended.",
            _unix(end.last_success),
        )
    if end.current is not None:
        yield from _of_run(end.current)
        yield from _of_clusters(end.current)


def _of_run(figures: Figures) -> Iterator[_Metric]:
    run, counts = figures.run, figures.counts
    yield _plain(
        "last_published_timestamp_seconds",
        "When the current run ended; the metrics below are its figures.",
        _unix(run.finished_at),
    )
    verdicts = {
        "PASS": counts.pass_count,
        "FAIL": counts.fail_count,
        "ABSENT": counts.absent_count,
        "INCONCLUSIVE": counts.inconclusive_count,
    }
    rows = [((verdict,), count) for verdict, count in verdicts.items()]
    yield _Metric("rows", "Checkpoints by verdict.", ("verdict",), rows)
    yield _plain("bad_lines", "Lines of the input that could not be used.", run.bad_line_count)
    yield _plain("requests", "Requests to Atlas.", run.request_count)
    yield _plain("refusals", "Requests that a rate limit refused.", run.refusal_count)
    yield _plain("duration_seconds", "From the run's start to its end.", figures.duration_s)


def _of_clusters(figures: Figures) -> Iterator[_Metric]:
    labels = ("group_id", "cluster_name")
    names = {cluster: (cluster.group_id, cluster.cluster_name) for cluster in figures.clusters}
    newest = [
        (name, cluster.newest_restorable_at)
        for cluster, name in names.items()
        if cluster.newest_restorable_at is not None
    ]
    yield _Metric(
        "cluster_restorable",
        "1: the run saw a restorable checkpoint of the cluster. 0: it saw none, and judged all.",
        labels,
        [
            (name, cluster.is_restorable)
            for cluster, name in names.items()
            if cluster.is_restorable is not None
        ],
    )
    yield _Metric(
        "cluster_newest_restorable_timestamp_seconds",
        "Time of the cluster's newest restorable checkpoint.",
        labels,
        [(name, _unix(at)) for name, at in newest],
    )
    yield _Metric(
        "cluster_newest_restorable_age_seconds",
        "Age of the cluster's newest restorable checkpoint at the run's end.",
        labels,
        [(name, (figures.run.finished_at - at).total_seconds()) for name, at in newest],
    )
    yield _plain(
        "clusters_left_out",
        "Clusters without metrics of their own: the worst come first.",
        figures.clusters_left_out,
    )


def _plain(name: str, meaning: str, number: float) -> _Metric:
    return _Metric(name, meaning, (), [((), number)])


def _unix(at: datetime) -> float:
    return at.timestamp()


# --- reading and writing ------------------------------------------------------------------------


def write_metrics(path: Path, folder: AuditFolder, at: datetime, exit_code: int) -> None:
    """Write the file as it is after an end at `at` with `exit_code`.

    What goes wrong is said, on a line that --quiet lets through, and raises nothing: a run has
    ended as it has.
    """
    end = End(folder.path.name, at, exit_code, _read_current(folder), _read_last_success(folder))
    try:
        _replace(path, metrics_text(end))
    except OSError as error:
        _say("the metrics file %s cannot be written: %s", path, error.strerror or error)


def _say(message: str, *values: object) -> None:
    log.error(message, *values, extra={"unquiet": True})


def _replace(path: Path, text: str) -> None:
    """Put the text in place of the file at once; a collector reads only what ends in .prom.

    A link stays, and what it leads to is replaced; what is no file, as a device, is not.
    """
    path = Path(os.path.realpath(path))
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # The collector is another user, whom mkstemp shuts out.
        draft.chmod(0o644)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _read_current(folder: AuditFolder) -> Figures | None:
    try:
        current = folder.current()
    except AuditError as error:
        _say("the metrics are without figures: %s", error)
        return None
    return None if current is None else _read_figures(folder.path / current.path)


def _read_figures(run: Path) -> Figures | None:
    try:
        return msgspec.json.decode((run / "summary.json").read_bytes(), type=Figures)
    except (OSError, msgspec.MsgspecError) as error:
        _say("the metrics are without the figures of %s: %s", run, error)
        return None


def _read_last_success(folder: AuditFolder) -> datetime | None:
    """When the last complete run ended."""
    ends = [run.manifest.finished_at for run in folder.published() if run.manifest.complete]
    return max(ends, default=None)
