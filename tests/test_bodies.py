"""Bodies: leniently whatever they hold, typed where all is as documented, and both the same."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bodies import MAX_PARTS, read_checkpoint, read_documented
from pipeline.checkpoints import Anomaly, Checkpoint, CheckpointRef, Part, TokenTimestamp

EXAMPLE_ID = "32b6e34b3d91647abb20e7b8"
EXAMPLE_TIME = datetime(2025, 5, 4, 9, 42, tzinfo=UTC)
REF = CheckpointRef(EXAMPLE_ID, "orders", EXAMPLE_ID)

# --- the attributes -----------------------------------------------------------------------------

PLAIN = {"id": EXAMPLE_ID}
WRONG_TYPES: dict[str, list[Any]] = {
    "clusterId": [7, [], True],
    "started": [7, [], {}, False],
    "completed": [7, [], {}, False],
    "timestamp": [7, [], {}, False],
    "restorable": ["true", 1, 0, [], {}],
}
WRONG = [(name, value) for name, values in WRONG_TYPES.items() for value in values]


def test_what_is_left_out_is_none_and_no_anomaly() -> None:
    assert read_checkpoint(PLAIN) == Checkpoint(id=EXAMPLE_ID)


@pytest.mark.parametrize("name", [*WRONG_TYPES, "groupId", "parts"])
def test_a_null_is_none_and_noted(name: str) -> None:
    expected = Checkpoint(id=EXAMPLE_ID, anomalies=(Anomaly.NULL_VALUE,))

    assert read_checkpoint(PLAIN | {name: None}) == expected


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_another_type_than_documented_is_none_and_noted(name: str, value: Any) -> None:
    expected = Checkpoint(id=EXAMPLE_ID, anomalies=(Anomaly.WRONG_TYPE,))

    assert read_checkpoint(PLAIN | {name: value}) == expected


@pytest.mark.parametrize("value", [{}, "parts", 7, True])
def test_parts_that_are_no_list_are_none(value: Any) -> None:
    answer = read_checkpoint(PLAIN | {"parts": value})

    assert (answer.parts, answer.anomalies) == ((), (Anomaly.WRONG_TYPE,))


@pytest.mark.parametrize("value", [None, 7, "part", [], True])
def test_a_part_that_is_no_object_is_kept_as_one_that_says_nothing(value: Any) -> None:
    """It counts: a part without a token must not vanish."""
    answer = read_checkpoint(PLAIN | {"parts": [value]})

    assert (answer.parts, answer.anomalies) == ((Part(),), (Anomaly.WRONG_TYPE,))


PARTS: list[tuple[dict[str, Any], Part, tuple[Anomaly, ...]]] = [
    ({}, Part(), ()),
    ({"typeName": None}, Part(), (Anomaly.NULL_VALUE,)),
    ({"typeName": 7}, Part(), (Anomaly.WRONG_TYPE,)),
    ({"typeName": "MONGOS"}, Part(type_name="MONGOS"), (Anomaly.UNKNOWN_TYPE_NAME,)),
    ({"typeName": "CONFIG_SERVER"}, Part(type_name="CONFIG_SERVER"), ()),
    ({"typeName": "CONFIG_SERVER", "hostId": "h"}, Part("CONFIG_SERVER"), (Anomaly.UNKNOWN_FIELD,)),
    ({"replicaSetName": ["a"]}, Part(), (Anomaly.WRONG_TYPE,)),
    ({"shardName": None}, Part(), (Anomaly.NULL_VALUE,)),
    ({"tokenDiscovered": "true"}, Part(), (Anomaly.WRONG_TYPE,)),
    ({"tokenDiscovered": 1}, Part(), (Anomaly.WRONG_TYPE,)),
    ({"tokenDiscovered": False}, Part(token_discovered=False), ()),
    ({"tokenTimestamp": None}, Part(), (Anomaly.NULL_VALUE,)),
    ({"tokenTimestamp": 7}, Part(), (Anomaly.WRONG_TYPE,)),
    ({"tokenTimestamp": {}}, Part(token_timestamp=TokenTimestamp()), ()),
]
TOKENS: list[tuple[dict[str, Any], TokenTimestamp, tuple[Anomaly, ...]]] = [
    ({"increment": 1}, TokenTimestamp(increment=1), ()),
    ({"increment": 0}, TokenTimestamp(increment=0), ()),
    ({"increment": 2**32 - 1}, TokenTimestamp(increment=2**32 - 1), ()),
    ({"increment": 2**63 - 1}, TokenTimestamp(increment=2**63 - 1), ()),
    ({"increment": 2**63}, TokenTimestamp(), (Anomaly.WRONG_TYPE,)),
    ({"increment": -(2**63) - 1}, TokenTimestamp(), (Anomaly.WRONG_TYPE,)),
    ({"increment": 10**30}, TokenTimestamp(), (Anomaly.WRONG_TYPE,)),
    ({"increment": True}, TokenTimestamp(), (Anomaly.WRONG_TYPE,)),
    ({"increment": 1.0}, TokenTimestamp(), (Anomaly.WRONG_TYPE,)),
    ({"increment": "1"}, TokenTimestamp(), (Anomaly.WRONG_TYPE,)),
    ({"increment": None}, TokenTimestamp(), (Anomaly.NULL_VALUE,)),
    ({"date": "soon"}, TokenTimestamp(), (Anomaly.BAD_DATE,)),
    ({"ordinal": 1}, TokenTimestamp(), (Anomaly.UNKNOWN_FIELD,)),
]


@pytest.mark.parametrize(("document", "part", "anomalies"), PARTS)
def test_parts(document: dict[str, Any], part: Part, anomalies: tuple[Anomaly, ...]) -> None:
    expected = Checkpoint(id=EXAMPLE_ID, parts=(part,), anomalies=anomalies)

    assert read_checkpoint(PLAIN | {"parts": [document]}) == expected


@pytest.mark.parametrize(("document", "token", "anomalies"), TOKENS)
def test_tokens(
    document: dict[str, Any], token: TokenTimestamp, anomalies: tuple[Anomaly, ...]
) -> None:
    part = Part(token_timestamp=token)
    expected = Checkpoint(id=EXAMPLE_ID, parts=(part,), anomalies=anomalies)

    assert read_checkpoint(PLAIN | {"parts": [{"tokenTimestamp": document}]}) == expected


NOTED_DATES = [
    ("2025-05-04T09:42:00Z", EXAMPLE_TIME, ()),
    ("2025-05-04T11:42:00+02:00", EXAMPLE_TIME, ()),
    ("2025-05-04T09:42:00.250Z", EXAMPLE_TIME + timedelta(milliseconds=250), ()),
    ("2025-05-04T09:42:00", EXAMPLE_TIME, (Anomaly.DATE_WITHOUT_ZONE,)),
    ("2025-05-04", datetime(2025, 5, 4, tzinfo=UTC), (Anomaly.DATE_WITHOUT_ZONE,)),
    ("", None, (Anomaly.BAD_DATE,)),
    ("yesterday", None, (Anomaly.BAD_DATE,)),
    ("2025-02-30T00:00:00Z", None, (Anomaly.BAD_DATE,)),
    ("1746351720", None, (Anomaly.BAD_DATE,)),
    ("0001-01-01T00:00:00+14:00", None, (Anomaly.BAD_DATE,)),
    ("9999-12-31T23:59:59-14:00", None, (Anomaly.BAD_DATE,)),
]


@pytest.mark.parametrize("name", ["started", "completed", "timestamp"])
@pytest.mark.parametrize(("text", "moment", "anomalies"), NOTED_DATES)
def test_dates(
    name: str, text: str, moment: datetime | None, anomalies: tuple[Anomaly, ...]
) -> None:
    answer = read_checkpoint(PLAIN | {name: text})
    found = getattr(answer, name)

    assert (found, answer.anomalies) == (moment, anomalies)
    assert found is None or found.tzinfo is UTC


def test_unknown_fields_are_noted_and_do_no_harm() -> None:
    """At each of the three depths."""
    token = {"date": DATE, "increment": 4, "x": 1}
    for document in (
        DOCUMENTED | {"x": 1},
        DOCUMENTED | {"parts": [PART | {"hostId": 1}]},
        DOCUMENTED | {"parts": [PART | {"tokenTimestamp": token}]},
    ):
        answer = read_checkpoint(document)

        assert answer.anomalies == (Anomaly.UNKNOWN_FIELD,)
        assert (answer.restorable, answer.parts[0].replica_set_name) == (True, "rs")


def test_each_anomaly_is_noted_once() -> None:
    answer = read_checkpoint({"started": 1, "completed": 2, "parts": [3, 4], "x": 5, "y": 6})
    expected = (Anomaly.UNKNOWN_FIELD, Anomaly.ID_MISSING, Anomaly.WRONG_TYPE)

    assert answer.anomalies == expected


# --- the typed reader ---------------------------------------------------------------------------

DATE = "2026-11-20T03:00:00Z"
PART: dict[str, Any] = {
    "replicaSetName": "rs",
    "shardName": "rs",
    "tokenDiscovered": True,
    "tokenTimestamp": {"date": DATE, "increment": 4},
    "typeName": "REPLICA_SET",
}
DOCUMENTED: dict[str, Any] = {
    "clusterId": EXAMPLE_ID,
    "completed": DATE,
    "groupId": EXAMPLE_ID,
    "id": EXAMPLE_ID,
    "links": [{"href": "https://cloud.mongodb.com/api/atlas", "rel": "self"}],
    "parts": [PART, PART | {"typeName": "CONFIG_SERVER_REPLICA_SET"}],
    "restorable": True,
    "started": DATE,
    "timestamp": DATE,
}


def typed(document: Any) -> Checkpoint | None:
    return read_documented(REF, json.dumps(document).encode())


@pytest.mark.parametrize("left_out", ["", "clusterId", "completed", "links", "parts", "restorable"])
def test_what_is_documented_needs_no_lenience(left_out: str) -> None:
    """With every attribute that may be left out left out, too."""
    document = {name: value for name, value in DOCUMENTED.items() if name != left_out}

    assert typed(document) == read_checkpoint(document)
    assert typed(document | {"parts": [{}, {"tokenTimestamp": {}}]}) is not None


DATES = [
    DATE,
    "2026-11-20 03:00:00Z",
    "2026-11-20T03:00:00.5Z",
    "2026-11-20T03:00:00.123456789Z",
    "2026-11-20T03:00:00.9999999Z",
    "2026-11-20T03:00:00+02:00",
    "2026-11-20T03:00:00-00:00",
    "0001-01-01T00:00:00+02:00",
    "2026-11-20T03:00:00",
    "2026-11-20t03:00:00z",
    "2026-11-20T03:00Z",
    "2026-11-20",
    "2026-11-20T24:00:00Z",
    "2026-11-20T03:00:60Z",
]
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    st.sampled_from([EXAMPLE_ID, EXAMPLE_ID.upper(), "REPLICA_SET", "CONFIG_SERVER", "ARBITER"]),
    st.sampled_from(DATES),
    st.just([]),
    st.just({}),
    st.just([PART]),
    st.just({"date": DATE, "increment": 1}),
)
AT_THE_TOP = st.tuples(st.sampled_from([*DOCUMENTED, "hostId", "anomalies"]), ODD_VALUES)
IN_A_PART = st.tuples(st.sampled_from([*PART, "hostId"]), ODD_VALUES)
IN_A_TOKEN = st.tuples(st.sampled_from(["date", "increment", "i"]), ODD_VALUES)


@settings(max_examples=1000, deadline=None)
@given(
    top=st.lists(AT_THE_TOP, max_size=2),
    part=st.lists(IN_A_PART, max_size=2),
    token=st.lists(IN_A_TOKEN, max_size=2),
)
def test_both_readers_agree_where_both_read(
    top: list[tuple[str, Any]], part: list[tuple[str, Any]], token: list[tuple[str, Any]]
) -> None:
    """Whatever departs from the documentation is left to the lenient one, which notes it."""
    changed = PART | {"tokenTimestamp": PART["tokenTimestamp"] | dict(token)} | dict(part)
    document = DOCUMENTED | {"parts": [PART, changed]} | dict(top)
    lenient, found = read_checkpoint(document), typed(document)

    assert found is None or (found == lenient and not lenient.anomalies)
    assert found is None or found.id == found.group_id == EXAMPLE_ID


@pytest.mark.parametrize("date", DATES)
@pytest.mark.parametrize("name", ["started", "completed", "timestamp"])
def test_both_readers_agree_on_dates(name: str, date: str) -> None:
    document = DOCUMENTED | {name: date}
    found = typed(document)

    assert found is None or found == read_checkpoint(document)
    assert found is not None or date not in DATES[:1]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"id": "\xff"}',
        json.dumps(DOCUMENTED).encode()[:-1],
        json.dumps(DOCUMENTED | {"id": "f" * 24}).encode(),
        json.dumps({"status": 200, "content": DOCUMENTED}).encode(),
    ],
)
def test_what_the_typed_reader_cannot_read_it_leaves(body: bytes) -> None:
    assert read_documented(REF, body) is None


def test_more_parts_than_a_cluster_can_have_are_not_as_documented() -> None:
    assert typed(DOCUMENTED | {"parts": [PART] * MAX_PARTS}) is not None
    assert typed(DOCUMENTED | {"parts": [PART] * (MAX_PARTS + 1)}) is None
