"""What a rule is: an id, what it reads and why, and a pure function from a case to objections.

Every rule takes one case, which is all of one cluster's: a `Listed` where it judges checkpoints, a
`Standing` where it judges the cluster. It gives what it objects to, in any order, and nothing where
it cannot know. Rules change nothing, ask nobody, and do not know one another.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import msgspec

Case = TypeVar("Case")

#: Whence most facts are: the reference page of "Return One Legacy Backup Checkpoint".
PAGE = "the endpoint's reference page"
#: What the attributes mean for a restore.
MANUAL = "MongoDB's manual on legacy backups of sharded clusters"


class Objection(msgspec.Struct, frozen=True):
    """What a rule objects to: a sentence, what it saw, what it wanted to see.

    `place` is the answer's among the cluster's; None in an objection to the cluster.
    """

    place: int | None
    message: str
    observed: str
    expected: str


Objections = Iterator[Objection]


class Rule(NamedTuple, Generic[Case]):
    """One rule.

    `title` ends the sentence "it objects where …". `reads` are attributes of the API (`id`: the
    time in a checkpoint's own id), `thresholds` fields of `Thresholds`; `source` says where the
    fact is from that makes it a rule.
    """

    rule_id: str
    title: str
    scope: str
    reads: tuple[str, ...]
    thresholds: tuple[str, ...]
    source: str
    judge: Callable[[Case], Objections]


def rule(
    rule_id: str,
    title: str,
    *reads: str,
    source: str,
    thresholds: tuple[str, ...] = (),
    scope: str = "checkpoint",
) -> Callable[[Callable[[Case], Objections]], Rule[Case]]:
    """Make the decorated function a rule; its docstring gives the reasons."""

    def make(judge: Callable[[Case], Objections]) -> Rule[Case]:
        return Rule(rule_id, title, scope, reads, thresholds, source, judge)

    return make


def listing(names: Iterable[str], count: int) -> str:
    """Give the first few of `count` names; how many there are, and how long, the answer decides."""
    shown = [name[:_NAME_CHARS] for name in islice(names, _SHOWN_NAMES)]
    left_out = count - len(shown)
    return ", ".join(shown) + (f" and {left_out} more" if left_out else "")


_SHOWN_NAMES = 10
_NAME_CHARS = 100
