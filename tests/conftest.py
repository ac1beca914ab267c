"""Fixtures of several test modules."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.durability import Small, Starter, small
from tests.nights import Night

if TYPE_CHECKING:
    from tests.postgres import Postgres

# The program is started some thousand times, and compiling it anew takes a fifth of a start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# No test asserts how long something took, hypothesis' own deadline neither.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)  # as it is with -p no:xdist
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, as many tests wait; more than four have no room."""
    return min((os.cpu_count() or 1) + 1, 4)


@pytest.fixture(scope="module")
def scene() -> Iterator[Small]:
    with small() as made:
        yield made


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    with Starter(tmp_path_factory.mktemp("starter")) as made:
        yield made


@pytest.fixture
def night(tmp_path: Path, scene: Small, starter: Starter) -> Night:
    return Night(tmp_path, scene, starter)


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Postgres]":
    """A PostgreSQL server, from its first use to the end of the session."""
    from tests.postgres import running

    with running() as server:
        yield server
