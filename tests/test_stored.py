"""Runs in a store of objects, by the real command line and moto's server over HTTP."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.durability import EXPECTED, PROGRAM, Ended, digests, table
from tests.nights import Night
from tests.store import ADDRESS, AT, BUCKET, POINTER, PREFIX, Store, served


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with served() as made:
        yield made


@pytest.fixture
def store(server: Store) -> Store:
    server.empty()
    return server


class Stored:
    """The nightly audit, published to the store."""

    def __init__(self, night: Night, store: Store, folder: Path) -> None:
        self.night, self.store = night, store
        self.work = folder / "work"
        folder.mkdir(exist_ok=True)

    def run(self, *options: str | Path, set_up: str = "", at: int = 0) -> Ended:
        return self.start(self.night.input, *options, set_up=set_up, at=at)

    def start(
        self, *options: str | Path, set_up: str = "", at: int = 0, env: dict[str, str] | None = None
    ) -> Ended:
        place = ("--output-dir", ADDRESS, "--work-dir", self.work)
        more = {**self.env, AT: str(at), **(env or {})}
        return self.night.start(*place, *options, set_up=set_up, env=more)

    @property
    def env(self) -> dict[str, str]:
        """A start under test leaves its process without tidying: its files go with the test's."""
        return {**self.store.env, "TMPDIR": str(self.work.parent)}

    def say(self, command: str, *args: str | Path) -> Ended:
        return self.night._starter.start(
            *(command, *args, "--output-dir", ADDRESS),
            env={**self.night.atlas.env, **self.env},
        )

    @property
    def pointer(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.store.read("nightly/current.json"))
        return read

    def check(self, run_id: str = "") -> str:
        """A reader who follows the pointer gets a whole run; gives its id."""
        run_id = run_id or self.pointer["run_id"]
        manifest = self.store.read(f"nightly/runs/{run_id}/manifest.json")
        for file in json.loads(manifest)["files"]:
            content = self.store.read(f"nightly/runs/{run_id}/{file['path']}")
            assert hashlib.sha256(content).hexdigest() == file["sha256"], file["path"]
        if run_id == self.pointer["run_id"]:
            assert hashlib.sha256(manifest).hexdigest() == self.pointer["manifest_sha256"]
        return run_id

    @property
    def left_over(self) -> list[str]:
        """What is in the work folder and should not be, once a run is put up."""
        kept = {"lock"}
        return sorted(p.name for p in self.work.glob("*/nightly/.work/*") if p.name not in kept)

    @property
    def runs(self) -> list[str]:
        """The runs there are to a reader: those with a manifest."""
        ends = [n.split("/") for n in self.store.names() if n.endswith("/manifest.json")]
        return sorted(parts[2] for parts in ends if parts[:2] == ["nightly", "runs"])


@pytest.fixture
def stored(night: Night, store: Store, tmp_path: Path) -> Stored:
    return Stored(night, store, tmp_path)


def test_a_run_is_published_and_its_address_said(stored: Stored, tmp_path: Path) -> None:
    ended = stored.run("--metrics-file", tmp_path / "audit.prom")
    assert ended.code == EXPECTED, ended.err
    run_id = stored.pointer["run_id"]
    address = f"{ADDRESS}/nightly/runs/{run_id}"

    assert ended.out.splitlines()[-1] == address
    assert f"Report: {address}/report.html" in ended.err
    local = next(stored.work.rglob(f"runs/{run_id}"))
    there = stored.store.copy_to(tmp_path / "copy") / "nightly" / "runs" / run_id
    assert digests(there) == digests(local)
    assert 'verdict="pass"' in (tmp_path / "audit.prom").read_text("utf-8").lower()


