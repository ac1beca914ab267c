"""The tests' own PostgreSQL server: it is real, asks for a password, and databases are apart."""

import psycopg2
import pytest

from tests.postgres import Postgres, query


def test_a_database_of_ones_own(postgres: Postgres) -> None:
    url = postgres.new_database()

    query(url, "CREATE TABLE t AS SELECT 1 AS a")

    assert query(url, "SELECT a, current_user FROM t") == [(1, "loader")]
    with pytest.raises(psycopg2.errors.UndefinedTable):
        query(postgres.new_database(), "SELECT a FROM t")


def test_it_wants_the_password(postgres: Postgres) -> None:
    wrong = postgres.url("postgres").replace(postgres.password, "wrong")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        query(wrong, "SELECT 1")
