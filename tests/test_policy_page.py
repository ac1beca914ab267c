"""docs/policy.md: its examples are policies, its tables are complete, and what it says is so."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.documents import key_lines
from pipeline.outcomes import EXCUSABLE_KINDS
from pipeline.policy import PolicyWrong, Thresholds, Waiver, default_policy, read_policy

PAGE = (Path(__file__).parents[1] / "docs/policy.md").read_text("utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
WRONG = """\
[thresholds]
gap = "9"

[rules.no-part]

[[waivers]]
id = "W-7"
reason = "none"
owner = "team"
expires = 2027-03-31
kinds = ["checkpoint_absent"]
"""


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_a_policy(text: str) -> None:
    assert read_policy(text) != default_policy()


def test_the_examples_show_every_key() -> None:
    shown = {path.rpartition(".")[2] for text in EXAMPLES for path in key_lines(text)}
    waiver = set(Waiver.__struct_fields__) - {"expires_on"} | {"expires"}

    assert waiver <= shown
    assert {"severity", "fails", "controls", "enabled", "owner", "owner_label"} <= shown


def test_what_is_said_of_the_example_of_clusters() -> None:
    policy = read_policy(next(text for text in EXAMPLES if "payments-archive" in text))
    labels = {"team": "red"}

    assert policy.owner_of("5f" * 12, "payments-archive", labels) == "team-payments"
    assert policy.thresholds_of("5f" * 12, "payments-archive").rpo_age is None
    assert policy.thresholds_of("5f" * 12, "payments-eu").rpo_age == timedelta(hours=6)
    assert policy.thresholds_of("5f" * 12, "orders").rpo_age == timedelta(hours=36)
    assert policy.owner_of("5f" * 12, "orders", labels) == "red"


def test_every_threshold_and_its_default_are_told() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (.*?) \|$", PAGE, re.MULTILINE))
    limits = default_policy().thresholds

    for name in Thresholds.__struct_fields__:
        value = getattr(limits, name)
        told = rows[name].strip('`"')
        if isinstance(value, timedelta):
            assert read_policy(f'[thresholds]\n{name} = "{told}"').thresholds == limits
        else:
            assert told == ("not judged" if value is None else str(value))


def test_every_kind_that_can_be_excused_is_told() -> None:
    for kind in EXCUSABLE_KINDS:
        assert f"`{kind}`" in PAGE


def test_the_faults_shown_are_those_that_are_told() -> None:
    with pytest.raises(PolicyWrong) as caught:
        read_policy(WRONG)

    assert "wrong.toml\n" + "\n".join(caught.value.faults) + "\n```" in PAGE
