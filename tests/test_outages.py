"""Bad times on the network, through the real command line: a simulator that goes away and returns.

Where a run gives up only after a minute, its patience is shortened; nothing else is changed.
"""

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.outcomes import TRANSIENT_KINDS
from pipeline.simulator import Fleet
from tests.test_cli import (
    PROGRAM,
    SECRET,
    Ended,
    clean_env,
    command,
    expected,
    start,
    table,
    verdicts,
    wait_for,
)

#: Half a minute is two seconds, and all else is short as well.
SHORTER = (
    "import pipeline.silence as s; s.SILENCE_S, s.CALLS_S, s.PAUSE_S, s.CALL_S = 2, 2, .5, 1; "
)
HASTY = (sys.executable, "-c", SHORTER + "from pipeline.__main__ import main; main()")
SLOWLY = ("--latency", "0.3")


class Night:
    """An audit's folder, and the address of an Atlas that may come and go."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.triples = folder / "triples.csv"
        self.env = clean_env(
            MONGODB_ATLAS_BASE_URL=f"http://127.0.0.1:{self.port}",
            MONGODB_ATLAS_CLIENT_ID="mdb_sa_id_51e0a7ed51e0a7ed51e0a7ed",
            MONGODB_ATLAS_CLIENT_SECRET=SECRET,
        )

    @property
    def args(self) -> tuple[str | Path, ...]:
        return ("run", self.triples, "--output-dir", self.folder, "--concurrency", "8")

    @contextmanager
    def atlas(self, *options: str) -> Iterator["subprocess.Popen[str]"]:
        """Atlas is there, until the end of the block, when all its connections break."""
        written = ("--write-triples", str(self.triples), "--port", str(self.port))
        process = start("simulate", *written, *options, env=clean_env())
        try:
            assert process.stdout.readline().startswith("listening on ")
            yield process
        finally:
            process.kill()
            process.communicate(timeout=30)

    def begin(self, *options: str, program: tuple[str, ...] = PROGRAM) -> "subprocess.Popen[str]":
        """Start the run, and wait until some of its triples are answered."""
        running = subprocess.Popen(
            [*program, *map(str, self.args), *options],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: self.answered() >= 20)
        return running

    def answered(self) -> int:
        for path in self.folder.rglob("*.journal"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                try:
                    query = "SELECT count(*) FROM answers WHERE reply_id IS NOT NULL"
                    return int(db.execute(query).fetchone()[0])
                except sqlite3.OperationalError:  # not made yet
                    return 0
        return 0

    def goes_on(self) -> Ended:
        """Start the same command again."""
        return command(*self.args, env=self.env)

    @property
    def is_published(self) -> bool:
        return bool(list(self.folder.rglob("manifest.json")))


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def end(running: "subprocess.Popen[str]") -> Ended:
    out, err = running.communicate(timeout=120)
    return Ended(running.returncode, out, err)


def asked(run: Path) -> Counter[str]:
    """How many replies that decided something each triple got, over all starts of the run."""
    passing = {*TRANSIENT_KINDS, "throttled", "unauthenticated"}
    return Counter(
        reply["checkpoint_id"]
        for reply in table(run, "evidence")
        if reply["purpose"] == "checkpoint" and reply["failure_kind"] not in passing
    )


def check_whole(ended: Ended, night: Night) -> Path:
    """Everything is answered as it should be, each triple by the one definite reply it got."""
    assert ended.code == 4, ended.err
    run = Path(ended.out.splitlines()[-1])
    assert verdicts(run) == expected(night.triples)
    assert set(asked(run).values()) == {1}
    assert len(asked(run)) == len(expected(night.triples))
    return run


# ── Atlas, or the network, is away ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["its connections break", "it does not answer any more"])
def test_an_outage_ends_the_run_and_the_same_command_goes_on(night: Night, how: str) -> None:
    with night.atlas(*SLOWLY) as atlas:
        running = night.begin("--timeout", "2", program=HASTY)
        atlas.send_signal(signal.SIGKILL if "break" in how else signal.SIGSTOP)
        ended = end(running)
    before = night.answered()

    assert ended.code == 69, ended.err
    assert "Atlas has not given a usable answer since " in ended.last_line
    assert " of 216 triples are answered and kept" in ended.last_line
    assert "start the same command again" in ended.last_line
    assert not night.is_published
    assert 20 <= before < 216
    with night.atlas():
        again = night.goes_on()
    assert "answered before" in again.err
    check_whole(again, night)


def test_maintenance_all_the_time_publishes_nothing(night: Night) -> None:
    """Atlas is reached, and answers nothing but 503: no row could be told."""
    plan = night.folder / "plan.toml"
    plan.write_text("maintenance = true\n", "utf-8")
    size = ("--projects", "1", "--clusters", "1", "--checkpoints", "3")
    with night.atlas(*size, "--faults", str(plan)):
        ended = command(*night.args, "--attempts", "1", env=night.env, program=HASTY)

    assert ended.code == 69, ended.err
    assert "(503 " in ended.last_line
    assert "0 of 3 triples are answered and kept" in ended.last_line
    assert not night.is_published


def test_a_short_outage_is_lived_through(night: Night) -> None:
    """Atlas comes back as one that knows no token of before."""
    with night.atlas(*SLOWLY):
        running = night.begin()
    with night.atlas():
        ended = end(running)

    run = check_whole(ended, night)
    kinds = {reply["failure_kind"] for reply in table(run, "evidence")}
    assert kinds & {str(kind) for kind in TRANSIENT_KINDS}


def test_what_is_answered_is_published_while_atlas_is_away(night: Night) -> None:
    """A run that was killed while deriving has nothing to ask: nobody need be there."""
    dies = "import os, pipeline.publication as p; p.derive = lambda *_: os._exit(9); "
    program = (sys.executable, "-c", dies + "from pipeline.__main__ import main; main()")
    with night.atlas():
        killed = command(*night.args, env=night.env, program=program)
    ended = night.goes_on()

    assert killed.code == 9
    check_whole(ended, night)


# ── credentials ──────────────────────────────────────────────────────────────────────────────────


def test_credentials_that_are_revoked_end_the_run_until_they_are_mended(night: Night) -> None:
    plan = night.folder / "plan.toml"
    plan.write_text("revoke_after = 100\n", "utf-8")
    with night.atlas("--faults", str(plan)):
        ended = night.goes_on()
        again = night.goes_on()

    assert (ended.code, again.code) == (77, 77), ended.err
    assert "refuses" in ended.last_line
    assert not night.is_published
    assert 50 <= night.answered() <= 100
    with night.atlas():
        check_whole(night.goes_on(), night)


ROTATION = """
import asyncio, sys
from pipeline.simulator import Credentials, Fleet, serve

