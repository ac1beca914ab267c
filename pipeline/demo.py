"""The demo: the same run as any other, against the embedded simulator over real HTTP.

The simulator knows what it planted. What the audit says is compared with that, triple by triple:
the verdict, and every finding.
"""

from dataclasses import dataclass

import msgspec

from pipeline.errors import ProgramFault
from pipeline.judgements import Judgement, Outcome
from pipeline.simulator.stories import cluster_findings

#: The columns of a demo's input that say how each triple should end, and which rules should object
#: to it, with semicolons between.
EXPECTED = "expected_verdict"
EXPECTED_FINDINGS = "expected_findings"

#: What a rule objects to: the words for a triple or a cluster, and the rule's id.
Accusation = tuple[str, str]


@dataclass
class Comparison:
    """What was planted, what of it was found, and what else was; one for a run.

    Triples whose line does not say what to find are left out, and so are clusters with such a line.
    """

    planted: int = 0
    found: int = 0
    others: int = 0

    @property
    def missed(self) -> int:
        """How much of what was planted was not found."""
        return self.planted - self.found

    @property
    def precision(self) -> float | None:
        """The share of what was found that had been planted; None where nothing was found."""
        every = self.found + self.others
        return self.found / every if every else None

    @property
    def recall(self) -> float | None:
        """The share of what was planted that was found; None where nothing was planted."""
        return self.found / self.planted if self.planted else None

    def __str__(self) -> str:
        return (
            f"planted {self.planted} sicknesses: found {self.found}, missed {self.missed}, "
            f"others {self.others} (precision {self.precision}, recall {self.recall})"
        )

    def check(self, judgement: Judgement) -> None:
        """Compare a cluster's verdicts and findings with what the input expects, where it does.

        Raises `ProgramFault` that names the first difference: program and simulator disagree about
        the API, or about what is sick.
        """
        for outcome in judgement.outcomes:
            _check_verdict(outcome)
        expected, found = _expected(judgement), _found(judgement)
        self.planted += len(expected)
        self.found += len(expected & found)
        self.others += len(found - expected)
        for what, rule_id in sorted(expected ^ found):
            said = "does not object" if (what, rule_id) in expected else "objects"
            raise ProgramFault(
                f"{what}: the rule {rule_id} {said}, which differs from the column "
                f"{EXPECTED_FINDINGS}",
                hint=_HINT,
            )


_HINT = (
    "take the columns that begin with expected_ out of an input of your own, or leave a cluster's "
    "lines together; if the input is the sample, please report this"
)


def _check_verdict(outcome: Outcome) -> None:
    wanted = _labels(outcome).get(EXPECTED) or outcome.verdict
    if wanted != outcome.verdict:
        raise ProgramFault(
            f"{_triple(outcome)} of line {outcome.input_line} ends as {outcome.verdict}, "
            f"the column {EXPECTED} wants {wanted}",
            hint=_HINT,
        )


def _expected(judgement: Judgement) -> set[Accusation]:
    """What the lines expect; of the cluster, what follows from that."""
    oldest_first = sorted(judgement.outcomes, key=lambda outcome: outcome.checkpoint_id)
    expected = {
        (_triple(outcome), rule_id)
        for outcome in oldest_first
        for rule_id in _expected_findings(outcome)
    }
    if _is_known(judgement):
        rules = cluster_findings(
            (_labels(outcome)[EXPECTED], _expected_findings(outcome)) for outcome in oldest_first
        )
        expected |= {(_cluster(judgement), rule_id) for rule_id in rules}
    return expected


def _expected_findings(outcome: Outcome) -> list[str]:
    return [one for one in _labels(outcome).get(EXPECTED_FINDINGS, "").split(";") if one]


def _found(judgement: Judgement) -> set[Accusation]:
    """What the rules object to, of what the lines speak of."""
    spoken_of = {
        outcome.checkpoint_id: _triple(outcome)
        for outcome in judgement.outcomes
        if EXPECTED_FINDINGS in _labels(outcome)
    }
    found = {
        (spoken_of[one.checkpoint_id], one.rule_id)
        for one in judgement.findings
        if one.checkpoint_id in spoken_of
    }
    if _is_known(judgement):
        against = [one.rule_id for one in judgement.findings if one.checkpoint_id is None]
        found |= {(_cluster(judgement), rule_id) for rule_id in against}
    return found


def _is_known(judgement: Judgement) -> bool:
    """Whether every line of a cluster says what to expect."""
    every = [_labels(outcome) for outcome in judgement.outcomes]
    return all(labels.get(EXPECTED) and EXPECTED_FINDINGS in labels for labels in every)


def _labels(outcome: Outcome) -> dict[str, str]:
    return msgspec.json.decode(outcome.labels, type=dict[str, str])


def _triple(outcome: Outcome) -> str:
    return f"{outcome.group_id}/{outcome.cluster_name}/{outcome.checkpoint_id}"


def _cluster(judgement: Judgement) -> str:
    return f"cluster {judgement.cluster.group_id}/{judgement.cluster.cluster_name}"
