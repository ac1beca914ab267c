"""Published runs: how they are named, and that their files are as they were published."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest

from pipeline.digests import sha256_of
from pipeline.errors import AuditError, InputMissing, InputUnusable, OutputsUnwritable
from pipeline.published import Current, Manifest, find_run, read_current, read_run

NIGHT = datetime(2026, 11, 20, 3, tzinfo=UTC)
RUN_ID = "20261120T030000Z-nightly-7f3a9c"


def publish(outputs: Path, run_id: str = RUN_ID, audit: str = "nightly") -> Path:
    """A run of one small file, which is current."""
    run = outputs / audit / "runs" / run_id
    (run / "evidence").mkdir(parents=True)
    (run / "evidence/policy.toml").write_text("[rules]\n")
    digest = sha256_of(run / "evidence/policy.toml")
    manifest = {
        "manifest_version": 1,
        "run_id": run_id,
        "audit_name": audit,
        "audit_date": "2026-11-20",
        "parent_run_id": None,
        "started_at": NIGHT.isoformat(),
        "finished_at": NIGHT.isoformat(),
        "base_url": "https://cloud.mongodb.com",
        "input_source": "nightly.csv",
        "input_sha256": "0" * 64,
        "credential_id": "me",
        "tool_version": "9.9.9",
        "triple_count": 3,
        "complete": True,
        "shortfalls": [],
        "exit_code": 0,
        "previous": None,
        "files": [{"path": "evidence/policy.toml", "rows": None, "bytes": 8, "sha256": digest}],
    }
    (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    current = Current(run_id, date(2026, 11, 20), f"runs/{run_id}", "0" * 64, 0, "1")
    (outputs / audit / "current.json").write_bytes(msgspec.json.encode(current))
    return run


def test_a_run_is_found_by_its_audit_its_id_and_its_folder(tmp_path: Path) -> None:
    run = publish(tmp_path)
    publish(tmp_path, "20261121T030000Z-weekly-000000", "weekly")

    for named in ("nightly", RUN_ID, str(run)):
        assert find_run(tmp_path, named).path == run
    assert find_run(tmp_path, "weekly").run_id == "20261121T030000Z-weekly-000000"
    assert find_run(tmp_path / "elsewhere", str(run)).run_id == RUN_ID


@pytest.mark.parametrize(
    "named", ["weekly", "2026*", "", ".", "..", "../nightly", "nightly/runs", "[n]ightly"]
)
def test_what_names_no_run(named: str, tmp_path: Path) -> None:
    publish(tmp_path)
    with pytest.raises(InputMissing, match="there is no run"):
        find_run(tmp_path, named)


def test_a_name_that_no_file_system_has(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for named in ("x" * 300, f"./{'x' * 300}"):
        with pytest.raises(InputMissing, match="cannot be looked up: File name too long"):
            find_run(tmp_path, named)
    for named in ("loop", str(tmp_path / "loop")):
        with pytest.raises(InputMissing, match="there is no run"):
            find_run(tmp_path, named)


def test_the_manifest_is_read(tmp_path: Path) -> None:
    manifest = read_run(publish(tmp_path)).manifest

    assert isinstance(manifest, Manifest)
    assert (manifest.triple_count, manifest.complete) == (3, True)
    assert manifest.audit_date == date(2026, 11, 20)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": 1}', "\udcff"])
def test_a_manifest_that_cannot_be_used(text: str, tmp_path: Path) -> None:
    run = publish(tmp_path)
    (run / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputUnusable, match=r"manifest\.json cannot be read"):
        read_run(run)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputMissing):
            read_run(folder)


def test_files_are_as_they_were_published(tmp_path: Path) -> None:
    path = publish(tmp_path)
    run = read_run(path)
    policy = path / "evidence/policy.toml"
    assert run.files("evidence") == [policy]
    assert run.file("evidence/policy.toml") == policy
    assert run.files("evid") == []

    policy.write_text("[rulez]\n")
    for read in (lambda: run.files("evidence"), lambda: run.file("evidence/policy.toml")):
        with pytest.raises(InputUnusable, match="is not as it was published"):
            read()
    policy.unlink()
    with pytest.raises(InputUnusable, match="cannot be read"):
        run.files("evidence")
    with pytest.raises(InputUnusable, match=r"has no report\.html"):
        run.file("report.html")


def test_the_pointer(tmp_path: Path) -> None:
    assert read_current(tmp_path) is None
    publish(tmp_path)
    current = read_current(tmp_path / "nightly")
    assert current is not None
    assert current.path == f"runs/{RUN_ID}"

    (tmp_path / "nightly/current.json").write_text("{")
    with pytest.raises(OutputsUnwritable, match=r"current\.json cannot be read"):
        read_current(tmp_path / "nightly")


def test_trouble_has_a_code() -> None:
    assert issubclass(InputMissing, AuditError)
    assert (InputMissing.exit_code, InputUnusable.exit_code) == (66, 65)


def test_a_run_of_the_first_version_is_read_with_its_summary(tmp_path: Path) -> None:
    run = publish(tmp_path)
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    for name in ("complete", "exit_code", "shortfalls", "previous"):
        del manifest[name]
    (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputMissing):
        read_run(run)
    (run / "summary.json").write_text('{"complete": true, "exit_code": 1}', "utf-8")
    read = read_run(run).manifest

    assert (read.complete, read.exit_code, read.shortfalls) == (True, 1, ())


def test_a_current_run_that_is_gone_is_named(tmp_path: Path) -> None:
    run = publish(tmp_path)
    run.rename(tmp_path / "elsewhere")
    with pytest.raises(InputMissing, match=f"'nightly' means .*{RUN_ID}, which is not there"):
        find_run(tmp_path, "nightly")


@pytest.mark.parametrize("run_id", ["../../../x", "..", "a/b", ""])
def test_a_run_whose_id_leads_elsewhere_is_none(tmp_path: Path, run_id: str) -> None:
    facts: dict[str, object] = {
        **dict.fromkeys(("audit_name", "base_url", "input_source", "input_sha256"), "x"),
        **dict.fromkeys(("credential_id", "tool_version"), "x"),
        **dict.fromkeys(("started_at", "finished_at"), "2026-11-24T03:00:00Z"),
        "run_id": run_id,
        "audit_date": "2026-11-24",
        "parent_run_id": None,
        "triple_count": 1,
        "files": [],
        "complete": True,
        "exit_code": 0,
    }
    (tmp_path / "manifest.json").write_text(json.dumps(facts), "utf-8")

    with pytest.raises(InputUnusable, match="names no run"):
        read_run(tmp_path)
