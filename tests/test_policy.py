"""The policy: laid over the default key by key, or refused with everything that is wrong."""

import hashlib
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.durations import as_duration
from pipeline.errors import ConfigurationWrong
from pipeline.outcomes import EXCUSABLE_KINDS, FailureKind
from pipeline.policy import (
    PolicyWrong,
    RuleTerms,
    Scope,
    Severity,
    Thresholds,
    Waiver,
    default_policy,
    read_policy,
    read_policy_file,
)
from pipeline.rules import RULES

DEFAULT = default_policy()
PROJECT = "5f" * 12
WAIVER = """
[[waivers]]
id = "W-7"
reason = "to be decommissioned"
owner = "team-orders"
approver = "ciso"
expires = 2027-03-31
"""


def changed(struct: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(struct, **changes)


# --- the default --------------------------------------------------------------------------------


def test_the_default_policy_knows_every_rule_and_no_other() -> None:
    assert set(DEFAULT.rules) == set(RULES)


def test_every_rule_of_the_default_policy_bears_on_a_control() -> None:
    """Controls are joined by "; " in a column, so none may hold one."""
    for terms in DEFAULT.rules.values():
        assert terms.controls
        assert not any(";" in control for control in terms.controls)


def test_the_default_policy_claims_nothing_of_pci() -> None:
    """PCI DSS sets no backup frequency, and the API shows no restore test."""
    assert "PCI" not in DEFAULT.text


def test_the_default_policy_guesses_no_requirement_of_anyone() -> None:
    """How old, how far apart and for how long, only those who rely on it can say."""
    assert DEFAULT.thresholds == Thresholds(
        token_spread=timedelta(seconds=60),
        token_distance=timedelta(minutes=15),
        run_time=timedelta(hours=1),
        min_restorable=1,
    )
    assert (DEFAULT.scopes, DEFAULT.waivers, DEFAULT.owner_label) == ((), (), "")
    assert (DEFAULT.name, DEFAULT.announce) == ("default", timedelta(days=14))


def test_severities_stand_worst_first() -> None:
    assert [severity.value for severity in Severity] == ["critical", "high", "medium", "low"]


# --- laid over the default ----------------------------------------------------------------------


def test_a_policy_keeps_its_text_and_its_digest() -> None:
    text = 'name = "é"\r\n'
    policy = read_policy(text)

    assert policy.text == text
    assert policy.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_an_empty_policy_is_the_default_under_no_name() -> None:
    assert read_policy("") == changed(DEFAULT, text="", base_text=DEFAULT.text, name="unnamed")


def test_the_default_laid_over_itself_is_itself() -> None:
    """A run that is completed reads the policy that it kept, which may be the default's text."""
    assert read_policy(DEFAULT.text) == changed(DEFAULT, base_text=DEFAULT.text)


def test_everything_a_policy_can_say() -> None:
    policy = read_policy(
        f"""
        name = "production"
        owner_label = "team"
        announce_waivers = "3w"
        [population]
        allowed_drop = 0
        [thresholds]
        rpo_age = "36h"
        gap = "90m"
        token_spread = "0s"
        token_distance = "none"
        retention = "35d"
        min_restorable = 0
        [rules.no-parts]
        severity = "low"
        controls = []
        [rules.completed-missing]
        fails = false
        [rules.no-config-part]
        enabled = false
        [[clusters]]
        project = "{PROJECT.upper()}"
        owner = "team-a"
        [[clusters]]
        cluster = "archive-*"
        rpo_age = "none"
        min_restorable = "none"
        {WAIVER}
        rules = ["no-parts"]
        kinds = ["cluster_not_found"]
        cluster = "orders"
        checkpoints = ["{"AB" * 12}"]
        """
    )

    assert (policy.name, policy.owner_label) == ("production", "team")
    assert (policy.announce, policy.population.allowed_drop) == (timedelta(days=21), 0)
    assert policy.thresholds == Thresholds(
        rpo_age=timedelta(hours=36),
        gap=timedelta(minutes=90),
        token_spread=timedelta(0),
        token_distance=None,
        run_time=DEFAULT.thresholds.run_time,
        retention=timedelta(days=35),
        min_restorable=0,
    )
    assert policy.rules == DEFAULT.rules | {
        "no-parts": RuleTerms(Severity.LOW),
        "completed-missing": changed(DEFAULT.rules["completed-missing"], fails=False),
        "no-config-part": changed(DEFAULT.rules["no-config-part"], enabled=False),
    }
    assert policy.scopes == (
        Scope(project=PROJECT, owner="team-a"),
        Scope(cluster="archive-*", thresholds={"rpo_age": None, "min_restorable": 0}),
    )
    assert policy.waivers == (
        Waiver(
            id="W-7",
            reason="to be decommissioned",
            owner="team-orders",
            approver="ciso",
            expires_on=date(2027, 3, 31),
            rules=("no-parts",),
            kinds=(FailureKind.CLUSTER_NOT_FOUND,),
            cluster="orders",
            checkpoints=("ab" * 12,),
        ),
    )


LIMITS = st.none() | st.integers(1, 999_999).map(lambda seconds: timedelta(seconds=seconds))
THRESHOLDS = st.dictionaries(
    st.sampled_from([name for name in Thresholds.__struct_fields__ if name != "min_restorable"]),
    LIMITS,
)
#: PASS means what it does because these are judged and fail.
FIXED = ("restorable-false", "restorable-not-reported")
RULES_SAID = st.dictionaries(
    st.sampled_from([rule_id for rule_id in RULES if rule_id not in FIXED]),
    st.fixed_dictionaries(
        {},
        optional={
            "severity": st.sampled_from(Severity),
            "fails": st.booleans(),
            "enabled": st.booleans(),
            "controls": st.lists(st.sampled_from("ABC")).map(tuple),
        },
    ),
)


def toml(value: Any) -> str:
    """Write one value as a policy file has it."""
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return f'"{as_duration(value)}"'
    return str(list(value)) if isinstance(value, tuple) else f'"{value}"'


def section(header: str, values: dict[str, Any]) -> str:
    return "\n".join([header, *(f"{key} = {toml(value)}" for key, value in values.items()), ""])


@given(THRESHOLDS, RULES_SAID)
def test_a_policy_changes_what_it_names_and_nothing_else(
    thresholds: dict[str, Any], rules: dict[str, dict[str, Any]]
) -> None:
    text = section("[thresholds]", thresholds)
    text += "".join(section(f"[rules.{rule_id}]", terms) for rule_id, terms in rules.items())

    assert read_policy(text) == changed(
        DEFAULT,
        text=text,
        base_text=DEFAULT.text,
        name="unnamed",
        thresholds=changed(DEFAULT.thresholds, **thresholds),
        rules=DEFAULT.rules | {one: changed(DEFAULT.rules[one], **to) for one, to in rules.items()},
    )


# --- by cluster ---------------------------------------------------------------------------------

SCOPES = f"""
owner_label = "team"
[thresholds]
rpo_age = "36h"
[[clusters]]
project = "5f*"
rpo_age = "6h"
gap = "2h"
owner = "all of 5f"
[[clusters]]
project = "{PROJECT}"
cluster = "Orders-[12]"
rpo_age = "none"
owner = "orders"
[[clusters]]
cluster = "*-2"
gap = "4h"
"""


@pytest.mark.parametrize(
    ("project", "cluster", "rpo_hours", "gap_hours", "owner"),
    [
        (PROJECT, "users", 6, 2, "all of 5f"),
        (PROJECT, "Orders-1", None, 2, "orders"),
        (PROJECT, "Orders-2", None, 4, "orders"),
        (PROJECT, "orders-1", 6, 2, "all of 5f"),
        (PROJECT, "Orders-3", 6, 2, "all of 5f"),
        ("60" * 12, "users-2", 36, 4, "by label"),
        ("60" * 12, "users", 36, None, "by label"),
    ],
)
def test_later_entries_go_before_earlier_ones_key_by_key(
    project: str, cluster: str, rpo_hours: int | None, gap_hours: int | None, owner: str
) -> None:
    """Globs know upper and lower case, as Atlas does."""
    policy = read_policy(SCOPES)
    thresholds = policy.thresholds_of(project, cluster)

    assert thresholds == changed(
        policy.thresholds,
        rpo_age=None if rpo_hours is None else timedelta(hours=rpo_hours),
        gap=None if gap_hours is None else timedelta(hours=gap_hours),
    )
    assert policy.owner_of(project, cluster, {"team": "by label"}) == owner


def test_nobody_owns_what_neither_scope_nor_label_names() -> None:
    assert read_policy(SCOPES).owner_of("60" * 12, "users", {"other": "x"}) == ""
    assert DEFAULT.owner_of(PROJECT, "users", {"team": "red"}) == ""


def test_waivers_of_a_cluster() -> None:
    text = f'{WAIVER}\nrules = ["no-parts"]\nproject = "5f*"\ncluster = "orders"\n'
    policy = read_policy(text)

    assert policy.waivers_of(PROJECT, "orders") == list(policy.waivers)
    assert policy.waivers_of(PROJECT, "orders-2") == []
    assert policy.waivers_of("60" * 12, "orders") == []


# --- refused ------------------------------------------------------------------------------------

DURATION = 'a duration of at most 36500d, as "60s", "90m", "36h" or "7d"'
LIMIT = f'{DURATION}, or "none"'
NO_SUCH_RULE = "did you mean no-parts?"
LAST = len(WAIVER.splitlines()) + 1

REFUSED = [
    ("[rules", "it is not TOML: Expected "),
    (f"a = {'[' * 20_000}", "it is not TOML: maximum recursion depth exceeded"),
    ("name = 1\nname = 2\n", "it is not TOML: Cannot overwrite a value (at line 2, column 9)"),
    ("names = 1", "names (line 1): there is no such key; did you mean name?"),
    ("name = 3", "name (line 1): found 3, wanted some text"),
    ('name = " "', 'name (line 1): found " ", wanted some text'),
    ("owner_label = []", "owner_label (line 1): found an empty list, wanted some text"),
    ("announce_waivers = 14", f"announce_waivers (line 1): found 14, wanted {DURATION}"),
    ('announce_waivers = "none"', f'announce_waivers (line 1): found "none", wanted {DURATION}'),
    ("population = 1", "population (line 1): found 1, wanted a table"),
    (
        "[population]\nallowed_drop = 1.01",
        "population.allowed_drop (line 2): found 1.01, wanted a share from 0 to 1, as 0.2",
    ),
    (
        "[population]\nallowed_drop = true",
        "population.allowed_drop (line 2): found true, wanted a share from 0 to 1, as 0.2",
    ),
    (
        "[population]\nallowed_drop = -0.1",
        "population.allowed_drop (line 2): found -0.1, wanted a share from 0 to 1, as 0.2",
    ),
    (
        "[population]\nallowed_drops = 0.2",
        "population.allowed_drops (line 2): there is no such key; did you mean allowed_drop?",
    ),
    (
        '[thresholds]\nrpo = "1h"',
        "thresholds.rpo (line 2): there is no such key; did you mean rpo_age?",
    ),
    ('[thresholds]\ngap = "90x"', f'thresholds.gap (line 2): found "90x", wanted {LIMIT}'),
    ('[thresholds]\ngap = "-1h"', f'thresholds.gap (line 2): found "-1h", wanted {LIMIT}'),
    ("[thresholds]\ngap = 90", f"thresholds.gap (line 2): found 90, wanted {LIMIT}"),
    ('[thresholds]\ngap = "36501d"', f'thresholds.gap (line 2): found "36501d", wanted {LIMIT}'),
    (
        '[thresholds]\nrpo_age = "0h"',
        f'thresholds.rpo_age (line 2): found "0h", wanted more than that: {LIMIT}',
    ),
    (
        '[thresholds]\ngap = "0h"',
        f'thresholds.gap (line 2): found "0h", wanted more than that: {LIMIT}',
    ),
    (
        '[thresholds]\nretention = "0d"',
        f'thresholds.retention (line 2): found "0d", wanted more than that: {LIMIT}',
    ),
    (
        "[thresholds]\nmin_restorable = -1",
        'thresholds.min_restorable (line 2): found -1, wanted a whole number from 0 on, or "none"',
    ),
    (
        "[thresholds]\nmin_restorable = true",
        (
            "thresholds.min_restorable (line 2): found true, wanted a whole number from 0 on, "
            'or "none"'
        ),
    ),
    ("[rules.no-part]", f"rules.no-part (line 1): there is no such rule; {NO_SUCH_RULE}"),
    (
        "[rules.zzz]",
        f"rules.zzz (line 1): there is no such rule; known are {', '.join(DEFAULT.rules)}",
    ),
    ("[rules]\nno-parts = 1", "rules.no-parts (line 2): found 1, wanted a table"),
    (
        '[rules.no-parts]\nseverity = "LOW"',
        'rules.no-parts.severity (line 2): found "LOW", wanted one of critical, high, medium, low',
    ),
    (
        '[rules.no-parts]\nfails = "no"',
        'rules.no-parts.fails (line 2): found "no", wanted true or false',
    ),
    (
        "[rules.no-parts]\nenabled = 0",
        "rules.no-parts.enabled (line 2): found 0, wanted true or false",
    ),
    *(
        (
            f"[rules.{rule_id}]\n{flag} = false",
            (
                f"rules.{rule_id}.{flag} (line 2): found false, wanted true: PASS says that Atlas "
                "reports it restorable; waive the FAIL instead"
            ),
        )
        for rule_id in FIXED
        for flag in ("fails", "enabled")
    ),
    (
        '[rules.no-parts]\ncontrols = "A"',
        'rules.no-parts.controls (line 2): found "A", wanted a list',
    ),
    (
        '[rules.no-parts]\ncontrols = ["A; B"]',
        (
            'rules.no-parts.controls (line 2): found "A; B", wanted the name of a control with its '
            "edition, without a semicolon"
        ),
    ),
    (
        "[rules.no-parts]\noff = true",
        (
            "rules.no-parts.off (line 2): there is no such key; known are severity, "
            "controls, fails, "
            "enabled"
        ),
    ),
    (
        "[clusters]",
        "clusters (line 1): found a table, wanted a list of tables, each under its own [[…]]",
    ),
    (
        '[[clusters]]\nowner = "me"',
        "clusters[1] (line 1): names no cluster; wanted `project`, `cluster` or both",
    ),
    (
        '[[clusters]]\ncluster = "*"',
        "clusters[1] (line 1): says nothing about its clusters; wanted `owner` or a threshold",
    ),
    (
        '[[clusters]]\ncluster = ""\nowner = "me"',
        'clusters[1].cluster (line 2): found "", wanted a cluster\'s name, or a glob of names',
    ),
    (
        '[[clusters]]\nproject = "My Project"\nowner = "me"',
        (
            'clusters[1].project (line 2): found "My Project", wanted a project\'s id, 24 '
            "hexadecimal "
            "digits, or a glob of ids"
        ),
    ),
    (
        '[[clusters]]\ncluster = "*"\nowner = "me"\n\n[[clusters]]\ncluster = "x"\nrpo_age = "9"',
        f'clusters[2].rpo_age (line 7): found "9", wanted {LIMIT}',
    ),
    (
        '[[clusters]]\ncluster = "x"\nowner = "me"\nrpo = "9h"',
        "clusters[1].rpo (line 4): there is no such key; did you mean rpo_age?",
    ),
    (WAIVER, "waivers[1] (waiver W-7, line 2): excuses nothing; wanted `rules`, `kinds` or both"),
    (
        f"{WAIVER}rules = []",
        (
            f"waivers[1].rules (waiver W-7, line {LAST}): found an empty list, wanted at "
            "least 1, or "
            "no such key"
        ),
    ),
    (
        f'{WAIVER}rules = ["no-part"]',
        (
            f'waivers[1].rules (waiver W-7, line {LAST}): found "no-part", wanted the id '
            "of a rule; "
            f"{NO_SUCH_RULE}"
        ),
    ),
    (
        f'{WAIVER}kinds = ["cluster_not_fond"]',
        (
            f'waivers[1].kinds (waiver W-7, line {LAST}): found "cluster_not_fond", '
            "wanted a kind of "
            "failure; did you mean cluster_not_found?"
        ),
    ),
    (
        f'{WAIVER}rules = ["no-parts"]\ncheckpoints = ["ab"]',
        (
            f'waivers[1].checkpoints (waiver W-7, line {LAST + 1}): found "ab", wanted a '
            "checkpoint's "
            "id, 24 hexadecimal digits"
        ),
    ),
    (
        f'{WAIVER}rules = ["no-parts"]\ncluster = " "',
        (
            f'waivers[1].cluster (waiver W-7, line {LAST + 1}): found " ", wanted a '
            "cluster's name, "
            "or a glob of names"
        ),
    ),
    (
        f'{WAIVER}rules = ["no-parts"]\nexpiry = 1',
        (
            f"waivers[1].expiry (waiver W-7, line {LAST + 1}): there is no such key; did you mean "
            "expires?"
        ),
    ),
    (
        f'{WAIVER}rules = ["no-parts"]{WAIVER}kinds = ["backups_absent"]',
        f'waivers[2].id (waiver W-7, line {LAST + 2}): "W-7" is the id of waivers[1] too',
    ),
    (
        f'{WAIVER}rules = ["no-parts"]'.replace('"W-7"', '"retention"'),
        (
            'waivers[1].id (line 3): found "retention", wanted up to 60 letters, digits and '
            ". _ - / # :, and not the word retention"
        ),
    ),
    (
        f'{WAIVER}rules = ["no-parts"]'.replace('"W-7"', '"W-7, W-8"'),
        (
            'waivers[1].id (line 3): found "W-7, W-8", wanted up to 60 letters, digits and '
            ". _ - / # :, and not the word retention"
        ),
    ),
    *(
        (
            f'{WAIVER}rules = ["no-parts"]'.replace("2027-03-31", expires),
            (
                f"waivers[1].expires (waiver W-7, line 7): found {found}, wanted its last day, a "
                "date before 2100 without quotes, as 2027-03-31"
            ),
        )
        for expires, found in [
            ('"2027-03-31"', '"2027-03-31"'),
            ("2027-03-31T00:00:00Z", "2027-03-31T00:00:00+00:00"),
            ("9999-12-31", "9999-12-31"),
            ("2100-01-01", "2100-01-01"),
        ]
    ),
    *(
        (
            "\n".join(
                line
                for line in f'{WAIVER}rules = ["no-parts"]'.splitlines()
                if not line.startswith(f"{key} =")
            ),
            f"waivers[1].{key} ({'' if key == 'id' else 'waiver W-7, '}line 2): missing",
        )
        for key in ("id", "reason", "owner", "approver", "expires")
    ),
    *(
        (
            f'{WAIVER}kinds = ["{kind}"]',
            (
                f'waivers[1].kinds (waiver W-7, line {LAST}): found "{kind}", wanted a '
                "kind that can "
                "be excused: checkpoint_absent, backups_absent, cluster_not_found, "
                "project_not_found, "
                "project_refused"
            ),
        )
        for kind in FailureKind
        if kind not in EXCUSABLE_KINDS
    ),
]


@pytest.mark.parametrize(("text", "fault"), REFUSED)
def test_a_wrong_policy_is_refused_with_what_is_wrong(text: str, fault: str) -> None:
    with pytest.raises(PolicyWrong) as caught:
        read_policy(text, "policy.toml")

    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(fault)
    assert str(caught.value).startswith(f"policy.toml cannot be used: {fault}")
    assert caught.value.exit_code == 78
    assert "policy check" in caught.value.hint


def test_all_faults_are_told_at_once() -> None:
    text = '[thresholds]\ngap = 1\n[rules.no-part]\n[[waivers]]\nid = "W-7"\n'
    with pytest.raises(PolicyWrong) as caught:
        read_policy(text)

    assert [fault.partition(" (")[0] for fault in caught.value.faults] == [
        "thresholds.gap",
        "rules.no-part",
        "waivers[1]",
        "waivers[1].reason",
        "waivers[1].owner",
        "waivers[1].approver",
        "waivers[1].expires",
    ]


def test_the_message_of_many_faults_is_bounded_and_the_faults_are_not() -> None:
    with pytest.raises(PolicyWrong) as caught:
        read_policy("".join(f"x{number} = 1\n" for number in range(25)))

    with pytest.raises(PolicyWrong) as few:
        read_policy("".join(f"x{number} = 1\n" for number in range(20)))

    assert len(caught.value.faults) == 25
    assert str(caught.value).endswith("; and 5 more")
    assert str(few.value).endswith(few.value.faults[-1])


# --- files --------------------------------------------------------------------------------------


def test_a_file_is_read_byte_by_byte(tmp_path: Path) -> None:
    """So that its digest is the one that other tools give."""
    file = tmp_path / "policy.toml"
    file.write_bytes(b'\xef\xbb\xbfname = "x"\r\n')
    policy = read_policy_file(file)

    assert policy.name == "x"
    assert policy.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationWrong, match="No such file") as missing:
        read_policy_file(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"\n')
    with pytest.raises(ConfigurationWrong, match="it is not UTF-8"):
        read_policy_file(tmp_path / "latin.toml")

    assert missing.value.hint