async def main(port, secret):
    known = Credentials(client_secret=secret, private_key=secret, access_token=secret)
    fleet = Fleet.seeded(7, projects=6, clusters=3, checkpoints=12)
    async with serve(fleet, credentials=known, port=port):
        print("listening", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


@contextmanager
def rotated(port: int, secret: str) -> Iterator[None]:
    """Atlas with another secret than the usual one, in all three kinds."""
    process = subprocess.Popen(
        [sys.executable, "-c", ROTATION, str(port), secret],
        env=clean_env(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield
    finally:
        process.kill()
        process.communicate(timeout=30)


KINDS: dict[str, tuple[dict[str, str], str, str]] = {
    "service account": ({}, "MONGODB_ATLAS_CLIENT_SECRET", SECRET),
    "API key": (
        {"MONGODB_ATLAS_PUBLIC_API_KEY": "simulatd"},
        "MONGODB_ATLAS_PRIVATE_API_KEY",
        "00000000-5111-4000-8000-000000000000",
    ),
    "access token": ({}, "MONGODB_ATLAS_ACCESS_TOKEN", "simulated-access-token"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_that_is_rotated_is_read_again(night: Night, kind: str) -> None:
    """The run goes on with what the file holds by now, instead of giving up."""
    more, variable, secret = KINDS[kind]
    file = night.folder / "secret"
    file.touch(mode=0o600)
    file.write_text(secret, "utf-8")
    if kind == "service account":
        more = {"MONGODB_ATLAS_CLIENT_ID": night.env["MONGODB_ATLAS_CLIENT_ID"]}
    base_url = night.env["MONGODB_ATLAS_BASE_URL"]
    night.env = clean_env(
        MONGODB_ATLAS_BASE_URL=base_url, **more, **{f"{variable}_FILE": str(file)}
    )
    with night.atlas(*SLOWLY):
        running = night.begin()
        file.write_text("another-made-up-secret", "utf-8")
    with rotated(night.port, "another-made-up-secret"):
        ended = end(running)

    check_whole(ended, night)
    assert "another-made-up-secret" not in ended.err


# ── one project ──────────────────────────────────────────────────────────────────────────────────

TROUBLES = {"down": "server_error", "hangs": "timed_out", "throttled": "throttled"}


def test_projects_in_trouble_are_inconclusive_and_the_rest_is_done(night: Night) -> None:
    """Down, hanging and throttled, side by side with one that is well."""
    size = ("--projects", "4", "--clusters", "1", "--checkpoints", "4")
    projects = Fleet.seeded(7, projects=4, clusters=1, checkpoints=4).projects
    troubled = dict(zip(TROUBLES, (project.group_id for project in projects), strict=False))
    plan = night.folder / "plan.toml"
    plan.write_text(
        "".join(
            f"[projects.{group_id}]\nkind = {json.dumps(kind)}\nretry_after = 3600\n"
            for kind, group_id in troubled.items()
        ),
        "utf-8",
    )
    with night.atlas(*size, "--faults", str(plan)):
        ended = command(*night.args, "--timeout", "1", "--attempts", "1", env=night.env)

    assert ended.code in {3, 4}, ended.err
    run = Path(ended.out.splitlines()[-1])
    found: dict[str, set[Any]] = {}
    for row in table(run, "outcomes"):
        found.setdefault(row["group_id"], set()).add(row["failure_kind"])
    assert verdicts(run) == expected(night.triples)
    for kind, group_id in troubled.items():
        assert found[group_id] == {TROUBLES[kind]}
    assert found.keys() - troubled.values()
