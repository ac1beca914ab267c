"""Fixtures of several test modules."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability import Small, Starter, small
from tests.nights import Night


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
