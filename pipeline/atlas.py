"""The Atlas Administration API as this program uses it: what to ask, how to read the answer.

Pure: `request_for` makes a `Request`, `read_reply` turns any `Reply` into a `Checkpoint` or a
`Failure` and raises nothing. Between the two stands the one seam of the program, the verb
`async send(Request) -> Reply`.

Facts come from the reference page of "Return One Legacy Backup Checkpoint" and from MongoDB's
pages on rate limits and on API versions, unless a comment names another source.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from pipeline.bodies import MAX_PARTS, read_checkpoint, read_documented
from pipeline.checkpoints import Checkpoint, CheckpointRef
from pipeline.outcomes import Failure, FailureKind, Refusal

T = TypeVar("T")

#: The resource's only version.
API_VERSION = "2023-01-01"
CHECKPOINT_MEDIA_TYPE = f"application/vnd.atlas.{API_VERSION}+json"
LIMITS_MEDIA_TYPE = "application/vnd.atlas.2025-03-12+json"
BASE_URL = "https://cloud.mongodb.com"

#: Headers worth keeping as evidence; the rest is never stored.
EVIDENCE_HEADERS = (
    "date",
    "content-type",
    "ratelimit-limit",
    "ratelimit-remaining",
    "retry-after",
    "deprecation",
    "sunset",
    "x-mongodb-service-version",
)

_HTTP_OK = 200
_DETAIL_CHARS = 1000


class Request(msgspec.Struct, frozen=True):
    """One GET. `path` is percent-encoded and holds the query; `group_id` names whose bucket pays.

    `group_id` is empty for requests that no project's bucket pays for.
    """

    path: str
    group_id: str = ""
    accept: str = CHECKPOINT_MEDIA_TYPE


class Reply(msgspec.Struct, frozen=True):
    """What came back for one request, or what kept it from coming back.

    `trouble` is set when no whole answer arrived, and `status` is 0 when not even its head did;
    `headers` are the chosen ones with lower-case names; `body` is as received, after content
    decoding, but for secrets of ours: `trouble_detail` says where one was taken out. Times are
    aware, in UTC.
    """

    status: int
    sent_at: datetime
    received_at: datetime
    headers: Mapping[str, str] = {}
    body: bytes = b""
    trouble: FailureKind | None = None
    trouble_detail: str = ""


class Limits(msgspec.Struct, frozen=True):
    """A token bucket as Atlas describes it.

    `capacity` in requests; `refill_rate` requests come back every `refill_duration` seconds.
    """

    capacity: float
    refill_rate: float
    refill_duration: float


def request_for(ref: CheckpointRef, *, envelope: bool = False) -> Request:
    """Ask for the checkpoint that `ref` names; `envelope` wraps the answer with its status."""
    path = f"{checkpoints_path(ref.group_id, ref.cluster_name)}/{quote(ref.checkpoint_id, safe='')}"
    return Request(path + "?envelope=true" if envelope else path, group_id=ref.group_id)


@lru_cache(maxsize=1024)
def checkpoints_path(group_id: str, cluster_name: str) -> str:
    """The path of a cluster's checkpoints, percent-encoded."""
    group_id, cluster_name = quote(group_id, safe=""), quote(cluster_name, safe="")
    return f"/api/atlas/v2/groups/{group_id}/clusters/{cluster_name}/backupCheckpoints"


def preliminary_request() -> Request:
    """Ask for one of the projects the credential sees: costs no project's bucket anything."""
    return Request("/api/atlas/v2/groups?itemsPerPage=1&pageNum=1")


#: The name of the endpoint set that the checkpoint resources belong to, and whose bucket it is.
_LIMITS_NAME, _LIMITS_SCOPE = "Legacy Backup", "GROUP"


def limits_request(group_id: str) -> Request:
    """Ask for a project's rate limits: costs the user's bucket a token, no project's."""
    about = f"groupId={quote(group_id, safe='')}&name={quote(_LIMITS_NAME)}"
    return Request(f"/api/atlas/v2/rateLimits?{about}", accept=LIMITS_MEDIA_TYPE)


# --- from a reply to a checkpoint or a failure ------------------------------------------------

