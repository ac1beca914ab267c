"""The vocabulary: triples and what is counted of a checkpoint."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.checkpoints import CONFIG_TYPES, Checkpoint, CheckpointRef, Part, TokenTimestamp

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def token_at(seconds: float | None) -> Part:
    date = None if seconds is None else NOON + timedelta(seconds=seconds)
    return Part(token_timestamp=TokenTimestamp(date))


def test_a_triple_sorts_by_project_cluster_checkpoint() -> None:
    names = ["abb", "aba", "bAA", "aab", "aAb"]
    refs = sorted(CheckpointRef(*name) for name in names)

    assert refs == [CheckpointRef(*name) for name in ("aAb", "aab", "aba", "abb", "bAA")]


def test_a_triple_reads_as_a_path() -> None:
    assert str(CheckpointRef("a", "b", "c")) == "a/b/c"


@pytest.mark.parametrize(
    ("type_name", "is_config"),
    [
        ("CONFIG_SERVER", True),
        ("CONFIG_SERVER_REPLICA_SET", True),
        ("REPLICA_SET", False),
        ("config_server", False),
        ("MONGOS", False),
        (None, False),
    ],
)
def test_config_parts_come_in_two_forms(type_name: str | None, is_config: bool) -> None:
    assert Checkpoint(parts=(Part(type_name=type_name),)).config_part_count == is_config


def test_config_parts_are_counted() -> None:
    parts = (*(Part(type_name=name) for name in CONFIG_TYPES), Part("REPLICA_SET"), Part())

    assert Checkpoint(parts=parts).config_part_count == 2
    assert Checkpoint().config_part_count == 0


def test_only_true_is_a_discovered_token() -> None:
    parts = tuple(Part(token_discovered=value) for value in (True, False, None, True))

    assert Checkpoint(parts=parts).undiscovered_token_count == 2


@pytest.mark.parametrize(
    ("seconds", "spread"),
    [
        ([], None),
        ([0], None),
        ([None, 0, None], None),
        ([0, 0], 0.0),
        ([7, 0], 7.0),
        ([0, None, 2.5, -1], 3.5),
    ],
)
def test_the_spread_of_tokens_needs_two_dates(
    seconds: list[float | None], spread: float | None
) -> None:
    checkpoint = Checkpoint(parts=(*map(token_at, seconds), Part()))

    assert checkpoint.token_spread_s == spread
