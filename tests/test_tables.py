"""The tables: what a file says of itself, and the flattening of any checkpoint into them."""

import doctest
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from pipeline import Reply, flatten
from pipeline.checkpoints import Anomaly, Checkpoint, CheckpointRef, Part, TokenTimestamp
from pipeline.columns import RUN_COLUMNS, SCHEMA_VERSION
from pipeline.outcomes import Answer, FailureKind, microseconds
from pipeline.tables import CHECKPOINTS, PARTS, REPLIES, TABLES, to_arrow, transposed

REF = CheckpointRef("5f" * 12, "orders", "5e" * 12)
NOW = datetime(2026, 11, 20, 3, tzinfo=UTC)
RUN = ("20261120T030000Z-nightly-7f3a9c", "nightly", date(2026, 11, 20))

# --- the schemas --------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [*TABLES, REPLIES], ids=lambda table: table.name)
def test_a_file_tells_its_schemas_version_and_what_each_column_means(table: Any) -> None:
    schema = table.schema

    assert schema.metadata[b"schema_version"] == SCHEMA_VERSION.encode() == b"1"
    assert schema.metadata[b"table"] == table.name.encode()
    assert all(field.metadata[b"meaning"] for field in schema)


# --- any checkpoint fits ------------------------------------------------------------------------

NAMES = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MOMENTS = st.none() | st.datetimes(timezones=st.just(UTC))  # the years 1 to 9999
ANY_CHECKPOINT = st.builds(
    Checkpoint,
    id=NAMES,
    group_id=NAMES,
    cluster_id=NAMES,
    started=MOMENTS,
    completed=MOMENTS,
    timestamp=MOMENTS,
    restorable=st.none() | st.booleans(),
    parts=st.lists(
        st.builds(
            Part,
            type_name=NAMES,
            replica_set_name=NAMES,
            shard_name=NAMES,
            token_discovered=st.none() | st.booleans(),
            token_timestamp=st.none()
            | st.builds(
                TokenTimestamp,
                date=MOMENTS,
                increment=st.none() | st.integers(-(2**63), 2**63 - 1),
            ),
        ),
        max_size=4,
    ).map(tuple),
    anomalies=st.lists(st.sampled_from(Anomaly), unique=True).map(tuple),
)


def answer(checkpoint: Checkpoint) -> Answer:
    return Answer(REF, 2, "{}", checkpoint, 1, "get", microseconds(NOW), 7, "ab" * 32)


def through_parquet(table: pa.Table) -> list[tuple[Any, ...]]:
    """Write and read; the writer refuses a null where there may be none."""
    table.validate(full=True)
    file = BytesIO()
    pq.write_table(table, file)
    read = pq.read_table(file)
    assert read.schema.equals(table.schema, check_metadata=True)
    return [tuple(row.values()) for row in read.to_pylist()]


@settings(max_examples=100, deadline=None)
@given(st.lists(ANY_CHECKPOINT, max_size=4))
def test_any_checkpoint_fits_the_tables_and_comes_back_the_same(
    checkpoints: list[Checkpoint],
) -> None:
    answers = [answer(one) for one in checkpoints]
    rows = through_parquet(to_arrow(CHECKPOINTS, RUN, answers))
    parts = through_parquet(to_arrow(PARTS, RUN, answers))

    assert rows == [(*RUN, *checkpoint_row(one)) for one in checkpoints]
    assert parts == [(*RUN, *row) for one in checkpoints for row in part_rows(one)]


CONFIG = ("CONFIG_SERVER", "CONFIG_SERVER_REPLICA_SET")


def checkpoint_row(checkpoint: Checkpoint) -> tuple[Any, ...]:
    """One row of `checkpoints`, written down apart from the columns that are under test."""
    dates = [token.date for part in checkpoint.parts if (token := part.token_timestamp)]
    dated = [date for date in dates if date is not None]
    return (
        *msgspec.structs.astuple(REF),
        checkpoint.cluster_id,
        checkpoint.restorable,
        checkpoint.started,
        checkpoint.completed,
        checkpoint.timestamp,
        len(checkpoint.parts),
        len([part for part in checkpoint.parts if part.type_name in CONFIG]),
        len([part for part in checkpoint.parts if part.token_discovered is not True]),
        (max(dated) - min(dated)).total_seconds() if len(dated) > 1 else None,
        ",".join(checkpoint.anomalies),
        NOW,
        7,
        "ab" * 32,
    )


