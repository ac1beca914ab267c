"""A published run under waivers: what its files say, and that it is derived again as it was."""

import csv
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.dataset as ds
import pytest

from pipeline.cli.run import _hint
from pipeline.policy import read_policy
from pipeline.publication import Published, read_published
from pipeline.published import PublishedRun
from pipeline.verify import verify
from tests.doubles import error
from tests.recorded import Answers, Recorder, good, ref

PASSED, FAILED, ABSENT, HIDDEN, REFUSED = ref(1), ref(2), ref(3), ref(4), ref(1, 2, "billing")
ANSWERS: Answers = {
    PASSED: [good(PASSED)],
    FAILED: [good(FAILED, restorable=False)],
    ABSENT: [error(404)],
    HIDDEN: [error(404, "CLUSTER_NOT_FOUND")],
    REFUSED: [error(403, "ACCESS_FORBIDDEN")],
}
POLICY = """
[[waivers]]
id = "W-RULES"
reason = "r"
owner = "o"
approver = "a"
expires = 2026-11-20
rules = ["restorable-false"]
[[waivers]]
id = "W-KINDS"
reason = "r"
owner = "o"
approver = "a"
expires = 2026-12-31
kinds = ["checkpoint_absent", "cluster_not_found", "project_refused"]
"""


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    recorder = Recorder(tmp_path / "outputs")
    recorder.bad_line = ""
    return recorder


def published(recorder: Recorder, text: str = POLICY) -> PublishedRun:
    return recorder.publish(ANSWERS, policy=read_policy(text))


def table(run: PublishedRun, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ds.dataset(run.path / name).to_table().to_pylist()
    return rows


def test_every_excuse_stands_beside_its_verdict(recorder: Recorder) -> None:
    """The last day of one of the waivers is the run's own."""
    run = published(recorder)
    (finding,) = table(run, "findings")
    (row,) = table(run, "runs")

    assert [(one["verdict"], one["excused_by"]) for one in table(run, "outcomes")] == [
        ("PASS", None),
        ("FAIL", "W-RULES"),
        ("ABSENT", "W-KINDS"),
        ("INCONCLUSIVE", "W-KINDS"),
        ("INCONCLUSIVE", "W-KINDS"),
    ]
    assert finding["waiver_id"] == "W-RULES"
    assert f"{finding['waiver_expires_at']:%Y-%m-%d %H:%M}" == "2026-11-21 00:00"
    assert (row["complete"], row["exit_code"], row["excused_count"]) == (True, 0, 4)
    assert row["inconclusive_count"] == 2


def test_what_is_excused_is_still_unresolved(recorder: Recorder) -> None:
    with (published(recorder).path / "unresolved.csv").open(encoding="utf-8") as file:
        kinds = [row["unresolved_reason"] for row in csv.DictReader(file)]

    assert kinds == ["cluster_not_found", "project_refused"]


def test_a_run_under_waivers_is_derived_again_as_it_was(recorder: Recorder) -> None:
    found = verify(published(recorder).path)

    assert (found.intact.problems, found.rederived.problems) == ((), ())


@pytest.mark.parametrize(
    ("text", "code", "is_complete"),
    [
        (POLICY, 0, True),
        (POLICY.replace("2026-11-20", "2026-11-19"), 1, True),
        (POLICY.replace(', "project_refused"', ""), 3, False),
        ("", 4, False),
    ],
)
def test_how_the_run_ends(recorder: Recorder, text: str, code: int, is_complete: bool) -> None:
    run = published(recorder, text)

    assert (run.manifest.exit_code, run.manifest.complete) == (code, is_complete)


def test_nothing_is_hinted_at_when_all_that_is_unknown_is_excused(recorder: Recorder) -> None:
    excused: Published = read_published(published(recorder).path)
    unknown = msgspec.structs.replace(excused.summary, excused={})

    assert _hint(excused) == ""
    assert "run --complete nightly" in _hint(msgspec.structs.replace(excused, summary=unknown))