def test_every_command_reads_it(stored: Stored, tmp_path: Path) -> None:
    address = stored.run().out.splitlines()[-1]
    triple = stored.night.scene.triples[1].checkpoint_id

    for named in ("nightly", address, address.rsplit("/", 1)[-1]):
        found = stored.say("verify", named)
        assert (found.code, "is sound" in found.err) == (0, True), found.err
    assert triple in stored.say("explain", "nightly", triple).out
    assert "unchanged" in stored.say("diff", "nightly", address).out
    assert "incomplete" in stored.say("history", "nightly").out.lower()
    assert stored.say("report", "nightly", "--to", tmp_path / "again").code == 0
    assert (tmp_path / "again" / "report.html").is_file()


def test_it_is_loaded_and_viewed(stored: Stored, tmp_path: Path) -> None:
    assert stored.run().code == EXPECTED
    file = tmp_path / "warehouse.duckdb"

    loaded = subprocess.run(
        [*PROGRAM, "load", "nightly", "--replace-anyway", "--output-dir", ADDRESS],
        env={
            **stored.night.atlas.env,
            **stored.env,
            "CHECKPOINT_AUDIT_WAREHOUSE_URL": f"duckdb:///{file}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )

    assert loaded.returncode == 0, loaded.stderr
    assert f"loaded {stored.pointer['run_id']} into" in loaded.stderr
    assert not list(tmp_path.glob("checkpoint-audit-*"))  # where the run was brought to be read
    assert f"{ADDRESS}/nightly/runs/*/manifest.json" in stored.say("views", "nightly").out


# --- starts that do not end well ----------------------------------------------------------------


def test_a_kill_between_any_two_objects(stored: Stored) -> None:
    """`CHECKPOINT_AUDIT_TEST_POINTS=all` walks through all of them."""
    before = stored.run().out.splitlines()[-1].rsplit("/", 1)[-1]
    run_objects = [n for n in stored.store.names() if f"/{before}/" in n]
    writes = len(run_objects) + 3  # the start is noted, then the run, the pointer, the end
    chosen = [1, 2, 5, writes - 4, writes - 2, writes - 1, writes]
    if os.environ.get("CHECKPOINT_AUDIT_TEST_POINTS") == "all":
        chosen = list(range(1, writes + 1))

    for at in chosen:
        count = len(stored.runs)
        stored.night.atlas.asked.clear()
        assert stored.run(set_up="tests.store:killed", at=at).code == -9
        asked = stored.night.asked
        # The last three writes are the manifest, the pointer and the note of the end.
        assert len(stored.runs) - count == (at > writes - 2), at
        assert (stored.check() == before) == (at < writes), at

        ended = stored.run()

        assert ended.code == EXPECTED, ended.err
        before = stored.check()
        assert ended.out.splitlines()[-1].endswith(before)
        assert (stored.night.asked == asked) == (1 < at < writes), at
        assert stored.left_over == []
        assert stored.say("verify", "nightly").code == 0


def check_the_next_start(stored: Stored) -> None:
    """The same command puts up what was left, and asks Atlas nothing."""
    asked = stored.night.asked

    ended = stored.run()

    assert ended.code == EXPECTED, ended.err
    assert stored.night.asked == asked
    assert ended.out.splitlines()[-1].endswith(stored.check())
    assert stored.left_over == []


def test_a_signal_is_heard_between_two_objects(stored: Stored) -> None:
    stopped = stored.run(set_up="tests.store:told_to_stop", at=4)
    assert stopped.code == 143
    assert "start the same command again to go on" in stopped.err.splitlines()[-1]
    # The note of the start, two objects, and the one that was under way; then the note of the end.
    assert len(stored.store.names()) == 4
    assert stored.runs == []
    check_the_next_start(stored)


def test_what_was_left_is_put_up_on_a_later_date_too_and_said(stored: Stored) -> None:
    assert stored.run(set_up="tests.store:told_to_stop", at=4).code == 143
    assert stored.runs == []

    ended = stored.run("--quiet", set_up="tests.nights:tomorrow")

    assert ended.code == EXPECTED, ended.err
    assert len(stored.runs) == 2
    left = min(stored.runs)
    assert f"{left} was left by an earlier start, and is published now too: exit 4" in ended.err
    assert ended.out.splitlines()[-1].endswith(stored.check())
    assert stored.left_over == []


def test_what_the_store_refuses_is_put_up_by_the_next_start(stored: Stored) -> None:
    refused = stored.run(set_up="tests.store:gone", at=4)
    assert refused.code == 73
    assert "cannot be written: no connection" in refused.err
    assert "a-secret-of-the-store" not in refused.err
    assert stored.runs == []
    check_the_next_start(stored)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "no connection"),
        ({"AWS_ENDPOINT_URL": "http://store.example.com"}, "plain http"),
        ({"AWS_ENDPOINT_URL": "https://user:pass-word@store.example.com"}, "not an address"),
    ],
)
def test_a_store_that_cannot_be_used_is_said_before_atlas_is_asked(
    stored: Stored, env: dict[str, str], said: str
) -> None:
    ended = stored.start(stored.night.input, set_up="tests.store:impatient", env=env)

    assert ended.code == (73 if said == "no connection" else 78)
    assert said in ended.err
    assert "pass-word" not in ended.err
    assert "a-secret" not in ended.err
    assert stored.night.asked == 0


