"""Golden runs: those that are kept verify for ever, and those that are made verify today."""

from collections import Counter
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.rules import RULES_VERSION
from pipeline.verify import verify
from pipeline.verify.intact import Trust
from tests import golden
from tests.durability import table

KEPT = sorted(path.parent for path in golden.GOLDEN.glob("*/*/manifest.json"))
KINDS = {"get", "list", "completed", "waivers", "signed", "judged-anew"}


@pytest.mark.parametrize("run", KEPT, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_what_was_published_once_verifies_for_ever(run: Path) -> None:
    check(run)


def check(run: Path) -> None:
    allowed = run.parent / "allowed_signers"
    trust = Trust(allowed_signers=allowed, signer=golden.SIGNER) if run.name == "signed" else None
    found = verify(run, trust)

    assert (found.intact.problems, found.rederived.problems) == ((), ())
    assert found.sound


def test_those_of_this_version_are_kept() -> None:
    assert {run.name for run in KEPT if run.parent.name == __version__} == KINDS
    size = sum(path.stat().st_size for path in golden.GOLDEN.rglob("*") if path.is_file())
    assert size < 1_000_000 * len({run.parent for run in KEPT})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("golden") / __version__
    golden.make(to)
    return to


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_published_today_verifies(kind: str, made: Path) -> None:
    check(made / kind)


def test_they_show_what_they_are_kept_for(made: Path) -> None:
    """Faults, refusals and lists; what is waived; what is completed and what is judged anew."""
    rows = {kind: table(made / kind, "outcomes") for kind in KINDS}
    verdicts = {kind: Counter(row["verdict"] for row in rows[kind]) for kind in KINDS}
    kinds = {row["failure_kind"] for row in table(made / "get", "evidence")}

    assert {"throttled", "server_error", "checkpoint_absent", None} <= kinds
    assert verdicts["get"]["INCONCLUSIVE"] == 1
    assert verdicts["completed"]["INCONCLUSIVE"] == 0
    assert {row["fetched_by"] for row in rows["list"]} >= {"list"}
    assert {row["waiver_id"] for row in table(made / "waivers", "findings")} >= {"W-1"}
    assert {row["waiver_id"] for row in table(made / "judged-anew", "findings")} == {None}
    assert (made / "signed" / "manifest.json.sig").is_file()


def test_they_name_nobody(made: Path) -> None:
    """Neither this machine nor who made them."""
    for path in made.rglob("manifest.json"):
        text = path.read_text("utf-8")
        assert '"host": "host.example.com"' in text
        assert '"operator": "auditor"' in text
        assert '"input_source": "nightly.csv"' in text
        assert f'"rules_version": "{RULES_VERSION}"' in text
