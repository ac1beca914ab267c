"""The ClickHouse of these tests."""

from pathlib import Path

import pytest

from tests import clickhouse


def test_a_statement_that_waits_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with clickhouse.running(tmp_path) as session:
        assert session.query("SELECT 1") == b"1\n"
        with pytest.raises(clickhouse.Refused, match="nowhere"):
            session.query("SELECT * FROM nowhere")
        monkeypatch.setattr(clickhouse, "_PATIENCE_S", 0.2)

        with pytest.raises(AssertionError, match=r"no answer in 0\.2 s, to .*sleep"):
            session.query("SELECT sleep(3)")