def test_without_the_extra_it_is_named(stored: Stored) -> None:
    ended = stored.run(set_up="tests.store:without_the_extra")

    assert ended.code == 78
    assert "pip install 'atlas-checkpoint-audit[s3]'" in ended.err


def test_a_bucket_that_is_not_there_is_named(stored: Stored) -> None:
    stored.store._ask("DELETE", f"/{BUCKET}")
    ended, read = stored.run(), stored.say("verify", "nightly")

    assert (ended.code, read.code) == (73, 66)
    for each in (ended, read):
        assert "NoSuchBucket; what to do: make the bucket" in each.err
    assert stored.night.asked == 0


# --- two machines -------------------------------------------------------------------------------


def test_a_later_night_of_another_machine_stays_current(
    stored: Stored, night: Night, store: Store, tmp_path: Path
) -> None:
    other = Stored(night, store, tmp_path / "other")
    assert stored.run().code == EXPECTED
    assert other.run(set_up="tests.nights:tomorrow").code == EXPECTED
    theirs = other.check()
    pointer = store.read("nightly/current.json").decode()
    store.client.delete(f"{PREFIX}/nightly/current.json")

    mine = stored.start(night.input, set_up="tests.store:overtaken", at=1, env={POINTER: pointer})

    assert mine.code == EXPECTED, mine.err
    assert "published, but not current" in mine.err
    assert stored.check() == theirs
    assert len(stored.runs) == 3


def test_another_run_of_the_same_night_is_followed(
    stored: Stored, night: Night, store: Store, tmp_path: Path
) -> None:
    other = Stored(night, store, tmp_path / "other")
    assert other.run().code == EXPECTED
    pointer = store.read("nightly/current.json").decode()
    assert stored.run().code == EXPECTED

    mine = stored.start(night.input, set_up="tests.store:overtaken", at=1, env={POINTER: pointer})

    assert mine.out.splitlines()[-1].endswith(stored.check())
    assert len(stored.runs) == 3


def test_a_store_without_conditions_is_said_once(stored: Stored) -> None:
    ended = stored.run(set_up="tests.store:without_conditions")

    assert ended.code == EXPECTED, ended.err
    assert ended.err.count("is written without a condition") == 1
    assert ended.out.splitlines()[-1].endswith(stored.check())


# --- nights -------------------------------------------------------------------------------------


def test_two_nights_on_two_machines(
    stored: Stored, night: Night, store: Store, tmp_path: Path
) -> None:
    """What last night was is learned from the store alone."""
    assert stored.run().code == EXPECTED
    night.become(t1="absent")
    other = Stored(night, store, tmp_path / "other")

    ended = other.run("--fail-on", "new", set_up="tests.nights:tomorrow")

    assert ended.code == EXPECTED, ended.err
    assert "Newly open since" in ended.err
    told = json.loads(other.say("history", "nightly", "--format", "json").out)
    assert [row["state"] for row in told["nights"]] == ["INCOMPLETE", "INCOMPLETE"]


