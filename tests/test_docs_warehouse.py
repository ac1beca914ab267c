"""docs/warehouse.md: its programs are run, with real clients or ones that write down what they get.

Its queries are run in DuckDB and PostgreSQL, and parsed by sqlglot as every dialect.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import sqlglot

from pipeline.warehouse.dialects import DIALECTS
from pipeline.warehouse.script import script
from pipeline.warehouse.statements import SCHEMA
from tests.recorded import Recorder, document, good, of_every_kind, ref
from tests.scripted import DuckDB, Postgres, clients, executable, published

if TYPE_CHECKING:
    from tests import postgres as servers

PAGE = (Path(__file__).parents[1] / "docs" / "warehouse.md").read_text("utf-8")
QUERIES = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROGRAM = (
    f'#!/bin/sh\nPYTHONPATH={Path(__file__).parents[1]} exec {sys.executable} -m pipeline "$@"\n'
)

#: What the clients that are not here are called with, in order; `{run}` is the run's id.
CALLED = {
    "Snowflake": [
        "aws s3 cp --recursive --only-show-errors {folder} s3://example-audits/runs/{run}",
        "snowsql --connection audits --option exit_on_error=true --filename {script}",
    ],
    "BigQuery": [
        "gcloud storage cp --recursive {folder} gs://example-audits/runs/",
        "bq query --quiet --nouse_legacy_sql --location=EU",
    ],
    "Redshift": [
        "aws s3 cp --recursive --only-show-errors {folder} s3://example-audits/runs/{run}",
        "psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --file {script}",
    ],
}
LOCATIONS = {
    "Snowflake": ("snowflake", "@AUDITS/{run}"),
    "BigQuery": ("bigquery", "gs://example-audits/runs/{run}"),
    "Redshift": ("redshift", "s3://example-audits/runs/{run}"),
}

#: Writes down its arguments, and the SQL that it is given: as its last argument, or to be read.
CLIENT = """\
#!/bin/sh
echo "$(basename "$0")" "$@" >>"$CALLS"
case $(basename "$0") in
  bq) cat >"$CALLS.sql" ;;
  psql | snowsql) for last; do :; done; cp "$last" "$CALLS.sql" ;;
