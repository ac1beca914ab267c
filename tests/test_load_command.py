"""The command `load`: what it says, what it ends with, and what it never shows."""

import json
import signal
from pathlib import Path

import pytest

from pipeline.errors import ConfigurationWrong, CredentialsRefused
from pipeline.warehouse.address import read_address
from tests.postgres import Postgres
from tests.test_load import HOUR, SIZES, load
from tests.test_load_kills import start
from tests.warehouses import NIGHT, Made, command, held, query, wanted


def test_what_it_says(tmp_path: Path) -> None:
    made, url = Made(tmp_path / "outputs", SIZES), f"duckdb://{tmp_path}/w.duckdb"

    ended = command(url, made.run_id, "--output-dir", tmp_path / "outputs", "--schema", "audits")

    assert ended.returncode == 0
    assert ended.stdout == f"{made.run_id}\n"
    assert ended.stderr == (
        f"checkpoint-audit: exit 0: loaded {made.run_id} into DuckDB {tmp_path}/w.duckdb, schema "
        "audits: rows: checkpoints 3, parts 7, outcomes 10, clusters 2, findings 4, runs 1; "
        "nothing was replaced\n"
    )
    assert held(url, "audits") == wanted(made)


def test_quiet_says_nothing(tmp_path: Path) -> None:
    made, url = Made(tmp_path, SIZES), f"duckdb://{tmp_path}/w.duckdb"
    ended = command(url, made.path, "--quiet")

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_refusal_in_json(tmp_path: Path) -> None:
    """It names each reason, and what to do; --replace-anyway loads the run all the same."""
    url = f"duckdb://{tmp_path}/w.duckdb"
    load(Made(tmp_path, SIZES, triple_count=10), url)
    worse = Made(
        tmp_path,
        SIZES,
        started_at=NIGHT - HOUR,
        triple_count=7,
        inconclusive_count=99,
        base_url="http://127.0.0.1:8000",
    )

    refused = command(url, worse.path, "--log-format", "json")
    loaded = command(url, worse.path, "--replace-anyway")

    said = json.loads(refused.stderr.splitlines()[-1])
    assert (refused.returncode, refused.stdout, said["exit_code"]) == (74, "", 74)
    for reason in ("a loopback address", "it began at", "over a fifth fewer", "99 inconclusive"):
        assert reason in said["message"]
    assert "--replace-anyway" in said["hint"]
    assert loaded.returncode == 0
    assert "although it was made from a loopback address" in loaded.stderr


PASSWORD = "Tr0ub4dor-and-3"


def test_the_password_is_nowhere(postgres: Postgres, tmp_path: Path) -> None:
    """Not in what is said of any end, nor in files of a load that was killed."""
    url = postgres.new_database()
    database = url.rpartition("/")[2]
    role = f"role_{database}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    postgres.execute(f"GRANT CREATE ON DATABASE {database} TO {role}")
    mine = f"postgresql://{role}:{PASSWORD}@127.0.0.1:{postgres.port}/{database}"
    made = Made(tmp_path / "outputs", SIZES)
    here = tmp_path / "here"
    here.mkdir()

    ends = [
        start(mine, made, "killed_while_dlt_loads", here),
        start(mine, made, "broken_within_dlt", here),
        start(mine, made, "broken", here),
        command(mine, made.path, env={"TMPDIR": str(here)}, cwd=here),
        command(f"{mine}-not-there", made.path, cwd=here),
        command(mine.replace("127.0.0.1", "db.invalid"), made.path, cwd=here),
        command(mine.replace("127.0.0.1:", "127.0.0.1:x"), made.path, cwd=here),
        command(f"{mine}?no=such-parameter", made.path, cwd=here),
        command(mine.replace("postgresql", "mysql"), made.path, cwd=here),
        command(PASSWORD, made.path, cwd=here),
    ]

    codes = [ended.returncode for ended in ends]
    assert codes == [-signal.SIGKILL, 74, 70, 0, 74, 74, 78, 78, 78, 78]
    assert "Traceback" in ends[2].stderr
    for ended in ends:
        assert PASSWORD not in ended.stdout + ended.stderr
    left = [path for path in here.rglob("*") if path.is_file()]
    assert left, "the killed load has left nothing to look at"
    for path in left:
        assert PASSWORD.encode() not in path.read_bytes(), path