#: (status, Atlas's error code) → kind. A code decides only together with the status it belongs to:
#: a proxy's 404 carries none, and must never read as an absence.
CODE_KINDS: dict[tuple[int, str], FailureKind] = {
    (400, "BACKUP_JOB_NOT_FOUND"): FailureKind.BACKUPS_ABSENT,
    (400, "BACKUP_CONFIG_NOT_FOUND"): FailureKind.BACKUPS_ABSENT,
    (400, "INVALID_VERSION_DATE"): FailureKind.NOT_ACCEPTABLE,  # elsewhere it comes with 406
    (401, "USER_UNAUTHORIZED"): FailureKind.PROJECT_REFUSED,
    (401, "NOT_IN_GROUP"): FailureKind.PROJECT_REFUSED,
    (401, "USER_CANNOT_ACCESS_GROUP"): FailureKind.PROJECT_REFUSED,
    (401, "NOT_ORG_GROUP_CREATOR"): FailureKind.PROJECT_REFUSED,
    (403, "IP_ADDRESS_NOT_ON_ACCESS_LIST"): FailureKind.ACCESS_LIST,
    (403, "ORG_REQUIRES_ACCESS_LIST"): FailureKind.ACCESS_LIST,
    (404, "CHECKPOINT_NOT_FOUND"): FailureKind.CHECKPOINT_ABSENT,
    (404, "INVALID_CHECKPOINT_ID"): FailureKind.CHECKPOINT_ABSENT,
    (404, "BACKUP_CONFIG_NOT_FOUND"): FailureKind.BACKUPS_ABSENT,
    (404, "BACKUP_JOB_NOT_FOUND"): FailureKind.BACKUPS_ABSENT,
    (404, "CLUSTER_NOT_FOUND"): FailureKind.CLUSTER_NOT_FOUND,
    (404, "GROUP_NOT_FOUND"): FailureKind.PROJECT_NOT_FOUND,
    (404, "RESOURCE_NOT_FOUND"): FailureKind.ENDPOINT_NOT_FOUND,
}

#: What a status means when no code says more. Every other status from 500 on is a server error,
#: every status left over an unexpected one.
STATUS_KINDS: dict[int, FailureKind] = {
    400: FailureKind.BAD_REQUEST,
    401: FailureKind.UNAUTHENTICATED,
    402: FailureKind.ACCOUNT_SUSPENDED,
    403: FailureKind.PROJECT_REFUSED,
    404: FailureKind.NOT_FOUND,
    406: FailureKind.NOT_ACCEPTABLE,
    408: FailureKind.TIMED_OUT,
    410: FailureKind.GONE,
    429: FailureKind.THROTTLED,
}

_FIRST_SERVER_ERROR = 500


def failure_kind(status: int, error_code: str | None) -> FailureKind:
    """Name the trouble that a status other than 200, with Atlas's code if any, stands for."""
    if error_code is not None and (status, error_code) in CODE_KINDS:
        return CODE_KINDS[status, error_code]
    if status >= _FIRST_SERVER_ERROR:
        return FailureKind.SERVER_ERROR
    return STATUS_KINDS.get(status, FailureKind.UNEXPECTED_STATUS)


