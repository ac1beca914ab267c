"""The demo: the same run as any other, against the embedded simulator over real HTTP."""

import msgspec

from pipeline.errors import ProgramFault
from pipeline.judgements import Judgement

#: The column of a demo's input that says how each triple should end.
EXPECTED = "expected_verdict"


def check(judgement: Judgement) -> None:
    """Compare a cluster's verdicts with what the input expects of them, where it does.

    Raises `ProgramFault` for one that differs: program and simulator disagree about the API.
    """
    for outcome in judgement.outcomes:
        labels = msgspec.json.decode(outcome.labels, type=dict[str, str])
        wanted = labels.get(EXPECTED) or outcome.verdict
        if wanted != outcome.verdict:
            triple = f"{outcome.group_id}/{outcome.cluster_name}/{outcome.checkpoint_id}"
            raise ProgramFault(
                f"{triple} of line {outcome.input_line} ends as {outcome.verdict}, "
                f"the column {EXPECTED} wants {wanted}",
                hint=f"take the column {EXPECTED} out of an input of your own; "
                "if the input is the sample, please report this",
            )