def test_dlt_finds_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """Neither configuration of a working directory nor of the environment; no telemetry."""
    made, url = Made(tmp_path / "outputs", SIZES), f"duckdb://{tmp_path}/w.duckdb"
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (here / ".dlt", home, tmp_path / "tmp"):
        folder.mkdir(parents=True)
    wrong = (
        '[runtime]\nlog_level = "DEBUG"\n[load]\nworkers = "none"\n[schema]\nnaming = "no_such"\n'
    )
    (here / ".dlt/config.toml").write_text(wrong, "utf-8")
    (here / ".dlt/secrets.toml").write_text(wrong, "utf-8")
    misleading = {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home),
        "TMPDIR": str(tmp_path / "tmp"),
        "LOAD__WORKERS": "none",
        "SCHEMA__NAMING": "no_such",
        "RUNTIME__DLTHUB_TELEMETRY": "true",
        "RUNTIME__DLTHUB_TELEMETRY_ENDPOINT": "http://127.0.0.1:1/",
        "DLT_PROJECT_DIR": str(here),
    }

    ended = command(url, made.path, env=misleading, cwd=here)

    assert ended.returncode == 0, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert held(url) == wanted(made)
    assert sorted(path.name for path in here.rglob("*")) == [".dlt", "config.toml", "secrets.toml"]
    assert list(home.iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_telemetry_is_off_before_dlt_is_imported(tmp_path: Path) -> None:
    made, url = Made(tmp_path, SIZES), f"duckdb://{tmp_path}/w.duckdb"

    ended = start(url, made, "asked_for_telemetry", tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "telemetry is off" in ended.stderr


@pytest.mark.parametrize("missing", ["dlt", "duckdb"])
def test_without_the_extra(missing: str, tmp_path: Path) -> None:
    made = Made(tmp_path, SIZES)

    ended = start(f"duckdb://{tmp_path}/w.duckdb", made, f"without_{missing}", tmp_path)

    assert ended.returncode == 78
    assert f"the package {missing}, which is not installed" in ended.stderr
    assert "atlas-checkpoint-audit[warehouse]" in ended.stderr


@pytest.mark.parametrize("schema", ["", "a b", "a;b", '"a"', "1a", "a" * 49])
def test_a_schema_that_cannot_be_one(schema: str, tmp_path: Path) -> None:
    ended = command(f"duckdb://{tmp_path}/w.duckdb", Made(tmp_path, {}).path, "--schema", schema)

    assert ended.returncode == 78
    assert "cannot be the name of a schema" in ended.stderr
    assert not (tmp_path / "w.duckdb").exists()


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target", "shown"),
    [
        ("duckdb:///data/w.duckdb", "/data/w.duckdb", "DuckDB /data/w.duckdb"),
        ("duckdb:////data/w.duckdb", "/data/w.duckdb", "DuckDB /data/w.duckdb"),
        ("duckdb:///my%20data/w", "/my data/w", "DuckDB /my data/w"),
        ("postgresql://u:pass-word@h:5/d", None, "PostgreSQL h:5/d"),
        ("postgres://u:pass-word@h/d?sslmode=require", None, "PostgreSQL h/d"),
        ("postgresql:///d?host=/tmp/x", None, "PostgreSQL /tmp/x/d"),
        ("PostgreSQL://u:pw@h/d", "postgresql://u:pw@h/d", "PostgreSQL h/d"),
        ("postgresql://u:a%23b%40c@h1:1,h2:2/d", None, "PostgreSQL h1:1,h2:2/d"),
        ("postgresql://u@[::1]:5/d", None, "PostgreSQL [::1]:5/d"),
        ("postgresql://u@%2Ftmp%2Fx/my%20d", None, "PostgreSQL %2Ftmp%2Fx/my d"),
        ("postgresql://", None, "PostgreSQL the default host/the default database"),
    ],
)
def test_addresses(text: str, target: str | None, shown: str) -> None:
    address = read_address({"CHECKPOINT_AUDIT_WAREHOUSE_URL": text})

    assert address.target == (target or text)
    assert address.shown == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "warehouse.duckdb",
        "duckdb://w.duckdb",
        "duckdb:///",
        "duckdb:///a?b=c",
        "duckdb:///:memory:",
        "duckdb:md:mine",
        "snowflake://u:pass-word@account/db",
        "mysql://u:pass-word@h/d",
        "postgresql://[::1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigurationWrong) as raised:
        read_address({"CHECKPOINT_AUDIT_WAREHOUSE_URL": text})

    assert "duckdb:///" in raised.value.hint
    assert "pass-word" not in str(raised.value) + raised.value.hint


@pytest.mark.parametrize(
    "password",
    [
        "S3CRET/pw",
        "12345/S3CRET",
        "S3CRET#pw",
        "S3CRET?pw",
        "12345?S3CRET",
        "first@S3CRETtail",
        "S3CRET@tail/more",
    ],
)
def test_a_password_with_a_special_character_that_is_not_escaped(password: str) -> None:
    """libpq and the libraries of addresses each have their own idea of where it ends."""
    url = f"postgresql://odd:{password}@db.example.com:5/d"
    with pytest.raises(ConfigurationWrong) as refused:
        read_address({"CHECKPOINT_AUDIT_WAREHOUSE_URL": url})

    said = str(refused.value) + refused.value.hint
    assert "CHECKPOINT_AUDIT_WAREHOUSE_URL" in said
    assert "%XX" in said
    for part in ("S3CRET", "odd", "tail", "example"):
        assert part not in said


@pytest.mark.parametrize("host", ["h:x", "h:5:6", "h,h:x", "[::1", "me:S3CRET"])
def test_a_host_that_cannot_be_one(host: str) -> None:
    with pytest.raises(ConfigurationWrong, match="CHECKPOINT_AUDIT_WAREHOUSE_URL is "):
        read_address({"CHECKPOINT_AUDIT_WAREHOUSE_URL": f"postgresql://{host}/d"})


def test_an_address_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "address"
    file.write_text("postgresql://u:pass-word@h/d\n", "utf-8")
    file.chmod(0o600)
    named = {"CHECKPOINT_AUDIT_WAREHOUSE_URL_FILE": str(file)}

    assert read_address(named).shown == "PostgreSQL h/d"
    file.chmod(0o644)
    with pytest.raises(CredentialsRefused, match="every user of this machine can read"):
        read_address(named)


def test_what_the_address_leaves_out_comes_from_where_postgresql_looks(
    postgres: Postgres, tmp_path: Path
) -> None:
    """As psql does: PGPASSWORD, a file of passwords, PGUSER."""
    url = postgres.new_database()
    short = url.replace(f"loader:{postgres.password}@", "")
    made = Made(tmp_path, SIZES)

    ended = command(short, made.path, env={"PGUSER": "loader", "PGPASSWORD": postgres.password})

    assert ended.returncode == 0, ended.stderr
    assert held(url) == wanted(made)
    passwords = tmp_path / "passwords"
    passwords.write_text(f"127.0.0.1:*:*:loader:{postgres.password}\n", "utf-8")
    passwords.chmod(0o600)
    ended = command(
        short.replace("127", "loader@127"), made.path, env={"PGPASSFILE": str(passwords)}
    )
    assert ended.returncode == 0, ended.stderr
    assert query(url, "SELECT COUNT(*) FROM checkpoint_audit.loads") == [(2,)]


# --- the golden runs ----------------------------------------------------------------------------

GOLDEN = Path(__file__).parent / "data" / "golden"
GOLDEN_RUNS = sorted(path.parent for path in GOLDEN.glob("*/*/manifest.json"))


def test_real_runs_are_loaded(tmp_path: Path) -> None:
    """Those of every version; they were made from a loopback address."""
    url = f"duckdb://{tmp_path}/w.duckdb"
    for run in GOLDEN_RUNS:
        refused = command(url, run)
        loaded = command(url, run, "--replace-anyway")

        assert refused.returncode == 74
        assert "a loopback address" in refused.stderr
        assert ("judged anew" in refused.stderr) == (run.name == "judged-anew")
        assert loaded.returncode == 0, loaded.stderr
