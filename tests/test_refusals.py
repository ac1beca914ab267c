"""Which runs are not loaded, at the boundary of each reason."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from pipeline.published import JudgedAnew, Manifest, Previous
from pipeline.warehouse.refusals import Slice, refusals

NIGHT = datetime(2026, 11, 20, 3, tzinfo=UTC)
LOADED = Slice("loaded", NIGHT, 100, 5)


def manifest(**facts: Any) -> Manifest:
    known = {
        "run_id": "new",
        "audit_name": "nightly",
        "audit_date": date(2026, 11, 20),
        "parent_run_id": None,
        "started_at": NIGHT,
        "finished_at": NIGHT,
        "base_url": "https://cloud.mongodb.com",
        "input_source": "nightly.csv",
        "input_sha256": "",
        "credential_id": "",
        "triple_count": 100,
        "tool_version": "",
        "files": (),
    }
    return Manifest(**{**known, **facts})


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (Slice("new", NIGHT, 100, 5), ""),
        (Slice("new", NIGHT + timedelta(hours=1), 1000, 0), ""),
        (Slice("new", NIGHT - timedelta(microseconds=1), 100, 5), "before loaded, which is loaded"),
        (Slice("new", NIGHT, 80, 5), ""),
        (Slice("new", NIGHT, 79, 5), "79 triples, over a fifth fewer than the 100 of loaded"),
        (Slice("new", NIGHT, 100, 6), "6 inconclusive triples, more than the 5 of loaded"),
    ],
)
def test_compared_with_the_loaded_run(new: Slice, reason: str) -> None:
    found = refusals(manifest(), new, LOADED)

    assert len(found) == bool(reason)
    assert reason in "".join(found)


@pytest.mark.parametrize(("old", "new", "is_refused"), [(4, 3, True), (5, 4, False), (0, 0, False)])
def test_a_fifth_of_a_few(old: int, new: int, is_refused: bool) -> None:
    loaded = Slice("loaded", NIGHT, old, 0)
    assert bool(refusals(manifest(), Slice("new", NIGHT, new, 0), loaded)) == is_refused


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"base_url": "http://127.0.0.1:8080"}, "a loopback address, http://127.0.0.1:8080"),
        ({"base_url": "http://[::1]:8080"}, "a loopback address"),
        ({"base_url": "http://localhost"}, "a loopback address"),
        ({"judged_anew": JudgedAnew(Previous("other", ""))}, "it is other judged anew"),
        ({}, ""),
    ],
)
@pytest.mark.parametrize("loaded", [None, LOADED])
def test_of_itself(facts: dict[str, Any], reason: str, loaded: Slice | None) -> None:
    """Whether or not anything is loaded."""
    found = refusals(manifest(**facts), Slice("new", NIGHT, 100, 5), loaded)

    assert len(found) == bool(reason)
    assert reason in "".join(found)


def test_every_reason_is_named() -> None:
    worst = Slice("new", NIGHT - timedelta(days=1), 1, 99)
    facts = manifest(base_url="http://localhost", judged_anew=JudgedAnew(Previous("other", "")))

    assert len(refusals(facts, worst, LOADED)) == 5


def test_the_run_that_is_there_is_never_refused() -> None:
    same = Slice("loaded", NIGHT, 100, 5)

    assert refusals(manifest(base_url="http://localhost"), same, LOADED) == []
