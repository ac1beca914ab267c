"""The policy: read whole or refused, and in step with the rules."""

import hashlib

import pytest

from pipeline.errors import ConfigurationWrong
from pipeline.policy import RuleTerms, Severity, default_policy, read_policy
from pipeline.rules import RULE_IDS


def test_the_default_policy_knows_every_rule_and_no_other() -> None:
    assert set(default_policy().rules) == set(RULE_IDS)


def test_every_rule_of_the_default_policy_bears_on_a_control() -> None:
    """Controls are joined by "; " in a column, so none may hold one."""
    for terms in default_policy().rules.values():
        assert terms.controls
        assert not any(";" in control for control in terms.controls)


def test_the_default_policy_claims_nothing_of_pci() -> None:
    """PCI DSS sets no backup frequency, and the API shows no restore test."""
    assert "PCI" not in default_policy().text


def test_a_policy_keeps_its_text_and_its_digest() -> None:
    text = '[rules.no-parts]\nseverity = "low"\ncontrols = ["A", "B"]  # é\n'
    policy = read_policy(text)

    assert policy.rules == {"no-parts": RuleTerms(Severity.LOW, ("A", "B"))}
    assert policy.text == text
    assert policy.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_controls_may_be_left_out() -> None:
    rules = read_policy('[rules.no-parts]\nseverity = "low"\n').rules

    assert rules["no-parts"].controls == ()


def test_severities_stand_worst_first() -> None:
    assert [severity.value for severity in Severity] == ["critical", "high", "medium", "low"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "rules"),
        ("rules = 1", "rules"),
        ("[rules.x]\n", "severity"),
        ('[rules.x]\nseverity = "fatal"\n', "fatal"),
        ('[rules.x]\nseverity = "CRITICAL"\n', "CRITICAL"),
        ('[rules.x]\nseverity = "low"\nlevel = 1\n', "level"),
        ('[rules.x]\nseverity = "low"\ncontrols = "A"\n', "controls"),
        ('[rules.x]\nseverity = "low"\ncontrols = [1]\n', "controls"),
        ("[rules]\n[other]\nx = 1\n", "other"),
        ("[rules.x\n", "line 1"),
        ('[rules.x]\nseverity = "low"\nseverity = "high"\n', "line 3"),
    ],
)
def test_a_wrong_policy_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ConfigurationWrong, match=words) as caught:
        read_policy(text)

    assert caught.value.exit_code == 78
