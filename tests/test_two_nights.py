"""Two nights read together, one of them with no shard's name at all: the reason for our schemas."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests import clickhouse
from tests.recorded import START, Recorder, document, good, ref

Shards = list[str | None]


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    """The folder with the runs; every shard_name of the second night is null."""
    recorder = Recorder(tmp_path)
    for night, name in enumerate(("rs0", None)):
        (part,) = document(ref(1))["parts"]
        part = {key: value for key, value in {**part, "shardName": name}.items() if value}
        began = START + timedelta(days=night)
        recorder.publish(
            {ref(1): [good(ref(1), parts=[part])], ref(2): [good(ref(2), parts=[part])]},
            started_at=began.isoformat(),
            audit_date=began.date().isoformat(),
        )
    return tmp_path / "nightly" / "runs"


def pattern(nights: Path) -> str:
    return f"{nights}/*/parts/dt=*/*.parquet"


def files(nights: Path) -> list[Path]:
    return sorted(nights.glob("*/parts/dt=*/*.parquet"))


def with_pyarrow(nights: Path) -> Shards:
    table = ds.dataset(files(nights)).to_table()
    assert table.schema.field("shard_name").type == pa.string()
    return list(table.column("shard_name").to_pylist())


def with_pyarrow_by_table(nights: Path) -> Shards:
    table = pa.concat_tables(pq.read_table(path) for path in files(nights))
    return list(table.column("shard_name").to_pylist())


def with_pandas(nights: Path) -> Shards:
    paths: Any = [str(path) for path in files(nights)]  # pandas takes a list, its stubs do not
    frame = pd.read_parquet(paths)
    return [None if pd.isna(name) else name for name in frame["shard_name"]]


def with_pandas_by_folder(nights: Path) -> Shards:
    """A whole folder of one table, whose path key `dt` becomes a column and breaks none of ours."""
    frames = [pd.read_parquet(path.parents[1]) for path in files(nights)]
    assert all("dt" in frame and "audit_date" in frame for frame in frames)
    frame = pd.concat(frames)
    return [None if pd.isna(name) else name for name in frame["shard_name"]]


def with_polars(nights: Path) -> Shards:
    frame = pl.scan_parquet(pattern(nights), hive_partitioning=True).collect()
    assert frame.schema["shard_name"] == pl.String
    return frame["shard_name"].to_list()


def with_duckdb(nights: Path) -> Shards:
    found = duckdb.execute("SELECT shard_name FROM read_parquet(?)", [pattern(nights)]).fetchall()
    return [name for (name,) in found]


def with_clickhouse(nights: Path) -> Shards:
    query = f"SELECT shard_name FROM file('{pattern(nights)}', 'Parquet')"  # noqa: S608 - ours
    with clickhouse.running(nights.parent / "clickhouse") as session:
        found = session.query(query, "ArrowStream")
    return list(pa.ipc.open_stream(found).read_all().column(0).to_pylist())


@pytest.mark.parametrize(
    "read",
    [
        with_pyarrow,
        with_pyarrow_by_table,
        with_pandas,
        with_pandas_by_folder,
        with_polars,
        with_duckdb,
        with_clickhouse,
    ],
)
def test_both_nights_are_read_as_one(read: Any, nights: Path) -> None:
    first, second = (pq.read_table(path)["shard_name"].to_pylist() for path in files(nights))
    assert (first, second) == (["rs0"] * 2, [None] * 2)

    assert sorted(read(nights), key=str) == [None, None, "rs0", "rs0"]
