"""The API, both ways: paths out of triples, checkpoints and failures out of replies."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.atlas import (
    CHECKPOINT_MEDIA_TYPE,
    CODE_KINDS,
    EVIDENCE_HEADERS,
    LIMITS_MEDIA_TYPE,
    STATUS_KINDS,
    AtlasError,
    Limits,
    Reply,
    Request,
    limits_request,
    preliminary_request,
    read_error,
    read_item,
    read_limit,
    read_limits,
    read_preliminary,
    read_reply,
    read_retry_after,
    request_for,
)
from pipeline.bodies import MAX_PARTS
from pipeline.checkpoints import Anomaly, Checkpoint, CheckpointRef, Part, TokenTimestamp
from pipeline.outcomes import Failure, FailureKind, Refusal, Verdict

NOW = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
EXAMPLE_ID = "32b6e34b3d91647abb20e7b8"
REF = CheckpointRef(EXAMPLE_ID, "orders", EXAMPLE_ID)


def reply(status: int, document: Any = None, **headers: str) -> Reply:
    """Make a reply; `document` is bytes as they are, or anything that JSON can say."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, NOW, NOW, named, body)


def failed(answer: Checkpoint | Failure) -> Failure:
    assert isinstance(answer, Failure)
    return answer


def fetched(answer: Checkpoint | Failure) -> Checkpoint:
    assert isinstance(answer, Checkpoint)
    return answer


# --- the reference page's own examples ----------------------------------------------------------

EXAMPLE: dict[str, Any] = {
    "clusterId": EXAMPLE_ID,
    "completed": "2025-05-04T09:42:00Z",
    "groupId": EXAMPLE_ID,
    "id": EXAMPLE_ID,
    "links": [{"href": "https://cloud.mongodb.com/api/atlas", "rel": "self"}],
    "parts": [
        {
            "replicaSetName": "string",
            "shardName": "string",
            "tokenDiscovered": True,
            "tokenTimestamp": {"date": "2025-05-04T09:42:00Z", "increment": 1199145600},
            "typeName": "REPLICA_SET",
        }
    ],
    "restorable": True,
    "started": "2025-05-04T09:42:00Z",
    "timestamp": "2025-05-04T09:42:00Z",
}
EXAMPLE_TIME = datetime(2025, 5, 4, 9, 42, tzinfo=UTC)
EXAMPLE_CHECKPOINT = Checkpoint(
    id=EXAMPLE_ID,
    group_id=EXAMPLE_ID,
    cluster_id=EXAMPLE_ID,
    started=EXAMPLE_TIME,
    completed=EXAMPLE_TIME,
    timestamp=EXAMPLE_TIME,
    restorable=True,
    parts=(
        Part(
            type_name="REPLICA_SET",
            replica_set_name="string",
            shard_name="string",
            token_discovered=True,
            token_timestamp=TokenTimestamp(EXAMPLE_TIME, 1199145600),
        ),
    ),
)
JUST_AN_EXAMPLE = (
    "(This is just an example, the exception may not be related to this endpoint)"  # as on the page
)


def example_error(status: int, reason: str, code: str, more: str = "") -> dict[str, Any]:
    detail = JUST_AN_EXAMPLE + more
    return {"error": status, "detail": detail, "reason": reason, "errorCode": code}


EXAMPLE_ERRORS = [
    (
        example_error(400, "Bad Request", "VALIDATION_ERROR", " No provider AWS exists."),
        FailureKind.BAD_REQUEST,
    ),
    (
        example_error(401, "Unauthorized", "NOT_ORG_GROUP_CREATOR"),
        FailureKind.PROJECT_REFUSED,
    ),
    (
        example_error(403, "Forbidden", "CANNOT_CHANGE_GROUP_NAME"),
        FailureKind.PROJECT_REFUSED,
    ),
    (
        example_error(404, "Not Found", "RESOURCE_NOT_FOUND", " Cannot find resource AWS"),
        FailureKind.ENDPOINT_NOT_FOUND,
    ),
    (
        example_error(500, "Internal Server Error", "UNEXPECTED_ERROR"),
        FailureKind.SERVER_ERROR,
    ),
]


def test_the_pages_example_answer_is_read_in_full() -> None:
    assert read_reply(REF, reply(200, EXAMPLE)) == EXAMPLE_CHECKPOINT


@pytest.mark.parametrize(("document", "kind"), EXAMPLE_ERRORS)
def test_the_pages_example_errors_are_read_in_full(
    document: dict[str, Any], kind: FailureKind
) -> None:
    error = read_error(document)
    failure = read_reply(REF, reply(document["error"], document))

    assert error == AtlasError(
        document["error"], document["errorCode"], document["reason"], document["detail"]
    )
    assert failure == Failure(kind, document["error"], document["errorCode"], document["detail"])
    assert failed(failure).verdict is Verdict.INCONCLUSIVE