def test_a_run_is_completed(stored: Stored) -> None:
    stored.night.down(1)
    address = stored.run().out.splitlines()[-1]
    stored.night.down(0, "none")
    stored.night.atlas.asked.clear()

    ended = stored.start("--complete", "nightly")

    assert ended.code == EXPECTED, ended.err
    assert stored.night.asked == 1
    manifest = json.loads(stored.store.read(f"nightly/runs/{stored.check()}/manifest.json"))
    assert manifest["parent_run_id"] == address.rsplit("/", 1)[-1]
    assert stored.say("verify", "nightly").code == 0


def test_old_runs_are_removed(stored: Stored) -> None:
    assert stored.run().code == EXPECTED
    (old,) = stored.runs

    ended = stored.run("--keep", "1", set_up="tests.nights:in_three_days")

    assert f"removed, as --keep says: {old}" in ended.err
    assert stored.runs == [stored.check()]
    assert not [name for name in stored.store.names() if f"/{old}/" in name]


def test_what_was_changed_in_the_store_is_noticed(stored: Stored) -> None:
    assert stored.run().code == EXPECTED
    name = f"{PREFIX}/nightly/runs/{stored.pointer['run_id']}/summary.json"
    stored.store.client.put(name, b"{}")

    read = stored.say("explain", "nightly", stored.night.scene.triples[1].checkpoint_id)
    assert (read.code, "summary.json is not as it was published" in read.err) == (65, True)
    assert stored.say("verify", "nightly").code == 1


def test_objects_of_no_run_are_left_and_said(stored: Stored) -> None:
    """They may be another machine's, which is putting them up."""
    name = "nightly/runs/20261120T030000Z-nightly-7f3a9c/summary.json"
    stored.store.client.put(f"{PREFIX}/{name}", b"{}")

    ended = stored.run("--keep", "1")

    assert ended.code == EXPECTED, ended.err
    assert ended.err.count("7f3a9c has no manifest and is no run") == 1
    assert stored.store.has(name)
    assert stored.say("explain", "20261120T030000Z-nightly-7f3a9c", "x").code == 66


def test_a_lost_work_folder_is_no_loss(stored: Stored) -> None:
    assert stored.run().code == EXPECTED
    shutil.rmtree(stored.work)

    ended = stored.run("--fail-on", "new")

    assert ended.code == 3, ended.err
    assert "Newly open since" in ended.err
    assert stored.say("verify", "nightly").code == 0


STRAYS = ("outcomes/", "", "../y", "a//b", "n" * 300, "manifest.json/x", "notes.txt")


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("stray", STRAYS)
def test_a_stray_object_stops_nobody(stored: Stored, stray: str, is_lost: bool) -> None:
    """As with a stray file in a folder: `verify` alone has something to say."""
    assert stored.run().code == EXPECTED
    run_id = stored.pointer["run_id"]
    stored.store.lay(f"nightly/runs/{run_id}/{stray}", b"" if stray in STRAYS[:2] else b"x")
    if is_lost:
        shutil.rmtree(stored.work)

    found = stored.say("verify", run_id)
    ended = stored.run("--fail-on", "new", set_up="tests.nights:tomorrow")

    assert (ended.code, "Newly open since" in ended.err) == (3, True), ended.err
    assert stored.check() != run_id
    assert stored.say("explain", run_id, stored.night.scene.triples[1].checkpoint_id).code == 0
    if stray in STRAYS[:2]:
        assert found.code == 0, found.out
    else:
        said = r"('.* is a name that no file can have)? is not in the manifest"
        assert found.code == 1, found.err
        assert re.search(re.escape(stray) + said, found.out), found.out


