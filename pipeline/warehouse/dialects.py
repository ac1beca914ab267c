r"""What each warehouse calls things, and how it reads Parquet: one table of facts a dialect.

The commands are those that the warehouses' own documentation gives, read in November 2026:

- DuckDB: `read_parquet` with `hive_partitioning = false`, since `dt=` in the path is no column.
- PostgreSQL has no reader of Parquet: DuckDB makes CSV files, which psql's `\copy` sends. A null
  is `\N` without quotes there, and an empty text has quotes ("COPY", CSV Format).
- Snowflake: `COPY INTO` with `USE_LOGICAL_TYPE` (without it times are numbers) and
  `MATCH_BY_COLUMN_NAME`; times that Parquet has in UTC go into TIMESTAMP_LTZ. An address in its
  FROM wants an integration or credentials beside it, which a stage holds. DDL commits what is
  under way ("Transactions"), so there is none between BEGIN and COMMIT.
- BigQuery: `LOAD DATA OVERWRITE TEMP TABLE` ("Load statements"); between BEGIN and COMMIT only
  queries, DML and DDL on temporary tables ("Multi-statement transactions"). A script that fails in
  a transaction is rolled back. Transactions conflict where they update or delete rows of one table.
- Redshift: `COPY … FORMAT AS PARQUET` loads by position and wants as many columns as the file has
  ("COPY from columnar data formats"). It reads through Spectrum, which has no TIMESTAMPTZ: times
  are TIMESTAMP, in UTC. Isolation is SNAPSHOT by default, and the snapshot is made by the first
  query, DML or DDL ("Isolation levels"), so the lock comes before them.
- Databricks: `COPY INTO`, which skips files that it has loaded, hence 'force';
  'recursiveFileLookup' keeps it from taking `dt=` for a column. A transaction covers one table.
  A SQL task of the type File may hold several statements ("SQL task for jobs").
- ClickHouse: `file()` and `s3()`; a replicated table drops a block that equals an earlier one, also
  where that was deleted since ("Deduplicating inserts on retries"), hence `insert_deduplicate = 0`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.tables import Table
from pipeline.warehouse.statements import create_table


class Place(NamedTuple):
    """Where the tables are to be, and where the run is."""

    schema: str
    location: str

    def files(self, table: Table) -> str:
        """A pattern for a table's files."""
        return f"{self.location}/{table.name}/*/*.parquet"

    def folder(self, table: Table) -> str:
        """The folder of a table."""
        return f"{self.location}/{table.name}"


@dataclass(frozen=True)
class Dialect:
    """A warehouse.

    `types` are its types by ours. `how` says how to run a script, `location` stands for the run's
    folder until it is named, and a location that is named begins with one of `begins` if there are
    any, `instead` says what to do about another. `stage` gives the statements that make and fill a
    table's stage, `staged` what to select from then. `refuse` is a statement that fails unless its
    `{whole}` holds, and says `{why}` where it can. `now` is the time.

    With transactions, `begin` and `commit` bound one, and `lock` keeps two loads apart where the
    transaction alone does not. Without, runs are appended: `null` is said of a column that may be
    null, `ending` ends a table, `settings` follow the columns of an INSERT.
    `prepare` makes files for those that read no Parquet.
    """

    name: str
    title: str
    types: Mapping[str, str]
    how: str
    location: str
    stage: Callable[[Table, Place], list[str]]
    staged: Callable[[Table, Place], str]
    refuse: str
    begins: tuple[str, ...] = ()
    instead: str = ""
    now: str = "CURRENT_TIMESTAMP"
    create_schema: str = "CREATE SCHEMA IF NOT EXISTS {schema}"
    begin: str = ""
    lock: str = ""
    commit: str = "COMMIT"
    null: str = ""
    ending: str = ""
    settings: str = ""
    prepare: Callable[[Table, Place], str] | None = None

    @property
    def is_transactional(self) -> bool:
        """Whether all tables can be changed at once."""
        return bool(self.begin)


def _columns(table: Table) -> str:
    return ", ".join(table.names)


