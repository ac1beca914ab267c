"""The file for Prometheus: true to the outputs, whole at any time, kept after a failure."""

import json
import logging
import os
import stat
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline import __version__
from pipeline.metrics import (
    ClusterFigures,
    CountFigures,
    End,
    Figures,
    RunFigures,
    metrics_text,
    write_metrics,
)
from pipeline.published import Current, Manifest
from pipeline.runs import AuditFolder

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
RUN_ENDED = datetime(2026, 11, 20, 3, 30, tzinfo=UTC)
NEWEST = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
GROUP = "5f1e8a7c9b3d2e4f6a8b0c1d"

Samples = dict[str, float]


def figures(*clusters: ClusterFigures, complete: bool = True, left_out: int = 0) -> Figures:
    run, counts = RunFigures(RUN_ENDED, 2, 110, 3), CountFigures(90, 5, 3, 2)
    return Figures(run, counts, complete, 61.5, clusters, left_out)


def samples(text: str) -> Samples:
    """Every sample as `name{labels but audit}` → value, read by Prometheus' own parser."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for name, labels, value, *_ in family.samples:
            assert labels.pop("audit") == "nightly"
            marks = ",".join(f"{key}={labels[key]}" for key in sorted(labels))
            key = name.removeprefix("checkpoint_audit_") + (f"{{{marks}}}" if marks else "")
            assert key not in found
            found[key] = value
    return found


def test_every_figure() -> None:
    clusters = (ClusterFigures(GROUP, "bare", None, 0), ClusterFigures(GROUP, "orders", NEWEST, 2))
    text = metrics_text(End("nightly", NOW, 4, figures(*clusters, left_out=7), RUN_ENDED))
    bare, orders = (f"cluster_name={name},group_id={GROUP}" for name in ("bare", "orders"))

    assert samples(text) == {
        f"info{{version={__version__}}}": 1,
        "last_end_timestamp_seconds": NOW.timestamp(),
        "last_exit_code": 4,
        "last_published_timestamp_seconds": RUN_ENDED.timestamp(),
        "last_success_timestamp_seconds": RUN_ENDED.timestamp(),
        "rows{verdict=PASS}": 90,
        "rows{verdict=FAIL}": 5,
        "rows{verdict=ABSENT}": 3,
        "rows{verdict=INCONCLUSIVE}": 2,
        "bad_lines": 2,
        "requests": 110,
        "refusals": 3,
        "duration_seconds": 61.5,
        f"cluster_restorable{{{bare}}}": 0,
        f"cluster_restorable{{{orders}}}": 1,
        f"cluster_newest_restorable_timestamp_seconds{{{orders}}}": NEWEST.timestamp(),
        f"cluster_newest_restorable_age_seconds{{{orders}}}": 2.5 * 3600,
        "clusters_left_out": 7,
    }


def test_before_the_first_published_run() -> None:
    """What is not known is not there, rather than 0."""
    text = metrics_text(End("nightly", NOW, 77, None, None))

    assert samples(text) == {
        f"info{{version={__version__}}}": 1,
        "last_end_timestamp_seconds": NOW.timestamp(),
        "last_exit_code": 77,
    }


def test_two_projects_may_have_clusters_of_one_name() -> None:
    clusters = (
        ClusterFigures("a" * 24, "orders", NEWEST, 0),
        ClusterFigures("b" * 24, "orders", None, 0),
    )
    found = samples(metrics_text(End("nightly", NOW, 0, figures(*clusters), None)))

    assert found[f"cluster_restorable{{cluster_name=orders,group_id={'a' * 24}}}"] == 1
    assert found[f"cluster_restorable{{cluster_name=orders,group_id={'b' * 24}}}"] == 0


def test_a_cluster_of_which_too_little_is_known_is_neither() -> None:
    """One of its undetermined checkpoints may be restorable; it is not said to have none."""
    clusters = (ClusterFigures(GROUP, "away", None, 1), ClusterFigures(GROUP, "bare", None, 0))
    found = samples(metrics_text(End("nightly", NOW, 4, figures(*clusters), None)))

    restorable = {name: value for name, value in found.items() if "restorable" in name}
    assert restorable == {f"cluster_restorable{{cluster_name=bare,group_id={GROUP}}}": 0}


# --- from the outputs to the file ---------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> AuditFolder:
    found = AuditFolder(tmp_path, "nightly")
    found.prepare()
    return found


def publish(folder: AuditFolder, night: int, *, complete: bool, extra: Any = None) -> datetime:
    """Publish the run of a night; gives when it ended."""
    run_id, ended = f"202611{night:02}T030000Z-nightly-7f3a9c", RUN_ENDED.replace(day=night)
    run = folder.runs / run_id
    run.mkdir()
    summary = {
        "summary_version": 1,
        "run": {
            "run_id": run_id,
            "finished_at": ended.isoformat(),
            "bad_line_count": night,
            "request_count": 10,
            "refusal_count": 0,
        },
        "counts": {f"{name}_count": night for name in ("pass", "fail", "absent", "inconclusive")},
        "complete": complete,
        "duration_s": 60.0,
        "clusters": [],
        "clusters_left_out": 0,
        "not_known_yet": extra,
    }
    (run / "summary.json").write_text(json.dumps(summary), "utf-8")
    manifest = Manifest(
        run_id=run_id,
        audit_name="nightly",
        audit_date=ended.date(),
        parent_run_id=None,
        started_at=ended,
        finished_at=ended,
        base_url="https://cloud.mongodb.com",
        input_source="nightly.csv",
        input_sha256="0" * 64,
        credential_id="me",
        tool_version="9.9.9",
        triple_count=night,
        complete=complete,
        shortfalls=(),
        exit_code=0 if complete else 3,
        previous=None,
        files=(),
    )
    (run / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    folder.point(Current(run_id, date(2026, 11, night), f"runs/{run_id}", "0" * 64, 0, "1"))
    return ended


def written(folder: AuditFolder, path: Path, exit_code: int = 0) -> Samples:
    write_metrics(path, folder, NOW, exit_code)
    return samples(path.read_text("utf-8"))


def test_a_failure_keeps_what_the_last_run_found(folder: AuditFolder, tmp_path: Path) -> None:
    """Also where the metrics file is gone: the outputs are what counts."""
    ended = publish(folder, 19, complete=True)
    found = written(folder, tmp_path / "audit.prom", 69)

    assert found["last_exit_code"] == 69
    assert found["last_end_timestamp_seconds"] == NOW.timestamp()
    assert found["last_published_timestamp_seconds"] == ended.timestamp()
    assert found["last_success_timestamp_seconds"] == ended.timestamp()
    assert found["rows{verdict=PASS}"] == found["bad_lines"] == 19


def test_the_last_success_outlives_incomplete_nights(folder: AuditFolder, tmp_path: Path) -> None:
    publish(folder, 16, complete=True)
    ended = publish(folder, 17, complete=True)
    for night in (18, 19):
        last = publish(folder, night, complete=False)
    found = written(folder, tmp_path / "audit.prom", 3)

    assert found["last_success_timestamp_seconds"] == ended.timestamp()
    assert found["last_published_timestamp_seconds"] == last.timestamp()
    assert found["rows{verdict=PASS}"] == 19


def test_a_backfill_does_not_turn_the_figures_back(folder: AuditFolder, tmp_path: Path) -> None:
    """A run for an earlier day is published, but the current one stays so."""
    publish(folder, 19, complete=True)
    publish(folder, 12, complete=True)

    assert written(folder, tmp_path / "audit.prom")["rows{verdict=PASS}"] == 19


@pytest.mark.parametrize("damage", ["{", '{"run": {}}', None])
def test_a_summary_that_cannot_be_read(
    damage: str | None, folder: AuditFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The end is told all the same, and the last success; the gap is said."""
    publish(folder, 18, complete=True)
    ended = publish(folder, 19, complete=True)
    summary = folder.path / "current" / "summary.json"
    if damage is None:
        summary.unlink()
    else:
        summary.write_text(damage, "utf-8")
    found = written(folder, tmp_path / "audit.prom", 70)

    assert found["last_exit_code"] == 70
    assert found["last_success_timestamp_seconds"] == ended.timestamp()
    assert "rows{verdict=PASS}" not in found
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "without the figures" in caplog.text


