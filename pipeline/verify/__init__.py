"""Verifying a published run, offline: two questions, two answers.

*Intact*: is the folder as it was published? *Re-derived*: do its tables follow from the replies in
it? Somebody who forges an outcome and all digests fails the second; somebody who forges replies,
outcomes and digests alike is found only by a digest or a signature that lies elsewhere.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from pipeline.cells import visible
from pipeline.errors import AuditError
from pipeline.published import read_run
from pipeline.verify.intact import Answer, Trust, answer_of, is_intact
from pipeline.verify.rederived import is_rederived


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Both answers about one run."""

    run_id: str
    sound: bool
    intact: Answer
    rederived: Answer


def verify(folder: Path, trust: Trust | None = None, strangers: Iterable[str] = ()) -> Verification:
    """Verify the run in a folder; `strangers` are files that lie beside its own elsewhere.

    Raises `ConfigurationWrong` where a signer is asked for and no signature can be checked.
    """
    intact = is_intact(folder, trust or Trust(), strangers)
    rederived = _rederived(folder)
    return Verification(
        run_id=folder.name,
        sound=intact.sound and rederived.sound,
        intact=intact,
        rederived=rederived,
    )


def _rederived(folder: Path) -> Answer:
    try:
        return is_rederived(read_run(folder))
    except AuditError as error:
        return answer_of((), [str(error)])


def as_text(found: Verification) -> str:
    """Say it in lines for people; names of files and what the run says begin none of their own."""
    lines = [f"run {found.run_id}: {'sound' if found.sound else 'NOT SOUND'}"]
    lines += _lines("intact", found.intact)
    lines += _lines("re-derived", found.rederived)
    return "\n".join(map(visible, lines)) + "\n"


def _lines(question: str, answer: Answer) -> list[str]:
    left_out = answer.problem_count - len(answer.problems)
    return [
        f"{question}: {'yes' if answer.sound else 'NO'}",
        *(f"  wrong: {problem}" for problem in answer.problems),
        *([f"  wrong: {left_out:,} more"] if left_out else []),
        *(f"  {said}" for said in answer.said),
    ]