class AtlasError(msgspec.Struct, frozen=True):
    """An error answer with all its attributes; only `error` and `errorCode` are promised.

    `parameters` holds values of any type, `fields` the (field, description) pairs of
    `badRequestDetail`.
    """

    error: int | None = None
    error_code: str | None = None
    reason: str | None = None
    detail: str | None = None
    parameters: tuple[Any, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        said = [self.detail or self.reason or ""]
        said += [f"{field}: {description}" for field, description in self.fields]
        if self.parameters:
            said.append(f"parameters {_text(self.parameters)}")
        return _shorten("; ".join(filter(None, said)))


def read_reply(ref: CheckpointRef, reply: Reply) -> Checkpoint | Failure:
    """Read any reply to `request_for(ref)`; never raises.

    A checkpoint is returned only for a whole 200 answer about the checkpoint that was asked for.
    """
    if reply.trouble is not None:
        return Failure(reply.trouble, reply.status or None, detail=_shorten(reply.trouble_detail))
    if reply.status == _HTTP_OK and (checkpoint := read_documented(ref, reply.body)) is not None:
        return checkpoint
    status, document = open_envelope(reply.status, _decode(reply.body))
    if status != _HTTP_OK:
        return _read_failure(status, document, reply)
    if not isinstance(document, dict) or not _is_checkpoint(document):
        return _unreadable(reply)
    return _refusable(ref, document) or read_checkpoint(document)


def read_item(ref: CheckpointRef, raw: bytes) -> Checkpoint | None:
    """Read what a page of a list holds for `ref`; None where that is no checkpoint about it."""
    if (checkpoint := read_documented(ref, raw)) is not None:
        return checkpoint
    document = _decode(raw)
    if not isinstance(document, dict) or not _is_checkpoint(document):
        return None
    return None if _refusable(ref, document) else read_checkpoint(document)


def read_preliminary(reply: Reply) -> Failure | None:
    """Read the reply to `preliminary_request`: what stands against it, or None."""
    if reply.trouble is not None:
        return Failure(reply.trouble, reply.status or None, detail=_shorten(reply.trouble_detail))
    if reply.status == _HTTP_OK:
        return None
    return _read_failure(reply.status, _decode(reply.body), reply)


def read_results(reply: Reply) -> list[Any] | Failure:
    """Read the reply to the request for one page of a list: its `results`, decoded, unread."""
    failure = read_preliminary(reply)
    if failure is not None:
        return failure
    document = _decode(reply.body)
    results = document.get("results") if isinstance(document, dict) else None
    return results if isinstance(results, list) else _unreadable(reply)


def read_limits(reply: Reply) -> Limits | Failure:
    """Read the reply to `limits_request`. Numbers are as they come: sane or not."""
    results = read_results(reply)
    if isinstance(results, Failure):
        return results
    wanted = (_LIMITS_NAME, _LIMITS_SCOPE)
    for limit in results:
        if isinstance(limit, dict) and (limit.get("endpointSetName"), limit.get("scope")) == wanted:
            numbers = [_read_limit_value(limit, name) for name in _LIMIT_FIELDS]
            known = [number for number in numbers if number is not None]
            return Limits(*known) if len(known) == len(numbers) else _unreadable(reply)
    return _unreadable(reply)


_LIMIT_FIELDS = ("capacity", "refillRate", "refillDurationSeconds")


def _read_limit_value(limit: Mapping[str, Any], name: str) -> float | None:
    """The value in force, which differs from `defaultValue` where a customer has another one."""
    field = limit.get(name)
    return _read_number(field.get("value")) if isinstance(field, dict) else None


def open_envelope(status: int, document: Any) -> tuple[int, Any]:
    """Take `{"status": …, "content": …}` apart; anything else is returned as it is.

    With `envelope=true` Atlas answers 200 whatever happened, and the true status is inside.
    """
    if status != _HTTP_OK or not isinstance(document, dict) or not document.keys() >= _ENVELOPE:
        return status, document
    inner = document["status"]
    if not isinstance(inner, int) or inner not in _STATUSES:
        return status, document
    return inner, document["content"]


_ENVELOPE = {"status", "content"}
_STATUSES = range(100, 600)


def _decode(body: bytes) -> Any:
    """JSON as plain values, or None where it is not JSON (nor is a bare `null` an answer)."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _read_failure(status: int, document: Any, reply: Reply) -> Failure:
    error = read_error(document)
    kind = failure_kind(status, error.error_code)
    if document is None and kind in _TOLD_BY_BODY and "json" in reply.headers.get(_TYPE, ""):
        return _unreadable(reply)  # cut short: what it would have said is worth asking again
    return Failure(
        kind,
        status,
        error.error_code and _shorten(error.error_code),
        str(error) or ("no detail given" if error.error_code else _excerpt(reply)),
        retry_after=read_retry_after(reply),
        refusal=_read_refusal(error, reply) if kind is FailureKind.THROTTLED else None,
    )


_TYPE = "content-type"

#: Kinds that a status alone does not make certain.
_TOLD_BY_BODY = frozenset(
    {
        FailureKind.BAD_REQUEST,
        FailureKind.UNAUTHENTICATED,
        FailureKind.PROJECT_REFUSED,
        FailureKind.NOT_FOUND,
    }
)


def _unreadable(reply: Reply) -> Failure:
    return Failure(FailureKind.UNREADABLE, reply.status, detail=_excerpt(reply))


#: What an answer says of a checkpoint; a gateway's own page may well hold a "timestamp".
_TELLING_FIELDS = ("id", "restorable", "parts")


def _is_checkpoint(document: Mapping[str, Any]) -> bool:
    return any(document.get(name) is not None for name in _TELLING_FIELDS)


def _refusable(ref: CheckpointRef, document: Mapping[str, Any]) -> Failure | None:
    """What keeps a checkpoint from being taken for the one that was asked for."""
    return _other_checkpoint(ref, document) or _too_many_parts(document)


def _too_many_parts(document: Mapping[str, Any]) -> Failure | None:
    parts = document.get("parts")
    if not isinstance(parts, list) or len(parts) <= MAX_PARTS:
        return None
    detail = f"the answer has {len(parts)} parts, more than any cluster can have ({MAX_PARTS})"
    return Failure(FailureKind.TOO_LARGE, _HTTP_OK, detail=detail)


def _other_checkpoint(ref: CheckpointRef, document: Mapping[str, Any]) -> Failure | None:
    """An answer that names another checkpoint or project than the one asked for.

    A name of another type than documented names none that was asked for.
    """
    for name, wanted in (("id", ref.checkpoint_id), ("groupId", ref.group_id)):
        found = document.get(name)
        if found is not None and not (isinstance(found, str) and found.lower() == wanted):
            detail = _shorten(f"the answer's {name} is {_text(found)}, asked for {_text(wanted)}")
            return Failure(FailureKind.OTHER_CHECKPOINT, _HTTP_OK, detail=detail)
    return None


def read_error(document: Any) -> AtlasError:
    """Read an error answer; whatever is missing or of another type than documented is left out."""
    if not isinstance(document, dict):
        return AtlasError()
    return AtlasError(
        error=_typed(document.get("error"), int),
        error_code=_typed(document.get("errorCode"), str),
        reason=_typed(document.get("reason"), str),
        detail=_typed(document.get("detail"), str),
        parameters=tuple(_typed(document.get("parameters"), list) or ()),
        fields=_read_violations(document.get("badRequestDetail")),
    )


def _read_violations(document: Any) -> tuple[tuple[str, str], ...]:
    fields = document.get("fields") if isinstance(document, dict) else None
    return tuple(
        (_typed(field.get("field"), str) or "?", _typed(field.get("description"), str) or "")
        for field in _typed(fields, list) or ()
        if isinstance(field, dict)
    )


def _typed(value: Any, kind: type[T]) -> T | None:
    return value if isinstance(value, kind) else None


def _text(value: Any) -> str:
    """A decoded value as JSON; what could just be read may be nested too deep to be written."""
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError:
        return "(nested too deep)"


def _excerpt(reply: Reply) -> str:
    """Say what came instead of an answer, with its beginning, on one line."""
    if not reply.body:
        return "the body is empty"
    media_type = reply.headers.get("content-type", "no content type")
    start = " ".join(reply.body[:120].decode("utf-8", "replace").split())[:80]
    return _shorten(f"not an answer of this API: {media_type}, {len(reply.body)} bytes: {start!r}")


def _shorten(text: str) -> str:
    return text if len(text) <= _DETAIL_CHARS else text[: _DETAIL_CHARS - 1] + "…"


# --- what a reply says about the rate limit ----------------------------------------------------


def read_retry_after(reply: Reply) -> float | None:
    """Seconds to wait, counted from the reply's arrival: a number, or the distance to an HTTP date.

    A date is compared with the answer's own `Date`, so that a wrong clock here does no harm. None
    where the header is missing or makes no sense; 0 is a value that Atlas has been seen to send.
    """
    value = reply.headers.get("retry-after", "").strip()
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        return float(value)
    until = _read_http_date(value)
    if until is None:
        return None
    now = _read_http_date(reply.headers.get("date", "")) or reply.received_at
    return max(0.0, (until - now).total_seconds())


def _read_http_date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def read_limit(reply: Reply) -> tuple[int | None, int | None]:
    """`RateLimit-Limit` and `RateLimit-Remaining`, in requests; None where missing or nonsense."""
    return (
        read_count(reply.headers.get("ratelimit-limit")),
        read_count(reply.headers.get("ratelimit-remaining")),
    )


def read_count(value: str | None) -> int | None:
    """Read a number of requests in a header; None where it is missing or nonsense."""
    return int(value) if value and re.fullmatch(r"\d{1,9}", value, re.ASCII) else None


_BUCKET_CODE = "RATE_LIMITED_TOKEN_BUCKET"


def _read_refusal(error: AtlasError, reply: Reply) -> Refusal:
    """Two forms are known: a token bucket's four numbers, and "n requests every m minutes".

    The first of the `parameters` is the path in both.
    """
    after = read_retry_after(reply)
    numbers = [_read_number(value) for value in error.parameters[1:]]
    if error.error_code == _BUCKET_CODE and len(numbers) == 4:  # noqa: PLR2004
        waits, capacity, rate, duration = numbers
        return Refusal(waits if after is None else after, capacity, rate, duration)
    if error.error_code == "RATE_LIMITED" and len(numbers) == 2 and numbers[1]:  # noqa: PLR2004
        requests, minutes = numbers
        return Refusal(after, requests, requests, (minutes or 0.0) * 60)
    return Refusal(after)


def _read_number(value: Any) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value, re.ASCII):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:  # noqa: PLR2004
        return float(value)
    return None