esac
exit "${FAILING:-0}"
"""


def program(name: str) -> str:
    (found,) = re.findall(
        rf"^```sh\n(#!/bin/sh\n# load-into-warehouse RUN-FOLDER: into {name}\b.*?)^```$",
        PAGE,
        re.MULTILINE | re.DOTALL,
    )
    return str(found)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Recorder(tmp_path / "outputs").publish(of_every_kind()).path


def load(name: str, run: Path, bin_: Path, **env: str) -> int:
    executable(bin_ / "checkpoint-audit", PROGRAM)
    executable(bin_ / "load-into-warehouse", program(name))
    told = {**os.environ, **env, "PATH": f"{bin_}:{os.environ['PATH']}"}
    return subprocess.run(
        [bin_ / "load-into-warehouse", run], env=told, check=False, timeout=120
    ).returncode


@pytest.mark.parametrize("name", CALLED)
def test_a_program_hands_the_run_and_its_script_on(name: str, run: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    for client in ("aws", "gcloud", "snowsql", "bq", "psql"):
        executable(tmp_path / client, CLIENT)
    code = load(name, run, tmp_path, CALLS=str(calls), TMPDIR=str(tmp_path))
    made = re.findall(r"/\S*/tmp\.\w+", calls.read_text("utf-8"))
    told = {"folder": run, "run": run.name, "script": made[0] if made else ""}
    dialect, location = LOCATIONS[name]

    assert code == 0
    assert calls.read_text("utf-8").splitlines() == [one.format(**told) for one in CALLED[name]]
    wanted = script(DIALECTS[dialect], SCHEMA, location.format(run=run.name), {})
    assert Path(f"{calls}.sql").read_text("utf-8") == wanted
    assert not list(tmp_path.glob("tmp.*"))


@pytest.mark.parametrize("name", CALLED)
def test_a_client_that_fails_fails_the_program(name: str, run: Path, tmp_path: Path) -> None:
    """The first does, so the load does not begin."""
    for client in ("aws", "gcloud", "snowsql", "bq", "psql"):
        executable(tmp_path / client, CLIENT)
    code = load(name, run, tmp_path, CALLS=str(tmp_path / "calls"), FAILING="9")

    assert code == 9
    assert not (tmp_path / "calls.sql").exists()


def test_postgres_is_loaded_by_its_program(
    run: Path, tmp_path: Path, postgres: "servers.Postgres"
) -> None:
    url = postgres.new_database()
    at = urlsplit(url)
    env = {
        "PGHOST": at.hostname or "",
        "PGPORT": str(at.port),
        "PGUSER": at.username or "",
        "PGPASSWORD": at.password or "",
        "PGDATABASE": at.path.lstrip("/"),
    }
    code = load("PostgreSQL", run, clients(tmp_path), TMPDIR=str(tmp_path), **env)

    assert code == 0
    assert Postgres(tmp_path, url).rows() == published(run)
    assert not list(tmp_path.glob("tmp.*"))


def test_the_command_of_the_page_is_understood(run: Path) -> None:
    (line,) = re.findall(r"^\$ (checkpoint-audit schema .*) >load.sql$", PAGE, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *shlex.split(line)[1:]],
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "'@AUDITS/20261120T030000Z-nightly-7f3a9c/runs/'" in done.stdout


def test_airflows_task_is_python_and_its_command_runs(run: Path, tmp_path: Path) -> None:
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    made: dict[str, str] = {}

    class Task:
        output = "the run"

    def operator(**told: str) -> None:
        made.update(told)

    exec(text, {"BashOperator": operator, "audit": Task})  # noqa: S102 - from our own page
    executable(tmp_path / "bq", CLIENT)
    executable(tmp_path / "checkpoint-audit", PROGRAM)
    calls = tmp_path / "calls"
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "RUN": str(run)}
    subprocess.run(["bash", "-c", made["bash_command"]], env=env, check=True, timeout=60)

    assert made["task_id"] == "load"
    location = f"gs://example-audits/runs/{run.name}"
    assert Path(f"{calls}.sql").read_text() == script(DIALECTS["bigquery"], SCHEMA, location, {})


def test_the_queries_find_what_they_are_for(tmp_path: Path, postgres: "servers.Postgres") -> None:
    """The same in DuckDB and PostgreSQL: what is open, ages, and tokens that were not seen."""
    (part,) = document(ref(1))["parts"]
    unseen = {**part, "tokenDiscovered": False, "shardName": "rs9"}
    answers = of_every_kind() | {ref(20): [good(ref(20), parts=[part, unseen])]}
    run = Recorder(tmp_path / "outputs").publish(answers).path
    duckdb, server = DuckDB(tmp_path), Postgres(tmp_path, postgres.new_database())
    duckdb.load(run)
    server.load(run)
    open_, ages, tokens = (duckdb.query(one).to_pylist() for one in QUERIES)

    assert {(row["checkpoint_id"], row["rule_id"]) for row in open_} >= {
        (ref(4).checkpoint_id, "restorable-false"),
        (ref(20).checkpoint_id, "token-not-discovered"),
        (ref(6).checkpoint_id, None),
    }
    assert {row["cluster_name"] for row in ages} == {"orders", "billing"}
    assert [row["shard_name"] for row in tokens] == ["rs9"]
    for query, found in zip(QUERIES, (open_, ages, tokens), strict=True):
        assert server.values(query) == [tuple(row.values()) for row in found]


@pytest.mark.parametrize("name", DIALECTS)
def test_the_queries_are_sql_to_every_dialect(name: str) -> None:
    assert len(QUERIES) == 3
    for query in QUERIES:
        assert isinstance(sqlglot.parse_one(query, dialect=name), sqlglot.exp.Select)


def test_every_dialect_is_in_the_table() -> None:
    listed = re.findall(
        r"^\| `(\w+)` \| .* \| (in one transaction|by views, see below) \|$", PAGE, re.MULTILINE
    )

    assert {name: how.startswith("in one") for name, how in listed} == {
        name: dialect.is_transactional for name, dialect in DIALECTS.items()
    }
