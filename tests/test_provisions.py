"""What a policy provides, as it is told to people and programs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.policy import Policy, RuleTerms, Thresholds, default_policy, read_policy
from pipeline.policy import read_policy_file as read_file
from pipeline.provisions import as_json, as_text, in_short, provisions
from pipeline.rules import RULES

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "inputs/policy.toml"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)

TEXT = """\
name = "night"
owner_label = "team"

[thresholds]
rpo_age = "36h"
token_spread = "none"

[rules.no-parts]
severity = "low"
controls = []

[rules.run-time-unusual]
enabled = false

[[clusters]]
cluster = "payments-*"
rpo_age = "6h"
owner = "team-payments"

[[clusters]]
project = "5f*"
rpo_age = "none"
min_restorable = 0

[[waivers]]
id = "W-7"
reason = "handed over"
owner = "team-records"
approver = "head of operations"
expires = 2026-12-01
rules = ["no-parts"]
cluster = "archive"
"""


def told(text: str = TEXT, file: str = "night.toml") -> str:
    return as_text(provisions(read_policy(text), file, NOON))


def document(policy: Policy, file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(as_json(provisions(policy, file, NOON)))
    return found


def test_every_threshold_is_told_with_where_it_comes_from() -> None:
    lines = told().splitlines()
    at = lines.index("Thresholds")

    assert lines[at + 1 : at + 11] == [
        "  rpo_age: 36h (line 5)",
        "    clusters[1], project * cluster payments-*: 6h (line 17)",
        "    clusters[2], project 5f* cluster *: not judged (line 22)",
        "  gap: not judged (default)",
        "  token_spread: not judged (line 6)",
        "  token_distance: 15m (default)",
        "  run_time: 1h (default)",
        "  retention: not judged (default)",
        "  min_restorable: 1 (default)",
        "    clusters[2], project 5f* cluster *: not judged (line 23)",
    ]


def test_owners_population_and_announcement_are_told() -> None:
    text = told()

    assert text.startswith("policy night: night.toml, laid over the default\nsha256 ")
    assert "\n  allowed drop of the population: 0.2 (default)\n" in text
    assert "\n  waivers are announced 14d (default) before they lapse\n" in text
    assert "\n  owners are named by the column team (line 2)\n" in text
    assert (
        "\nOwners\n  clusters[1], project * cluster payments-*: team-payments (line 15)\n" in text
    )


def test_every_rule_is_told_with_its_terms_and_what_it_reads() -> None:
    text = told()

    for rule in RULES.values():
        assert f"\n    objects to a {rule.scope} where {rule.title}\n" in text
    assert (
        "  no-parts: low, FAIL (severity line 9, controls line 10)\n"
        "    objects to a checkpoint where it has no part that holds data\n"
        "    reads parts, parts[].typeName; source: the endpoint's reference page\n"
        "    bears on no control\n"
    ) in text
    assert "  run-time-unusual: medium, not judged (enabled line 13)\n" in text
    assert "  duplicate-part: medium, a finding only (default)\n" in text
    assert "    compares with rpo_age\n" in text


def test_waivers_are_told_with_their_state() -> None:
    assert told().endswith(
        "\nWaivers\n"
        "  W-7: lapses soon, last day 2026-12-01\n"
        "    excuses rules no-parts; cluster archive\n"
        "    because handed over\n"
        "    owner team-records, approved by head of operations"
    )


def test_the_default_policy_is_all_default() -> None:
    found = provisions(default_policy(), "", NOON)
    text = as_text(found)

    assert text.startswith("the default policy\nsha256 ")
    assert text.endswith("\nWaivers\n  none")
    assert "(line" not in text
    assert "column" not in text


def test_what_a_file_brings_along_cannot_steer_a_terminal() -> None:
    text = told(TEXT.replace("handed over", "\\u001b[2J\\nhanded   over \\u202e"))

    assert "\n    because \\x1b[2J handed over" in text
    assert all(character.isprintable() for character in text.replace("\n", ""))


def test_json_has_everything() -> None:
    found = document(read_policy(TEXT), "night.toml")

    assert set(found["rules"][0]) >= {"rule_id", "title", "severity", "fails", "controls", "reads"}
    assert [rule["rule_id"] for rule in found["rules"]] == list(RULES)
    assert set(found["rules"][0]["origins"]) == set(RuleTerms.__struct_fields__)
    assert [one["name"] for one in found["thresholds"]] == list(Thresholds.__struct_fields__)
    assert found["waivers"][0]["state"] == "lapses_soon"
    assert found["owners"][0]["origin"] == "line 15"
    assert (found["file"], found["policy_sha256"]) == ("night.toml", read_policy(TEXT).sha256)
    assert "waived" not in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "policy unnamed: 0 thresholds, 0 entries for clusters, 0 rules changed, 0 waivers"),
        (
            TEXT,
            (
                "policy night: 2 thresholds, 2 entries for clusters, 2 rules changed, "
                "1 waiver (1 lapses soon)"
            ),
        ),
        (
            TEXT + TEXT[TEXT.index("[[waivers]]") :].replace("W-7", "W-8").replace("2026", "2020"),
            (
                "policy night: 2 thresholds, 2 entries for clusters, 2 rules changed, "
                "2 waivers (1 lapsed, 1 lapses soon)"
            ),
        ),
    ],
)
def test_a_policy_in_a_line(text: str, said: str) -> None:
    assert in_short(read_policy(text), NOON) == said


# --- the sample ---------------------------------------------------------------------------------


def test_the_sample_is_good_and_says_something_of_everything() -> None:
    sample = read_file(SAMPLE)

    assert in_short(sample, NOON) == (
        "policy sample: 4 thresholds, 2 entries for clusters, 2 rules changed, "
        "2 waivers (2 in force)"
    )
    assert sample.owner_of("60" * 12, "payments-eu", {}) == "team-payments"
    assert sample.thresholds_of("60" * 12, "payments-eu").rpo_age == timedelta(hours=6)


def test_what_the_sample_says_of_the_default_is_so() -> None:
    """Its comments name the default's values."""
    text = SAMPLE.read_text("utf-8")
    default = document(default_policy(), "")
    values = {one["name"]: one["value"] for one in default["thresholds"]}

    assert '# token_spread = "60s"' in text
    assert values["token_spread"] == "1m"
    assert f'# token_distance = "{values["token_distance"]}"' in text
    assert f'# run_time = "{values["run_time"]}"' in text
    assert f'announce_waivers = "{default["announce_waivers"]["value"]}"' in text