def _temporary(table: Table, _: Place) -> str:
    return f"staged_{table.name}"


def _in_schema(table: Table, place: Place) -> str:
    return f"{place.schema}.staged_{table.name}"


_DIVIDE = "SELECT 1 / CASE WHEN\n{whole}\nTHEN 1 ELSE 0 END AS the_run_is_whole"


# --- DuckDB -------------------------------------------------------------------------------------

_DUCKDB_TYPES = {
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "date32": "DATE",
    "timestamp": "TIMESTAMPTZ",
}


def _read_parquet(table: Table, place: Place) -> str:
    return (
        f"SELECT {_columns(table)}\n"
        f"FROM read_parquet('{place.files(table)}', hive_partitioning = false)"
    )


def _stage_duckdb(table: Table, place: Place) -> list[str]:
    return [
        f"CREATE OR REPLACE TEMPORARY TABLE staged_{table.name} AS\n{_read_parquet(table, place)}"
    ]


DUCKDB = Dialect(
    name="duckdb",
    title="DuckDB",
    types=_DUCKDB_TYPES,
    how="""\
Run it with DuckDB's command line, which has to stop at the first error (-bail):

  duckdb -bail warehouse.duckdb <load.sql

{location} may be a folder, or s3:// and the like where DuckDB has a secret for it
(CREATE SECRET).""",
    location="RUN-FOLDER",
    stage=_stage_duckdb,
    staged=_temporary,
    refuse="SELECT CASE WHEN\n{whole}\nTHEN TRUE ELSE error('{why}') END AS is_whole",
    begin="BEGIN TRANSACTION",
)


# --- PostgreSQL ---------------------------------------------------------------------------------

_POSTGRES_TYPES = {
    "string": "TEXT",
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float64": "DOUBLE PRECISION",
    "date32": "DATE",
    "timestamp": "TIMESTAMPTZ",
}


def _to_csv(table: Table, place: Place) -> str:
    """One line of SQL for DuckDB; texts have quotes, nulls never have."""
    texts = ", ".join(column.name for column in table.columns if column.type == "string")
    select = " ".join(_read_parquet(table, place).split())
    return (
        f"COPY ({select}) TO 'staged_{table.name}.csv'"
        f" (FORMAT csv, HEADER, NULLSTR '\\N', FORCE_QUOTE ({texts}));"
    )


def _stage_postgres(table: Table, place: Place) -> list[str]:
    name = f"staged_{table.name}"
    return [
        f"CREATE TEMPORARY TABLE {name} (LIKE {place.schema}.{table.name})",
        (
            f"\\copy {name} ({_columns(table)}) FROM '{name}.csv'"
            " WITH (FORMAT csv, HEADER true, NULL '\\N', ENCODING 'UTF8')"
        ),
    ]


POSTGRES = Dialect(
    name="postgres",
    title="PostgreSQL",
    types=_POSTGRES_TYPES,
    how="""\
PostgreSQL reads no Parquet: DuckDB makes CSV files of it in the current folder, from the lines
below that begin with `-- duckdb:`, and psql sends them.

  sed -n 's/^-- duckdb: //p' load.sql | duckdb -bail
  psql --no-psqlrc --set ON_ERROR_STOP=1 --dbname "$DATABASE" --file load.sql
  rm staged_*.csv

{location} may be a folder, or s3:// and the like where DuckDB has a secret for it
(CREATE SECRET).""",
    location="RUN-FOLDER",
    stage=_stage_postgres,
    staged=_temporary,
    refuse=_DIVIDE,
    begin="BEGIN",
    lock="LOCK TABLE {schema}.loads IN SHARE ROW EXCLUSIVE MODE",
    prepare=_to_csv,
)


# --- Snowflake ----------------------------------------------------------------------------------


def _stage_snowflake(table: Table, place: Place) -> list[str]:
    name = _in_schema(table, place)
    return [
        f"CREATE OR REPLACE TEMPORARY TABLE {name} LIKE {place.schema}.{table.name}",
        (
            f"COPY INTO {name}\nFROM '{place.folder(table)}/'\n"
            "FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE)\n"
            "MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE\n"
            "PATTERN = '.*[.]parquet'\nON_ERROR = ABORT_STATEMENT\nFORCE = TRUE"
        ),
    ]