def test_an_error_keeps_every_attribute_that_the_page_lists() -> None:
    document = {
        "badRequestDetail": {"fields": [{"description": "must not be null", "field": "id"}]},
        "detail": "Wrong.",
        "error": 400,
        "errorCode": "VALIDATION_ERROR",
        "parameters": ["10.0.0.1", 7, None, {"a": [True]}],
        "reason": "Bad Request",
    }
    error = read_error(document)

    assert error == AtlasError(
        error=400,
        error_code="VALIDATION_ERROR",
        reason="Bad Request",
        detail="Wrong.",
        parameters=("10.0.0.1", 7, None, {"a": [True]}),
        fields=(("id", "must not be null"),),
    )
    assert str(error) == (
        'Wrong.; id: must not be null; parameters ["10.0.0.1",7,null,{"a":[true]}]'
    )


def test_the_reason_speaks_where_there_is_no_detail() -> None:
    failure = failed(read_reply(REF, reply(404, {"error": 404, "reason": "Not Found"})))

    assert failure.detail == "Not Found"


# --- status and code → kind → verdict -----------------------------------------------------------

K = FailureKind
CODES = [
    (400, "VALIDATION_ERROR", K.BAD_REQUEST),
    (400, "INVALID_PATH_PARAMETER", K.BAD_REQUEST),
    (400, "BACKUP_JOB_NOT_FOUND", K.BACKUPS_ABSENT),
    (400, "BACKUP_CONFIG_NOT_FOUND", K.BACKUPS_ABSENT),
    (400, "INVALID_VERSION_DATE", K.NOT_ACCEPTABLE),
    (400, "CHECKPOINT_NOT_FOUND", K.BAD_REQUEST),
    (400, None, K.BAD_REQUEST),
    (401, "UNEXPECTED_ERROR", K.UNAUTHENTICATED),
    (401, None, K.UNAUTHENTICATED),
    (401, "USER_UNAUTHORIZED", K.PROJECT_REFUSED),
    (401, "NOT_IN_GROUP", K.PROJECT_REFUSED),
    (401, "USER_CANNOT_ACCESS_GROUP", K.PROJECT_REFUSED),
    (401, "NOT_ORG_GROUP_CREATOR", K.PROJECT_REFUSED),
    (402, "ACCOUNT_SUSPENDED", K.ACCOUNT_SUSPENDED),
    (403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", K.ACCESS_LIST),
    (403, "ORG_REQUIRES_ACCESS_LIST", K.ACCESS_LIST),
    (403, "ACCESS_FORBIDDEN", K.PROJECT_REFUSED),
    (403, "CHECKPOINT_NOT_FOUND", K.PROJECT_REFUSED),
    (403, None, K.PROJECT_REFUSED),
    (404, "CHECKPOINT_NOT_FOUND", K.CHECKPOINT_ABSENT),
    (404, "INVALID_CHECKPOINT_ID", K.CHECKPOINT_ABSENT),
    (404, "BACKUP_CONFIG_NOT_FOUND", K.BACKUPS_ABSENT),
    (404, "BACKUP_JOB_NOT_FOUND", K.BACKUPS_ABSENT),
    (404, "CLUSTER_NOT_FOUND", K.CLUSTER_NOT_FOUND),
    (404, "GROUP_NOT_FOUND", K.PROJECT_NOT_FOUND),
    (404, "RESOURCE_NOT_FOUND", K.ENDPOINT_NOT_FOUND),
    (404, "checkpoint_not_found", K.NOT_FOUND),
    (404, "SOMETHING_NEW", K.NOT_FOUND),
    (404, "", K.NOT_FOUND),
    (404, None, K.NOT_FOUND),
    (406, "INVALID_VERSION_DATE", K.NOT_ACCEPTABLE),
    (406, "CHECKPOINT_NOT_FOUND", K.NOT_ACCEPTABLE),
    (408, None, K.TIMED_OUT),
    (410, "VERSION_GONE", K.GONE),
    (410, "CHECKPOINT_NOT_FOUND", K.GONE),
    (429, "RATE_LIMITED_TOKEN_BUCKET", K.THROTTLED),
    (429, "RATE_LIMITED", K.THROTTLED),
    (429, "CHECKPOINT_NOT_FOUND", K.THROTTLED),
    (429, None, K.THROTTLED),
    (500, "UNEXPECTED_ERROR", K.SERVER_ERROR),
    (500, "CHECKPOINT_NOT_FOUND", K.SERVER_ERROR),
    (502, None, K.SERVER_ERROR),
    (503, "SERVICE_UNAVAILABLE", K.SERVER_ERROR),
    (504, None, K.SERVER_ERROR),
    (599, None, K.SERVER_ERROR),
    (204, None, K.UNEXPECTED_STATUS),
    (302, None, K.UNEXPECTED_STATUS),
    (409, "CHECKPOINT_NOT_FOUND", K.UNEXPECTED_STATUS),
    (451, None, K.UNEXPECTED_STATUS),
]


def problem(status: int, code: str | None) -> dict[str, Any]:
    return {"error": status, "errorCode": code, "detail": "words"}


@pytest.mark.parametrize(("status", "code", "kind"), CODES)
def test_status_and_code_together_name_the_kind(
    status: int, code: str | None, kind: FailureKind
) -> None:
    """Only Atlas's own word, with the status it belongs to, is an absence."""
    failure = failed(read_reply(REF, reply(status, problem(status, code))))
    absent = kind in (K.CHECKPOINT_ABSENT, K.BACKUPS_ABSENT)

    assert (failure.kind, failure.http_status, failure.error_code) == (kind, status, code)
    assert failure.verdict is (Verdict.ABSENT if absent else Verdict.INCONCLUSIVE)


def test_every_code_and_status_that_is_known_has_its_case() -> None:
    cases = {(status, code) for status, code, _ in CODES}

    assert cases >= set(CODE_KINDS)
    assert {status for status, _ in cases} >= set(STATUS_KINDS)


def test_an_absence_needs_400_or_404_and_its_code() -> None:
    absences = {(s, c) for (s, c), kind in CODE_KINDS.items() if Failure(kind).verdict == "ABSENT"}

    assert absences == {
        (404, "CHECKPOINT_NOT_FOUND"),
        (404, "INVALID_CHECKPOINT_ID"),
        (404, "BACKUP_JOB_NOT_FOUND"),
        (404, "BACKUP_CONFIG_NOT_FOUND"),
        (400, "BACKUP_JOB_NOT_FOUND"),
        (400, "BACKUP_CONFIG_NOT_FOUND"),
    }


# --- bodies that are no answers -----------------------------------------------------------------

WHOLE = json.dumps(EXAMPLE).encode()
NOT_FOUND_BODY = json.dumps(problem(404, "CHECKPOINT_NOT_FOUND")).encode()
DEEP = 100_000
NO_ANSWERS = {
    "empty": b"",
    "blank": b" \n",
    "proxy's page": b"<html><body>404 CHECKPOINT_NOT_FOUND</body></html>",
    "plain words": b"CHECKPOINT_NOT_FOUND",
    "null": b"null",
    "true": b"true",
    "number": b"200",
    "text": b'"CHECKPOINT_NOT_FOUND"',
    "empty list": b"[]",
    "list of answers": b"[" + WHOLE + b"]",
    "empty object": b"{}",
    "gateway's own words": b'{"timestamp":"2026-11-20T03:00:00Z","path":"/api","message":"no"}',
    "ids of the page only": json.dumps({"groupId": EXAMPLE_ID, "clusterId": EXAMPLE_ID}).encode(),
    "nothing but nulls": b'{"id":null,"restorable":null,"parts":null}',
    "invalid UTF-8": WHOLE.replace(b'"string"', b'"\xff\xfe"'),
    "surrogate, raw": WHOLE.replace(b'"string"', b'"\xed\xa0\x80"'),
    "surrogate, escaped": WHOLE.replace(b'"string"', rb'"\ud800"'),
    "NaN": WHOLE.replace(b"1199145600", b"NaN"),
    "infinity": WHOLE.replace(b"1199145600", b"1e999"),
    "huge number": WHOLE.replace(b"1199145600", b"9" * 5000),
    "deep list": b"[" * DEEP + b"]" * DEEP,
    "deep object": b'{"parts":' * DEEP + b"1" + b"}" * DEEP,
    "two answers": WHOLE + WHOLE,
    "UTF-8 mark": b"\xef\xbb\xbf" + WHOLE,
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "NULs": b"\0" * 1000,
    "cut": WHOLE[:-1],
}
STATUSES = (200, 201, 204, 301, 400, 401, 402, 403, 404, 406, 410, 418, 429, 500, 502, 503, 504)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("media_type", ["", "text/html", "application/json"])
def test_what_is_no_answer_is_inconclusive(status: int, media_type: str) -> None:
    for body in NO_ANSWERS.values():
        failure = failed(read_reply(REF, reply(status, body, content_type=media_type)))

        assert failure.verdict is Verdict.INCONCLUSIVE, body[:80]
        assert failure.http_status == status
        assert failure.detail


@pytest.mark.parametrize("body", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_a_200_without_an_answer_is_asked_again(body: bytes) -> None:
    failure = failed(read_reply(REF, reply(200, body)))

    assert failure.kind is FailureKind.UNREADABLE
    assert failure.is_transient


def test_no_cut_of_an_answer_is_an_answer() -> None:
    answers = [read_reply(REF, reply(200, WHOLE[:end])) for end in range(len(WHOLE))]

    assert {failed(answer).kind for answer in answers} == {FailureKind.UNREADABLE}


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_cut_error_in_json_is_asked_again(status: int) -> None:
    """What it would have said is not known, and Atlas did want to say something."""
    cut = reply(status, NOT_FOUND_BODY[:-1], content_type="application/json;charset=utf-8")
    page = reply(status, b"<html>", content_type="text/html")

    assert failed(read_reply(REF, cut)).kind is FailureKind.UNREADABLE
    assert failed(read_reply(REF, page)).kind is STATUS_KINDS[status]


@pytest.mark.parametrize("status", [402, 406, 410, 429, 500])
def test_a_status_that_says_enough_needs_no_body(status: int) -> None:
    cut = reply(status, NOT_FOUND_BODY[:-1], content_type="application/json")

    assert failed(read_reply(REF, cut)).kind is STATUS_KINDS.get(status, FailureKind.SERVER_ERROR)


def test_of_a_field_given_twice_the_last_counts() -> None:
    """As with every JSON reader of note; which one Atlas means, nobody can know."""
    body = b'{"restorable":true,"id":"%s","restorable":false}' % EXAMPLE_ID.encode()

    assert fetched(read_reply(REF, reply(200, body))).restorable is False


def test_the_excerpt_of_what_came_instead_is_short_and_on_one_line() -> None:
    body = b"<html>\r\n<p>\xff" + b"x" * 10_000
    failure = failed(read_reply(REF, reply(502, body, content_type="text/html")))

    assert failure.detail.startswith("not an answer of this API: text/html, 10012 bytes: '<html>")
    assert len(failure.detail) < 200
    assert "\n" not in failure.detail


@pytest.mark.parametrize("kind", list(FailureKind))
def test_trouble_on_the_way_is_never_an_answer(kind: FailureKind) -> None:
    """However good the part of the answer looks that did arrive."""
    cut = Reply(200, NOW, NOW, {}, WHOLE, trouble=kind, trouble_detail="x" * 5000)
    failure = failed(read_reply(REF, cut))

    assert (failure.kind, failure.http_status) == (kind, 200)
    assert len(failure.detail) == 1000


def test_without_even_a_head_there_is_no_status() -> None:
    silence = Reply(0, NOW, NOW, trouble=FailureKind.UNREACHABLE, trouble_detail="refused")

    assert read_reply(REF, silence) == Failure(FailureKind.UNREACHABLE, None, detail="refused")


def test_an_error_nested_just_as_deep_as_can_be_read_is_read() -> None:
    """Reading, and writing again, reach their depth at different levels."""
    for depth in range(800, 1010):
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        error = read_reply(REF, reply(404, b'{"parameters":[%s]}' % nested))
        other = read_reply(REF, reply(200, b'{"id":%s}' % nested))

        assert failed(error).kind is K.NOT_FOUND
        assert failed(other).kind in (K.OTHER_CHECKPOINT, K.UNREADABLE)


def test_what_an_error_says_is_bounded() -> None:
    long = "x" * 100_000
    document = {"errorCode": long, "detail": long, "parameters": [long]}
    failure = failed(read_reply(REF, reply(404, document)))

    assert failure.error_code is not None
    assert (len(failure.error_code), len(failure.detail)) == (1000, 1000)


@pytest.mark.parametrize(
    "document",
    [
        {"error": "404", "errorCode": 7, "reason": [], "detail": {}, "parameters": "none"},
        {"errorCode": ["CHECKPOINT_NOT_FOUND"], "badRequestDetail": []},
        {"errorCode": None, "parameters": None, "badRequestDetail": {"fields": {"a": 1}}},
        {"errorCode": True, "badRequestDetail": {"fields": ["a", None, 1]}},
    ],
)
def test_an_error_of_other_types_than_documented_says_nothing(document: dict[str, Any]) -> None:
    failure = failed(read_reply(REF, reply(404, document)))

    assert (failure.kind, failure.error_code) == (FailureKind.NOT_FOUND, None)


def test_a_violation_without_words_is_still_counted() -> None:
    document = {"badRequestDetail": {"fields": [{}, {"field": 1, "description": 2}]}}

    assert read_error(document).fields == (("?", ""), ("?", ""))


# --- envelopes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code", "kind"), CODES)
def test_an_envelope_reads_as_what_is_inside(
    status: int, code: str | None, kind: FailureKind
) -> None:
    bare = read_reply(REF, reply(status, problem(status, code)))
    wrapped = read_reply(REF, reply(200, {"status": status, "content": problem(status, code)}))

    assert wrapped == bare
    assert failed(wrapped).kind is kind


def test_an_enveloped_checkpoint_is_read() -> None:
    wrapped = reply(200, {"status": 200, "content": EXAMPLE})

    assert read_reply(REF, wrapped) == EXAMPLE_CHECKPOINT


def test_an_enveloped_refusal_teaches_the_bucket() -> None:
    content = {"errorCode": "RATE_LIMITED_TOKEN_BUCKET", "parameters": ["/x", 3, 10, 5, 60]}
    failure = failed(read_reply(REF, reply(200, {"status": 429, "content": content})))

    assert failure.refusal == Refusal(3.0, 10.0, 5.0, 60.0)


NOT_FOUND = problem(404, "CHECKPOINT_NOT_FOUND")
NO_ENVELOPES: list[Any] = [
    {"status": 200},
    {"status": 404, **NOT_FOUND},
    {"content": EXAMPLE},
    {"status": 200, "content": None},
    {"status": 200, "content": []},
    {"status": 200, "content": json.dumps(EXAMPLE)},
    {"status": 200, "content": {"status": 200, "content": EXAMPLE}},
    *(
        {"status": status, "content": content}
        for status in ("200", "OK", 200.0, True, None, [200], -1, 0, 1, 99, 600, 2**31, 10**30)
        for content in (EXAMPLE, NOT_FOUND)
    ),
]


@pytest.mark.parametrize("document", NO_ENVELOPES)
def test_a_nonsense_envelope_is_unreadable(document: Any) -> None:
    failure = failed(read_reply(REF, reply(200, document)))

    assert (failure.kind, failure.http_status) == (FailureKind.UNREADABLE, 200)


@pytest.mark.parametrize("status", [404, 429, 500])
def test_only_a_200_is_an_envelope(status: int) -> None:
    """A status on the wire is not overruled by what a body claims."""
    wrapped = reply(status, {"status": 200, "content": EXAMPLE})

    assert failed(read_reply(REF, wrapped)).http_status == status


# --- an answer about another checkpoint ---------------------------------------------------------

OTHER = "f" * 24


@pytest.mark.parametrize("name", ["id", "groupId"])
@pytest.mark.parametrize("value", [OTHER, "", "x", EXAMPLE_ID + " ", 7, True, [EXAMPLE_ID], {}])
def test_an_answer_that_names_another_is_no_answer(name: str, value: Any) -> None:
    """A name that cannot be compared names nothing that was asked for."""
    failure = failed(read_reply(REF, reply(200, EXAMPLE | {name: value})))

    assert (failure.kind, failure.verdict) == (K.OTHER_CHECKPOINT, Verdict.INCONCLUSIVE)
    assert name in failure.detail


@pytest.mark.parametrize("part", [{}, {"typeName": "REPLICA_SET"}, 7])
def test_more_parts_than_a_cluster_can_have_are_too_many(part: Any) -> None:
    """Nor does a page of a list answer with them."""
    most, more = ({**EXAMPLE, "parts": [part] * count} for count in (MAX_PARTS, MAX_PARTS + 1))
    failure = failed(read_reply(REF, reply(200, more)))

    assert len(fetched(read_reply(REF, reply(200, most))).parts) == MAX_PARTS
    assert (failure.kind, failure.verdict) == (K.TOO_LARGE, Verdict.INCONCLUSIVE)
    assert read_item(REF, reply(200, most).body) is not None
    assert read_item(REF, reply(200, more).body) is None


def test_the_id_of_the_cluster_is_not_compared() -> None:
    """The triple names the cluster by its name, which no answer holds."""
    answer = fetched(read_reply(REF, reply(200, EXAMPLE | {"clusterId": OTHER})))

    assert answer.cluster_id == OTHER


@pytest.mark.parametrize("missing", [{"id"}, {"groupId"}, {"id", "groupId"}])
def test_an_answer_may_leave_its_ids_out(missing: set[str]) -> None:
    """Atlas leaves out what has no value; the anomaly says that nothing was compared."""
    document = {name: value for name, value in EXAMPLE.items() if name not in missing}
    answer = fetched(read_reply(REF, reply(200, document)))

    assert (Anomaly.ID_MISSING in answer.anomalies) is ("id" in missing)


def test_ids_are_compared_without_case_and_noted() -> None:
    document = EXAMPLE | {"id": EXAMPLE_ID.upper()}
    answer = fetched(read_reply(REF, reply(200, document)))

    assert (answer.id, answer.anomalies) == (EXAMPLE_ID, (Anomaly.BAD_ID,))


# --- any reply at all ---------------------------------------------------------------------------

FIELD_NAMES = st.sampled_from(
    [
        *("id", "groupId", "clusterId", "started", "completed", "timestamp", "restorable"),
        *("parts", "typeName", "replicaSetName", "shardName", "tokenDiscovered", "tokenTimestamp"),
        *("date", "increment", "status", "content", "error", "errorCode", "reason", "detail"),
        *("parameters", "badRequestDetail", "fields", "field", "description"),
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=20),  # surrogates too
    st.sampled_from(
        [EXAMPLE_ID, "2025-05-04T09:42:00Z", "CHECKPOINT_NOT_FOUND", "RATE_LIMITED", 200, 404, 429]
    ),
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(FIELD_NAMES | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=25,
)
BODIES = st.binary(max_size=200) | DOCUMENTS.map(lambda document: json.dumps(document).encode())
HEADER_VALUES = st.text(max_size=40) | st.sampled_from(["0", "5", "Wed, 21 Oct 2026 07:28:00 GMT"])
HEADERS = st.dictionaries(st.sampled_from(EVIDENCE_HEADERS), HEADER_VALUES, max_size=4)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(STATUSES), BODIES, HEADERS)
def test_any_reply_is_read(status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Nothing raises; a checkpoint comes of a 200 alone, an absence of its code alone."""
    any_reply = Reply(status, NOW, NOW, headers, body)
    answer = read_reply(REF, any_reply)
    read_limit(any_reply)
    read_preliminary(any_reply)
    read_limits(any_reply)

    assert not isinstance(answer, Checkpoint) or status == 200
    assert isinstance(answer, Checkpoint) or answer.verdict == "INCONCLUSIVE" or answer.error_code


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, st.sampled_from(["id", "groupId", "parts", "restorable", "completed"]))
def test_a_checkpoint_with_anything_in_one_field_is_about_the_triple_or_refused(
    value: Any, name: str
) -> None:
    answer = read_reply(REF, reply(200, json.dumps(EXAMPLE | {name: value}).encode()))

    if isinstance(answer, Checkpoint):
        assert answer.id in (EXAMPLE_ID, None)
        assert answer.group_id in (EXAMPLE_ID, None)


MOMENTS = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - the zone is drawn beside it
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


CHECKPOINTS = st.builds(
    Checkpoint,
    id=st.just(EXAMPLE_ID),
    group_id=optional(st.just(EXAMPLE_ID)),
    cluster_id=optional(st.from_regex(r"[a-f0-9]{24}", fullmatch=True)),
    started=optional(MOMENTS),
    completed=optional(MOMENTS),
    timestamp=optional(MOMENTS),
    restorable=optional(st.booleans()),
    parts=st.lists(
        st.builds(
            Part,
            type_name=optional(
                st.sampled_from(["REPLICA_SET", "CONFIG_SERVER", "CONFIG_SERVER_REPLICA_SET"])
            ),
            replica_set_name=optional(NAMES),
            shard_name=optional(NAMES),
            token_discovered=optional(st.booleans()),
            token_timestamp=optional(
                st.builds(
                    TokenTimestamp,
                    date=optional(MOMENTS),
                    increment=optional(st.integers(-(2**63), 2**63 - 1)),
                )
            ),
        ),
        max_size=4,
    ).map(tuple),
    anomalies=st.just(()),
)
ZONES = st.sampled_from(
    [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))]
)


def written(checkpoint: Checkpoint, zone: timezone) -> dict[str, Any]:
    """Write a checkpoint as Atlas would: what has no value is left out."""

    def moment(value: datetime | None) -> str | None:
        return value.astimezone(zone).isoformat().replace("+00:00", "Z") if value else None

    def part(value: Part) -> dict[str, Any]:
        token = value.token_timestamp
        return said(
            typeName=value.type_name,
            replicaSetName=value.replica_set_name,
            shardName=value.shard_name,
            tokenDiscovered=value.token_discovered,
            tokenTimestamp=said(date=moment(token.date), increment=token.increment)
            if token
            else None,
        )

    return said(
        id=checkpoint.id,
        groupId=checkpoint.group_id,
        clusterId=checkpoint.cluster_id,
        started=moment(checkpoint.started),
        completed=moment(checkpoint.completed),
        timestamp=moment(checkpoint.timestamp),
        restorable=checkpoint.restorable,
        parts=[part(one) for one in checkpoint.parts],
    )


def said(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@settings(max_examples=200, deadline=None)
@given(CHECKPOINTS, ZONES)
def test_a_valid_body_is_read_as_it_was_written(checkpoint: Checkpoint, zone: timezone) -> None:
    document = written(checkpoint, zone)

    assert read_reply(REF, reply(200, document)) == checkpoint
    assert read_reply(REF, reply(200, {"status": 200, "content": document})) == checkpoint


# --- rate limits --------------------------------------------------------------------------------

RETRY_AFTER = [
    ("0", 0.0),
    ("5", 5.0),
    (" 5 ", 5.0),
    ("1.5", 1.5),
    ("999999999", 999_999_999.0),
    ("Fri, 20 Nov 2026 03:01:30 GMT", 90.0),
    ("Fri, 20 Nov 2026 04:01:30 +0100", 90.0),
    ("Fri, 20 Nov 2026 03:01:30", 90.0),
    ("Fri, 20 Nov 2026 02:00:00 GMT", 0.0),
    ("", None),
    ("-1", None),
    ("+5", None),
    ("1e3", None),
    ("nan", None),
    ("inf", None),
    ("soon", None),
    ("5, 6", None),
    ("٣", None),  # a digit, but not one of ours
    ("1234567890", None),
    ("Mon, 31 Feb 2026 00:00:00 GMT", None),
    ("1 Jan 1 00:00 +9999", None),
]


@pytest.mark.parametrize(("value", "seconds"), RETRY_AFTER)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert read_retry_after(reply(429, b"", retry_after=value)) == seconds


def test_retry_after_a_date_counts_from_the_answers_own_clock() -> None:
    """Ours may be wrong, by hours."""
    late = reply(
        503,
        b"",
        retry_after="Fri, 20 Nov 2026 09:01:30 GMT",
        date="Fri, 20 Nov 2026 09:00:00 GMT",
    )

    assert read_retry_after(late) == 90.0


@pytest.mark.parametrize("status", [429, 500, 503, 404])
def test_every_failure_tells_when_to_come_again(status: int) -> None:
    failure = failed(read_reply(REF, reply(status, {}, retry_after="7")))

    assert failure.retry_after == 7.0


def refusal(code: str, parameters: Any, **headers: str) -> Refusal | None:
    document = {"error": 429, "errorCode": code, "parameters": parameters}
    return failed(read_reply(REF, reply(429, document, **headers))).refusal


BUCKET = "RATE_LIMITED_TOKEN_BUCKET"
REFUSALS = [
    (BUCKET, ["/path", 12, 1200, 500, 60], Refusal(12.0, 1200.0, 500.0, 60.0)),
    (BUCKET, ["/path", "12", "1200", "500", "60"], Refusal(12.0, 1200.0, 500.0, 60.0)),
    (BUCKET, ["/path", 0, 1200, 500, 60], Refusal(0.0, 1200.0, 500.0, 60.0)),
    (BUCKET, ["/path", 0.5, 1200, 500, 60], Refusal(0.5, 1200.0, 500.0, 60.0)),
    (BUCKET, ["/path", None, -1, 1e12, True], Refusal()),
    (BUCKET, ["/path", 12, 10**30, "many", []], Refusal(12.0)),
    (BUCKET, ["/path", 12, 1200, 500], Refusal()),
    (BUCKET, ["/path", 12, 1200, 500, 60, 1], Refusal()),
    (BUCKET, [], Refusal()),
    (BUCKET, None, Refusal()),
    (BUCKET, "12", Refusal()),
    ("RATE_LIMITED", ["/path", 100, 2], Refusal(None, 100.0, 100.0, 120.0)),
    ("RATE_LIMITED", ["/path", 100, 0], Refusal()),
    ("RATE_LIMITED", ["/path", 100, None], Refusal()),
    ("RATE_LIMITED", ["/path"], Refusal()),
    ("SOMETHING_NEW", ["/path", 12, 1200, 500, 60], Refusal()),
    ("SOMETHING_NEW", ["/path", 100, 2], Refusal()),
]


@pytest.mark.parametrize(("code", "parameters", "expected"), REFUSALS)
def test_what_a_refusal_teaches(code: str, parameters: Any, expected: Refusal) -> None:
    assert refusal(code, parameters) == expected


def test_the_header_is_believed_before_the_parameters() -> None:
    taught = refusal(BUCKET, ["/path", 12, 1200, 500, 60], retry_after="3")

    assert taught == Refusal(3.0, 1200.0, 500.0, 60.0)


def test_only_a_refusal_teaches() -> None:
    """The same words with another status are no 429."""
    document = {"errorCode": BUCKET, "parameters": ["/path", 12, 1200, 500, 60]}

    assert failed(read_reply(REF, reply(503, document))).refusal is None


COUNTS = [
    ("1200", 1200),
    ("0", 0),
    ("", None),
    ("-1", None),
    ("1e3", None),
    ("12.5", None),
    ("many", None),
    ("1200, 1200;w=60", None),
    ("1234567890", None),
    ("1" * 5000, None),
    ("٣", None),
]


@pytest.mark.parametrize(("value", "count"), COUNTS)
def test_rate_limit_headers(value: str, count: int | None) -> None:
    assert read_limit(reply(200, b"", ratelimit_limit=value)) == (count, None)
    assert read_limit(reply(200, b"", ratelimit_remaining=value)) == (None, count)


# --- requests -----------------------------------------------------------------------------------


def test_a_request_names_the_checkpoint_and_whose_bucket_pays() -> None:
    path = f"/api/atlas/v2/groups/{'a' * 24}/clusters/my-Cluster_1/backupCheckpoints/{'b' * 24}"
    ref = CheckpointRef("a" * 24, "my-Cluster_1", "b" * 24)

    assert request_for(ref) == Request(path, "a" * 24, CHECKPOINT_MEDIA_TYPE)
    assert request_for(ref, envelope=True).path == path + "?envelope=true"


def test_the_only_version_of_the_resource_is_asked_for() -> None:
    assert CHECKPOINT_MEDIA_TYPE == "application/vnd.atlas.2023-01-01+json"


@settings(max_examples=100, deadline=None)
@given(st.builds(CheckpointRef, NAMES, NAMES, NAMES))
@example(CheckpointRef("a/b?c#d%2Fe&f", "../..", "\\ä +;="))
def test_no_name_leaves_its_place_in_the_path(ref: CheckpointRef) -> None:
    segments = request_for(ref).path.split("/")

    assert [unquote(segments[place]) for place in (5, 7, 9)] == [
        ref.group_id,
        ref.cluster_name,
        ref.checkpoint_id,
    ]
    assert len(segments) == 10
    assert re.fullmatch(r"[A-Za-z0-9/%_.~-]+", request_for(ref).path)


def test_the_preliminary_request_costs_no_projects_bucket() -> None:
    assert preliminary_request() == Request("/api/atlas/v2/groups?itemsPerPage=1&pageNum=1", "")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (200, None, None),
        (401, "UNEXPECTED_ERROR", K.UNAUTHENTICATED),
        (402, "ACCOUNT_SUSPENDED", K.ACCOUNT_SUSPENDED),
        (403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", K.ACCESS_LIST),
        (500, "UNEXPECTED_ERROR", K.SERVER_ERROR),
    ],
)
def test_the_preliminary_reply(status: int, code: str | None, kind: FailureKind | None) -> None:
    failure = read_preliminary(reply(status, problem(status, code)))

    assert (failure and failure.kind) is kind


def test_trouble_stands_against_the_preliminary_reply() -> None:
    silence = Reply(0, NOW, NOW, trouble=FailureKind.TIMED_OUT, trouble_detail="30 s")

    assert read_preliminary(silence) == Failure(FailureKind.TIMED_OUT, None, detail="30 s")


def test_the_headers_that_are_read_are_kept_as_evidence() -> None:
    """Else the stored reply would read otherwise than the one that arrived."""
    read = {"date", "content-type", "retry-after", "ratelimit-limit", "ratelimit-remaining"}

    assert read <= set(EVIDENCE_HEADERS)
    assert list(EVIDENCE_HEADERS) == [name.lower() for name in EVIDENCE_HEADERS]


def limit(**changes: Any) -> dict[str, Any]:
    """One entry of the rate limits, as the resource is documented."""
    return {
        "capacity": {"defaultValue": 1200, "value": 3000},
        "endpointSetName": "Legacy Backup",
        "refillDurationSeconds": {"defaultValue": 60, "value": 60},
        "refillRate": {"defaultValue": 500, "value": 1000},
        "scope": "GROUP",
        **changes,
    }


def test_the_limits_request_costs_no_projects_bucket() -> None:
    path = f"/api/atlas/v2/rateLimits?groupId={EXAMPLE_ID}&name=Legacy%20Backup"
    assert limits_request(EXAMPLE_ID) == Request(path, "", LIMITS_MEDIA_TYPE)


def test_the_limits_in_force_are_read_not_the_defaults() -> None:
    others = [limit(endpointSetName="Clusters"), limit(scope="USER"), None, "?"]
    assert read_limits(reply(200, {"results": [*others, limit()]})) == Limits(3000, 1000, 60)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"results": {}},
        {"results": []},
        {"results": [limit(scope="IP")]},
        {"results": [limit(capacity=1200)]},
        {"results": [limit(refillRate={"defaultValue": 500})]},
        {"results": [limit(refillDurationSeconds={"value": "soon"})]},
    ],
)
def test_limits_that_do_not_say_all_say_nothing(document: Any) -> None:
    answer = read_limits(reply(200, document))
    assert isinstance(answer, Failure)
    assert answer.kind is K.UNREADABLE


def test_limits_may_be_refused() -> None:
    answer = read_limits(reply(403, problem(403, "ACCESS_FORBIDDEN")))
    assert isinstance(answer, Failure)
    assert answer.kind is K.PROJECT_REFUSED