def part_rows(checkpoint: Checkpoint) -> list[tuple[Any, ...]]:
    """The rows of `parts`, likewise."""
    return [
        (
            *msgspec.structs.astuple(REF),
            index,
            part.type_name,
            part.replica_set_name,
            part.shard_name,
            part.token_discovered,
            part.token_timestamp.date if part.token_timestamp else None,
            part.token_timestamp.increment if part.token_timestamp else None,
        )
        for index, part in enumerate(checkpoint.parts)
    ]


def test_a_checkpoint_becomes_these_rows() -> None:
    token = TokenTimestamp(NOW, 4)
    checkpoint = Checkpoint(
        id=REF.checkpoint_id,
        group_id=REF.group_id,
        cluster_id="c1" * 12,
        started=NOW,
        completed=datetime(2026, 11, 20, 4, tzinfo=UTC),
        timestamp=datetime(2026, 11, 20, 2, tzinfo=UTC),
        restorable=True,
        parts=(
            Part("REPLICA_SET", "rs", "shard", token_discovered=True, token_timestamp=token),
            Part("CONFIG_SERVER", token_timestamp=TokenTimestamp(datetime(2026, 1, 1, tzinfo=UTC))),
        ),
        anomalies=(Anomaly.NULL_VALUE, Anomaly.UNKNOWN_FIELD),
    )
    (row,) = to_arrow(CHECKPOINTS, RUN, [answer(checkpoint)]).to_pylist()
    parts = to_arrow(PARTS, RUN, [answer(checkpoint)]).to_pylist()
    first, second = (tuple(part.values())[3:] for part in parts)

    assert row["cluster_id"] == "c1" * 12
    assert row["started_at"] == NOW
    assert row["completed_at"] == checkpoint.completed
    assert row["restore_point_at"] == checkpoint.timestamp
    assert (row["part_count"], row["config_part_count"]) == (2, 1)
    assert row["undiscovered_token_count"] == 1
    assert row["token_spread_s"] == (NOW - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds()
    assert row["anomalies"] == "null_value,unknown_field"
    assert (row["fetched_at"], row["reply_id"], row["reply_sha256"]) == (NOW, 7, "ab" * 32)
    assert first[3:] == (0, "REPLICA_SET", "rs", "shard", True, NOW, 4)
    assert second[3:] == (
        1,
        "CONFIG_SERVER",
        None,
        None,
        None,
        datetime(2026, 1, 1, tzinfo=UTC),
        None,
    )


@pytest.mark.parametrize("table", [*TABLES, REPLIES], ids=lambda table: table.name)
def test_no_rows_make_a_table_all_the_same(table: Any) -> None:
    constants = RUN if table is not REPLIES else RUN[:1]
    empty = to_arrow(table, constants, [])

    assert empty.num_rows == 0
    assert empty.schema.equals(table.schema, check_metadata=True)


def test_a_null_where_there_may_be_none_is_refused() -> None:
    plain = CHECKPOINTS._replace(flatten=transposed)
    row = list(checkpoint_row(Checkpoint()))
    row[CHECKPOINTS.names.index("part_count") - len(RUN_COLUMNS)] = None

    with pytest.raises(pa.ArrowInvalid, match="part_count"):
        through_parquet(to_arrow(plain, RUN, [(*row[:-3], 0, 7, "")]))


# --- two nights together ------------------------------------------------------------------------

NIGHTS: list[tuple[str, Checkpoint]] = [
    ("2026-11-19", Checkpoint()),  # every column that may be null is null
    ("2026-11-20", Checkpoint(cluster_id="c1" * 12, started=NOW, restorable=True)),
]


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    for day, checkpoint in NIGHTS:
        folder = tmp_path / f"dt={day}"
        folder.mkdir()
        constants = (f"run-{day}", "nightly", date.fromisoformat(day))
        made = to_arrow(CHECKPOINTS, constants, [answer(checkpoint)])
        pq.write_table(made, folder / "a.parquet")
    return tmp_path


def seen(started: Sequence[Any], restorable: Sequence[Any]) -> list[tuple[Any, Any]]:
    return [
        (None if pd.isna(a) else a, None if pd.isna(b) else b)
        for a, b in zip(started, restorable, strict=True)
    ]


def test_two_nights_are_read_together_by_pyarrow(nights: Path) -> None:
    table = pq.read_table(nights)
    columns = table.to_pydict()

    assert seen(columns["started_at"], columns["restorable"]) == [(None, None), (NOW, True)]
    assert table.schema.field("started_at").type == pa.timestamp("us", tz="UTC")


def test_two_nights_are_read_together_by_pandas(nights: Path) -> None:
    frame = pd.read_parquet(nights)

    assert seen(list(frame["started_at"]), list(frame["restorable"])) == [(None, None), (NOW, True)]
    assert [str(day) for day in frame["audit_date"]] == [str(day) for day in frame["dt"]]


def test_two_nights_are_read_together_by_duckdb(nights: Path) -> None:
    query = f"SELECT started_at IS NULL, restorable FROM '{nights}/*/*.parquet' ORDER BY audit_date"  # noqa: S608

    assert duckdb.connect().execute(query).fetchall() == [(True, None), (False, True)]


# --- flatten ------------------------------------------------------------------------------------

BODY: dict[str, Any] = {
    "id": REF.checkpoint_id,
    "groupId": REF.group_id,
    "started": "2026-11-20T03:00:00Z",
    "restorable": True,
    "parts": [
        {
            "typeName": "REPLICA_SET",
            "tokenDiscovered": True,
            "tokenTimestamp": {"date": "2026-11-20T03:00:00Z", "increment": 2**53 + 1},
        },
        {"typeName": "CONFIG_SERVER"},
    ],
}


def body(**changes: Any) -> bytes:
    return json.dumps(BODY | changes).encode()


def columns_of(table: Any, *, without: int = 0) -> list[str]:
    names = list(table.names[len(RUN_COLUMNS) :])
    return names[: len(names) - without]


def test_the_example_of_the_package_holds() -> None:
    result = doctest.testmod(pipeline)

    assert (result.failed, result.attempted > 0) == (0, True)


def test_replies_become_frames_of_checkpoints_and_parts() -> None:
    frames = flatten([(REF, body()), (REF, body(parts=None))])

    assert list(frames.checkpoints.columns) == columns_of(CHECKPOINTS, without=3)
    assert list(frames.parts.columns) == columns_of(PARTS)
    assert list(frames.checkpoints["part_count"]) == [2, 0]
    assert list(frames.checkpoints["started_at"]) == [pd.Timestamp(NOW)] * 2
    assert list(frames.parts["type_name"]) == ["REPLICA_SET", "CONFIG_SERVER"]
    assert len(frames.failures) == 0


def test_whole_numbers_stay_whole_beside_missing_ones() -> None:
    """As floating-point numbers they would lose their last digits."""
    increments = flatten([(REF, body())]).parts["token_increment"]

    assert increments[0] == 2**53 + 1
    assert pd.isna(increments[1])


@pytest.mark.parametrize(
    "replies",
    [
        [],
        [(REF, body())],
        [(REF, body(restorable=None, started=None, parts=[]))],
        [(REF, b""), (REF, body())],
        [(REF, Reply(0, NOW, NOW, trouble=FailureKind.TIMED_OUT))],
    ],
)
def test_types_do_not_hang_on_the_values(replies: list[tuple[CheckpointRef, Any]]) -> None:
    frames = flatten(replies)
    everything = flatten([(REF, body()), (REF, Reply(404, NOW, NOW))])

    for frame, expected in zip(frames, everything, strict=True):
        assert frame.dtypes.equals(expected.dtypes)


def test_no_reply_is_dropped() -> None:
    """What holds no checkpoint, or another triple's, says so in a row of its own."""
    not_found = b'{"error": 404, "errorCode": "CHECKPOINT_NOT_FOUND", "detail": "None."}'
    frames = flatten(
        [
            (REF, b"<html>"),
            (REF, body(id="ab" * 12)),
            (REF, Reply(404, NOW, NOW, body=not_found)),
            (REF, Reply(0, NOW, NOW, trouble=FailureKind.UNREACHABLE, trouble_detail="refused")),
            (REF, Reply(200, NOW, NOW, body=body())),
        ]
    )
    failures = frames.failures

    assert len(frames.checkpoints) == 1
    assert list(failures["kind"]) == [
        "unreadable",
        "other_checkpoint",
        "checkpoint_absent",
        "unreachable",
    ]
    assert list(failures["http_status"][:3]) == [200, 200, 404]
    assert pd.isna(failures["http_status"][3])
    assert (failures["error_code"][2], failures["detail"][2]) == ("CHECKPOINT_NOT_FOUND", "None.")
    assert set(failures["checkpoint_id"]) == {REF.checkpoint_id}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40) | st.dictionaries(st.sampled_from([*BODY]), JSON)))
def test_anything_is_flattened_into_one_row_a_reply(found: list[Any]) -> None:
    bodies = [one if isinstance(one, bytes) else json.dumps(BODY | one).encode() for one in found]
    frames = flatten([(REF, one) for one in bodies])

    assert len(frames.checkpoints) + len(frames.failures) == len(bodies)
    assert len(frames.parts) == frames.checkpoints["part_count"].sum()