def test_a_run_before_that_cannot_be_read_is_noticed(stored: Stored) -> None:
    assert stored.run().code == EXPECTED
    run_id = stored.pointer["run_id"]
    (name,) = [n for n in stored.store.names() if f"/{run_id}/outcomes/" in n]
    stored.store.archive(name)
    shutil.rmtree(stored.work)

    ended = stored.run(set_up="tests.nights:tomorrow")

    assert ended.code == EXPECTED, ended.err
    assert stored.check() != run_id
    assert f"{name} cannot be read: InvalidObjectState" in str(_summary(stored)["notices"])
    read = stored.say("verify", run_id)
    assert (read.code, "the object is archived" in read.err) == (66, True), read.err


def test_a_manifest_that_cannot_be_read_is_left_out(stored: Stored) -> None:
    assert stored.run().code == EXPECTED
    run_id = stored.pointer["run_id"]
    stored.store.archive(f"nightly/runs/{run_id}/manifest.json")
    shutil.rmtree(stored.work)

    ended = stored.run(set_up="tests.nights:tomorrow")

    assert ended.code == EXPECTED, ended.err
    assert stored.check() != run_id
    assert f"{run_id} is left out" in ended.err
    assert "is not known" in str(_summary(stored)["notices"])
    assert f"{run_id} is left out" in stored.say("history", "nightly").err


def test_a_summary_that_is_gone_is_told_by_its_address(stored: Stored) -> None:
    assert stored.run().code == EXPECTED
    place = f"nightly/runs/{stored.pointer['run_id']}/summary.json"
    stored.store.client.delete(f"{PREFIX}/{place}")

    told = stored.say("history", "nightly")

    assert told.code == 0
    assert f"{ADDRESS}/{place}" in told.out
    assert str(stored.work.parent) not in told.out + told.err


def _summary(stored: Stored) -> dict[str, Any]:
    name = f"nightly/runs/{stored.pointer['run_id']}/summary.json"
    read: dict[str, Any] = json.loads(stored.store.read(name))
    return read


def _age(folder: Path) -> None:
    then = time.time() - 8 * 86_400
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_a_run_that_was_not_put_up_for_a_week_is_given_up(stored: Stored) -> None:
    """It is no run, to nobody: the next one is not compared with it."""
    assert stored.run(set_up="tests.store:without_a_manifest").code == 73
    (local,) = stored.work.glob("*/nightly/runs/*")
    _age(stored.work)
    stored.night.write(3)

    ended = stored.run(set_up="tests.nights:tomorrow")

    assert ended.code == 3, ended.err
    assert f"{local.name} was not put up for a week, and is given up" in ended.err
    assert not local.exists()
    assert stored.left_over == []
    assert _summary(stored)["shortfalls"] == []
    assert stored.runs == [stored.check()]


def test_what_is_put_up_but_for_its_mark_is_not_given_up(stored: Stored) -> None:
    assert stored.run().code == EXPECTED
    run_id = stored.check()
    (work,) = stored.work.glob("*/nightly/.work")
    (work / f"upload-{run_id}").touch()
    _age(stored.work)

    ended = stored.run("--fail-on", "new", set_up="tests.nights:tomorrow")

    assert "Newly open since" in ended.err
    assert "given up" not in ended.err
    assert stored.left_over == []


@pytest.mark.parametrize("has_stray", [False, True])
def test_a_run_without_its_manifest_is_none_here_either(stored: Stored, has_stray: bool) -> None:
    """As another machine leaves it, whose `--keep` dies after the first object."""
    assert stored.run().code == EXPECTED
    old = stored.check()
    assert stored.run(set_up="tests.nights:tomorrow").code == EXPECTED
    stored.store.client.delete(f"{PREFIX}/nightly/runs/{old}/manifest.json")
    if has_stray:
        stored.store.lay(f"nightly/runs/{old}/../y", b"x")

    ended = stored.run(set_up="tests.nights:in_three_days")

    assert ended.code == EXPECTED, ended.err
    assert ended.err.count(f"{old} has no manifest and is no run") == 1
    assert not list(stored.work.glob(f"*/nightly/runs/{old}"))
    assert ("is a name that no file can have" in ended.err) == has_stray


