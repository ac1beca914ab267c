"""How a triple ends: fetched or failed, and what that means for its verdict.

A failure is a value. `FailureKind` is the one vocabulary for everything that can go wrong with one
request, and the sets below are the only place that says what a kind leads to.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from pipeline.checkpoints import Checkpoint, CheckpointRef


class Verdict(StrEnum):
    """Every distinct triple ends in exactly one of these."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    ABSENT = "ABSENT"
    INCONCLUSIVE = "INCONCLUSIVE"


class FailureKind(StrEnum):
    """Why there is no checkpoint to judge."""

    CHECKPOINT_ABSENT = "checkpoint_absent"
    BACKUPS_ABSENT = "backups_absent"

    CLUSTER_NOT_FOUND = "cluster_not_found"
    PROJECT_NOT_FOUND = "project_not_found"
    ENDPOINT_NOT_FOUND = "endpoint_not_found"
    NOT_FOUND = "not_found"
    BAD_REQUEST = "bad_request"
    UNAUTHENTICATED = "unauthenticated"
    PROJECT_REFUSED = "project_refused"
    ACCOUNT_SUSPENDED = "account_suspended"
    ACCESS_LIST = "access_list"
    NOT_ACCEPTABLE = "not_acceptable"
    GONE = "gone"
    UNEXPECTED_STATUS = "unexpected_status"
    OTHER_CHECKPOINT = "other_checkpoint"
    TOO_LARGE = "too_large"

    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    CUT = "cut"
    UNREADABLE = "unreadable"

    NOT_ASKED = "not_asked"


class FetchBy(StrEnum):
    """How triples are asked for; the first two also say what answered one."""

    GET = "get"
    LIST = "list"
    AUTO = "auto"


#: Atlas itself says that there is no such checkpoint.
ABSENT_KINDS = frozenset({FailureKind.CHECKPOINT_ABSENT, FailureKind.BACKUPS_ABSENT})

#: What a waiver can excuse: Atlas's own word, which asking again does not change. Whatever leaves
#: open what Atlas would say (throttled, unreachable, not asked, withdrawn) is never among them.
EXCUSABLE_KINDS = ABSENT_KINDS | {
    FailureKind.CLUSTER_NOT_FOUND,
    FailureKind.PROJECT_NOT_FOUND,
    FailureKind.PROJECT_REFUSED,
}

#: Worth asking again within the run; a 429 is the token bucket's business and not among them.
TRANSIENT_KINDS = frozenset(
    {
        FailureKind.SERVER_ERROR,
        FailureKind.UNREACHABLE,
        FailureKind.TIMED_OUT,
        FailureKind.CUT,
        FailureKind.UNREADABLE,
    }
)

#: No answer to any triple but these: Atlas, or this API, is not there for this run.
UNAVAILABLE_KINDS = TRANSIENT_KINDS | {
    FailureKind.GONE,
    FailureKind.NOT_ACCEPTABLE,
    FailureKind.ENDPOINT_NOT_FOUND,
    FailureKind.NOT_ASKED,
}

#: A later start may get another answer: asked again when a run is resumed.
UNSETTLED_KINDS = UNAVAILABLE_KINDS | {FailureKind.THROTTLED}

#: What may end a triple without a reply to it: it was not asked before the deadline, or its project
#: was given up, for failures or for refusals (see `limits`). All else is a reply's word.
UNTOLD_KINDS = frozenset({FailureKind.NOT_ASKED, FailureKind.THROTTLED})

#: The whole run is refused, not one project of it.
RUN_ENDING_KINDS = frozenset({FailureKind.ACCESS_LIST, FailureKind.ACCOUNT_SUSPENDED})


class Refusal(msgspec.Struct, frozen=True):
    """What a 429 teaches about the bucket it came from; whatever it did not say is None.

    `capacity` in requests, `refill_rate` in requests per `refill_duration` (seconds),
    `retry_after` in seconds from the reply.
    """

    retry_after: float | None = None
    capacity: float | None = None
    refill_rate: float | None = None
    refill_duration: float | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why a triple has no checkpoint: the kind, and Atlas's or the network's own words.

    `http_status` is the true one (inside an envelope, where there was one) and None where no
    answer came. `retry_after` in seconds, where the answer asked for it.
    """

    kind: FailureKind
    http_status: int | None = None
    error_code: str | None = None
    detail: str = ""
    retry_after: float | None = None
    refusal: Refusal | None = None

    @property
    def is_transient(self) -> bool:
        """Whether the same request may well succeed a moment later."""
        return self.kind in TRANSIENT_KINDS

    @property
    def verdict(self) -> Verdict:
        """ABSENT where Atlas said so by its own error code, else INCONCLUSIVE."""
        return Verdict.ABSENT if self.kind in ABSENT_KINDS else Verdict.INCONCLUSIVE

    def __str__(self) -> str:
        """Say it in Atlas's or the network's own words; the kind alone where there are none."""
        words = (str(self.http_status or ""), self.error_code or "", self.detail)
        return " ".join(filter(None, words)) or self.kind


class Fetched(msgspec.Struct, frozen=True):
    """One triple answered with a checkpoint.

    `item` is the checkpoint's place in the reply where that is a page of a list. `attempts` are the
    requests for this triple alone.
    """

    checkpoint: Checkpoint
    reply_id: int
    attempts: int
    item: int | None = None


class Failed(msgspec.Struct, frozen=True):
    """One triple without a checkpoint.

    `reply_id` names the reply that says so; None where no reply does (the project was given up).
    """

    failure: Failure
    reply_id: int | None
    attempts: int


Outcome = Fetched | Failed


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Microseconds from 1970, UTC, to an aware time."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """The time, in UTC, so many microseconds after 1970."""
    return _EPOCH + timedelta(0, 0, microseconds)


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A triple with the answer that counts for it, and where that came from.

    `labels` is the JSON text of the input's other columns; `fetched_at` is when the reply had
    arrived, in microseconds since 1970, UTC; `reply_id` and `reply_sha256` name the reply in the
    evidence (None where there is none).
    """

    ref: CheckpointRef
    input_line: int
    labels: str
    found: Checkpoint | Failure
    attempts: int
    fetched_by: str
    fetched_at: int | None = None
    reply_id: int | None = None
    reply_sha256: str | None = None
