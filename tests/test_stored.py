"""Runs in a store of objects, by the real command line and moto's server over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.durability import EXPECTED, Ended, digests
from tests.nights import Night
from tests.store import ADDRESS, AT, Store, served


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

    def run(self, *options: str | Path, set_up: str = "", at: int = 0) -> Ended:
        return self.start(self.night.input, *options, set_up=set_up, at=at)

    def start(
        self, *options: str | Path, set_up: str = "", at: int = 0, env: dict[str, str] | None = None
    ) -> Ended:
        place = ("--output-dir", ADDRESS, "--work-dir", self.work)
        more = {**self.store.env, AT: str(at), **(env or {})}
        return self.night.start(*place, *options, set_up=set_up, env=more)

    def say(self, command: str, *args: str | Path) -> Ended:
        return self.night._starter.start(
            *(command, *args, "--output-dir", ADDRESS),
            env={**self.night.atlas.env, **self.store.env},
        )

    @property
    def pointer(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.store.read("nightly/current.json"))
        return read

    @property
    def runs(self) -> list[str]:
        """The runs there are to a reader: those with a manifest."""
        ends = [n.split("/") for n in self.store.names() if n.endswith("/manifest.json")]
        return sorted(parts[2] for parts in ends if parts[:2] == ["nightly", "runs"])


@pytest.fixture
def stored(night: Night, store: Store, tmp_path: Path) -> Stored:
    return Stored(night, store, tmp_path)


def test_a_run_is_published_and_its_address_said(stored: Stored, tmp_path: Path) -> None:
    ended = stored.run()
    assert ended.code == EXPECTED, ended.err
    run_id = stored.pointer["run_id"]
    address = f"{ADDRESS}/nightly/runs/{run_id}"

    assert ended.out.splitlines()[-1] == address
    assert f"Report: {address}/report.html" in ended.err
    local = next(stored.work.rglob(f"runs/{run_id}"))
    there = stored.store.copy_to(tmp_path / "copy") / "nightly" / "runs" / run_id
    assert digests(there) == digests(local)


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