SNOWFLAKE = Dialect(
    name="snowflake",
    title="Snowflake",
    types={
        "string": "VARCHAR",
        "bool": "BOOLEAN",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "float64": "DOUBLE",
        "date32": "DATE",
        "timestamp": "TIMESTAMP_LTZ(6)",
    },
    how="""\
Run it with SnowSQL, in the database that the schema is to be in, and let it stop at the first
error: a statement that fails ends no transaction here, the end of the session does. Let one load
end before the next begins: two that overlap can both insert a new slice.

  snowsql --option exit_on_error=true --dbname MY_DATABASE --filename load.sql

{location} is a stage with the run's folder in it. One for a bucket is made once:
CREATE STAGE … URL = 's3://…' STORAGE_INTEGRATION = …
Into a stage of Snowflake's own a run on a local disk is put folder by folder:
PUT file://…/parts/dt=2026-11-20/*.parquet @STAGE/RUN-FOLDER/parts/ AUTO_COMPRESS = FALSE""",
    location="@STAGE/RUN-FOLDER",
    begins=("@",),
    instead=": for a bucket make a stage (CREATE STAGE … URL = 's3://…' STORAGE_INTEGRATION = …)",
    stage=_stage_snowflake,
    staged=_in_schema,
    refuse=_DIVIDE,
    begin="BEGIN TRANSACTION",
)


# --- BigQuery -----------------------------------------------------------------------------------

_BIGQUERY_TYPES = {
    "string": "STRING",
    "bool": "BOOL",
    "int32": "INT64",
    "int64": "INT64",
    "float64": "FLOAT64",
    "date32": "DATE",
    "timestamp": "TIMESTAMP",
}


def _stage_bigquery(table: Table, place: Place) -> list[str]:
    # The one `*` reaches into the folders dt=…, as in Google's own example of such a layout:
    # https://cloud.google.com/bigquery/docs/samples/bigquery-create-table-external-hivepartitioned
    columns = ",\n".join(
        f"  {column.name} {_BIGQUERY_TYPES[column.type]}" for column in table.columns
    )
    return [
        (
            f"LOAD DATA OVERWRITE TEMP TABLE staged_{table.name} (\n{columns}\n)\n"
            f"FROM FILES (format = 'PARQUET', uris = ['{place.folder(table)}/*'])"
        )
    ]


BIGQUERY = Dialect(
    name="bigquery",
    title="BigQuery",
    types=_BIGQUERY_TYPES,
    how="""\
Run it as one script, so that the temporary tables and the transaction are its own, in the location
that the bucket is in:

  bq query --nouse_legacy_sql --location=EU <load.sql

Let one load end before the next begins: transactions that change rows of one table cancel one
another, but two that overlap can both insert a new slice.

{location} is the run's folder in Cloud Storage (gcloud storage cp --recursive).""",
    location="gs://BUCKET/RUN-FOLDER",
    begins=("gs://",),
    stage=_stage_bigquery,
    staged=_temporary,
    refuse="SELECT IF(\n{whole}\n, TRUE, ERROR('{why}')) AS the_run_is_whole",
    begin="BEGIN TRANSACTION",
    commit="COMMIT TRANSACTION",
)


# --- Redshift -----------------------------------------------------------------------------------


def _stage_redshift(table: Table, place: Place) -> list[str]:
    name = f"staged_{table.name}"
    return [
        f"CREATE TEMPORARY TABLE {name} (LIKE {place.schema}.{table.name})",
        f"COPY {name}\nFROM '{place.folder(table)}/'\nIAM_ROLE DEFAULT\nFORMAT AS PARQUET",
    ]