def test_a_pointer_that_leads_elsewhere_is_told_with_what_to_do(stored: Stored) -> None:
    assert stored.run().code == EXPECTED
    there = json.dumps({**stored.pointer, "run_id": "..", "path": "runs/.."})
    stored.store.lay("nightly/current.json", there.encode())

    ended, read = stored.run(), stored.say("explain", "nightly", "x")

    assert (ended.code, read.code) == (73, 65)
    assert "names no run: 'runs/..'; what to do: restore it from a copy" in ended.err
    assert "names no run: runs/..; what to do: bring back a version before it" in read.err


@pytest.mark.parametrize("listed", ["../../x", "n" * 300, "manifest.json/x", "policy.toml/x"])
def test_a_manifest_that_lists_what_no_run_has(stored: Stored, listed: str) -> None:
    assert stored.run().code == EXPECTED
    name = f"nightly/runs/{stored.pointer['run_id']}/manifest.json"
    manifest = json.loads(stored.store.read(name))
    first, *others = manifest["files"]
    more = [{**first, "path": path} for path in (listed, "policy.toml")]
    bent = {**manifest, "files": [*others, *more]}
    stored.store.lay(name, json.dumps(bent).encode())

    read = stored.say("explain", "nightly", "x")
    ended = stored.run(set_up="tests.nights:tomorrow")

    assert (read.code, "which no run of ours has" in read.err) == (65, True), read.err
    assert "CSV" not in read.err
    assert ended.code == EXPECTED, ended.err
    assert "which no run of ours has" in str(_summary(stored)["notices"])


def test_every_start_has_an_object(stored: Stored) -> None:
    assert stored.run().code == EXPECTED
    (name,) = [name for name in stored.store.names() if "/attempts/" in name]
    lines = [json.loads(line) for line in stored.store.read(name).splitlines()]

    assert [line["event"] for line in lines] == ["start", "end"]
    assert lines[1]["run_id"] == stored.pointer["run_id"]


def test_pyarrow_reads_a_table_from_the_store(stored: Stored) -> None:
    import pyarrow.dataset as ds
    from pyarrow.fs import S3FileSystem

    address = stored.run().out.splitlines()[-1]
    store = S3FileSystem(
        access_key="testing",
        secret_key="testing",
        endpoint_override=stored.store.url,
        region="us-east-1",
    )
    folder = f"{address.removeprefix('s3://')}/outcomes"
    found = ds.dataset(folder, filesystem=store, format="parquet").to_table()
    local = next(stored.work.rglob(f"runs/{stored.pointer['run_id']}"))
    assert found.to_pylist() == table(local, "outcomes")


# --- the page -----------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "object-storage.md").read_text("utf-8")


def test_the_commands_of_the_page(stored: Stored, tmp_path: Path) -> None:
    stored.store._ask("PUT", "/example-audits")
    commands = [
        shlex.split(line.removeprefix("$ checkpoint-audit "))
        for line in PAGE.splitlines()
        if line.startswith("$ checkpoint-audit ")
    ]
    places = {
        "triples.csv": str(stored.night.input),
        "/var/lib/checkpoint-audit": str(stored.work),
        "report": str(tmp_path / "report"),
    }
    for command, *words in commands:
        args = [places.get(word, word) for word in words]
        env = {**stored.night.atlas.env, **stored.env}
        ended = stored.night._starter.start(
            command, *args, env=env, set_up=["tests.durability:no_waits"]
        )
        assert ended.code == (EXPECTED if command == "run" else 0), ended.err

    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    read = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **stored.env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (read.returncode, read.stdout) == (0, f"{len(stored.night.scene.triples)}\n"), (
        read.stderr
    )


def test_the_permissions_of_the_page_can_be_read() -> None:
    (policy,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert len(json.loads(policy)["Statement"]) == 2