def test_a_pointer_that_cannot_be_read(
    folder: AuditFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.path / "current.json").write_text("{", "utf-8")

    assert written(folder, tmp_path / "audit.prom", 73)["last_exit_code"] == 73
    assert "without figures" in caplog.text


def test_before_there_is_a_folder(tmp_path: Path) -> None:
    found = written(AuditFolder(tmp_path / "nowhere", "nightly"), tmp_path / "audit.prom", 77)

    assert found["last_exit_code"] == 77
    assert not (tmp_path / "nowhere").exists()


def test_replaced_at_once_and_readable(folder: AuditFolder, tmp_path: Path) -> None:
    """A collector that has the old file open reads it to its end; nothing is left beside."""
    place = tmp_path / "textfiles"
    place.mkdir()
    path = place / "audit.prom"
    before = os.umask(0o077)
    try:
        written(folder, path, 1)
        with path.open(encoding="utf-8") as old:
            written(folder, path, 2)
            assert samples(old.read())["last_exit_code"] == 1
    finally:
        os.umask(before)

    assert samples(path.read_text("utf-8"))["last_exit_code"] == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(place.iterdir()) == [path]


@pytest.mark.parametrize("place", ["nowhere/audit.prom", "a-folder", "a-file/audit.prom"])
def test_a_file_that_cannot_be_written_is_said(
    place: str, folder: AuditFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a-file").write_text("", "utf-8")
    write_metrics(tmp_path / place, folder, NOW, 0)

    assert len(caplog.records) == 1
    assert f"the metrics file {tmp_path / place} cannot be written: " in caplog.text
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays(is_there: bool, folder: AuditFolder, tmp_path: Path) -> None:
    """What it leads to is replaced, in its own folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target, link = elsewhere / "audit.prom", tmp_path / "link.prom"
    link.symlink_to("elsewhere/audit.prom")
    if is_there:
        target.write_text("old", "utf-8")

    assert written(folder, link)["last_exit_code"] == 0
    assert link.is_symlink()
    assert not target.is_symlink()
    assert list(elsewhere.iterdir()) == [target]


@pytest.mark.parametrize("kind", ["fifo", "loop", "empty"])
def test_what_is_no_regular_file_stays(
    kind: str,
    folder: AuditFolder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a device, or a pipe; an empty name is the folder that the process is in."""
    monkeypatch.chdir(tmp_path)
    path = Path() if kind == "empty" else tmp_path / "x.prom"
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "loop":
        path.symlink_to(path)
    before = path.lstat()
    write_metrics(path, folder, NOW, 0)

    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert caplog.messages == [
        f"the metrics file {path} cannot be written: it is not a regular file"
    ]


def test_a_summary_as_runs_write_it(folder: AuditFolder, tmp_path: Path) -> None:
    """Newer summaries may say more; the fields that are needed are those of a real one."""
    from pipeline.judgements import Cluster
    from pipeline.report import Summary
    from pipeline.report.summary import Counts, RunFacts

    publish(folder, 19, complete=True, extra={"of": "a later version"})
    assert written(folder, tmp_path / "audit.prom")["duration_seconds"] == 60
    assert set(Figures.__struct_fields__) <= set(Summary.__struct_fields__)
    assert set(CountFigures.__struct_fields__) <= set(Counts.__struct_fields__)
    assert set(RunFigures.__struct_fields__) <= set(RunFacts.__struct_fields__)
    assert set(ClusterFigures.__struct_fields__) <= set(Cluster.__struct_fields__)


def test_ages_are_of_the_run_not_of_the_end(folder: AuditFolder, tmp_path: Path) -> None:
    """A night that fails makes no checkpoint older: the timestamp is there for that."""
    made = figures(ClusterFigures(GROUP, "orders", RUN_ENDED - timedelta(seconds=5), 0))
    found = samples(metrics_text(End("nightly", NOW + timedelta(days=3), 69, made, None)))

    age = f"cluster_newest_restorable_age_seconds{{cluster_name=orders,group_id={GROUP}}}"
    assert found[age] == 5