REDSHIFT = Dialect(
    name="redshift",
    title="Amazon Redshift",
    types={
        **_POSTGRES_TYPES,
        "string": "VARCHAR(65535)",
        "timestamp": "TIMESTAMP",
    },
    how="""\
Run it with psql, in a session of its own. A load waits for one that is under way; so do queries on
the table loads, which is locked meanwhile.

  psql --no-psqlrc --set ON_ERROR_STOP=1 --dbname "$DATABASE" --file load.sql

{location} is the run's folder in S3, in the cluster's own region; the cluster's default role has to
be allowed to list and read it, or write IAM_ROLE 'arn:…' for IAM_ROLE DEFAULT. COPY loads by
position: do not change the tables' columns. Times have no zone here; they are UTC.""",
    location="s3://BUCKET/RUN-FOLDER",
    begins=("s3://",),
    stage=_stage_redshift,
    staged=_temporary,
    refuse=_DIVIDE,
    now="GETDATE()",
    begin="BEGIN",
    lock="LOCK {schema}.loads",
)


# --- Databricks ---------------------------------------------------------------------------------

_DATABRICKS_TYPES = {
    "string": "STRING",
    "bool": "BOOLEAN",
    "int32": "INT",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "date32": "DATE",
    "timestamp": "TIMESTAMP",
}


def _stage_databricks(table: Table, place: Place) -> list[str]:
    name = _in_schema(table, place)
    return [
        create_table(table, name, _DATABRICKS_TYPES),
        f"TRUNCATE TABLE {name}",
        (
            f"COPY INTO {name}\n"
            f"FROM (SELECT {_columns(table)} FROM '{place.folder(table)}')\n"
            "FILEFORMAT = PARQUET\n"
            "FORMAT_OPTIONS ('recursiveFileLookup' = 'true')\n"
            "COPY_OPTIONS ('force' = 'true')"
        ),
    ]


DATABRICKS = Dialect(
    name="databricks",
    title="Databricks",
    types=_DATABRICKS_TYPES,
    how="""\
Run load.sql in a SQL warehouse, as a SQL task of a job (type File), which takes several statements;
give the job one concurrent run at most. A client that goes on behind an error, or repeats a
statement, shows nothing that is not whole: the last statement fails then. Run the script again.

{location} is the run's folder in a volume (/Volumes/…) or an external location (s3://…, abfss://…).
The staged_… tables belong to this script: one load at a time.""",
    location="/Volumes/CATALOG/SCHEMA/VOLUME/RUN-FOLDER",
    stage=_stage_databricks,
    staged=_in_schema,
    refuse="SELECT CASE WHEN\n{whole}\nTHEN TRUE ELSE raise_error('{why}') END",
)


# --- ClickHouse ---------------------------------------------------------------------------------


def _stage_nothing(_: Table, __: Place) -> list[str]:
    return []


def _from_files(table: Table, place: Place) -> str:
    reader = "s3" if place.location.startswith(("s3://", "https://")) else "file"
    return f"{reader}('{place.files(table)}', 'Parquet')"


CLICKHOUSE = Dialect(
    name="clickhouse",
    title="ClickHouse",
    types={
        "string": "String",
        "bool": "Bool",
        "int32": "Int32",
        "int64": "Int64",
        "float64": "Float64",
        "date32": "Date32",
        "timestamp": "DateTime64(6, 'UTC')",
    },
    how="""\
Run it with ClickHouse's own client, which stops at the first error:

  clickhouse-client --queries-file load.sql

{location} is a folder below the server's user_files_path, or s3://… or https://… that the server
may read. ClickHouse promises to hold times from 1900 to 2299 only.""",
    location="RUN-FOLDER",
    stage=_stage_nothing,
    staged=_from_files,
    refuse="SELECT throwIf(NOT (\n{whole}\n), '{why}')",
    now="now64(6, 'UTC')",
    create_schema="CREATE DATABASE IF NOT EXISTS {schema}",
    null=" NULL",
    ending="ENGINE = MergeTree\nORDER BY (audit_name, audit_date, run_id)",
    settings="\nSETTINGS insert_deduplicate = 0",
)

DIALECTS = {
    dialect.name: dialect
    for dialect in (DUCKDB, POSTGRES, SNOWFLAKE, BIGQUERY, REDSHIFT, DATABRICKS, CLICKHOUSE)
}
