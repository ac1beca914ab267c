"""The SQL that all dialects with transactions share."""

from collections.abc import Mapping

from pipeline.tables import LOADS, TABLES, Table

#: Where the tables are, unless another schema is named.
SCHEMA = "checkpoint_audit"

#: In the order in which they are replaced: what is in `runs` is whole.
LOADED = TABLES


def create_tables(schema: str, types: Mapping[str, str]) -> list[str]:
    """Create the tables of the contract, and `loads`; `types` are the dialect's, by ours."""
    return [create_table(table, f"{schema}.{table.name}", types) for table in (*LOADED, LOADS)]


def create_table(table: Table, name: str, types: Mapping[str, str]) -> str:
    """Create one table under the name it is called by."""
    columns = ",\n".join(
        f"  {column.name} {types[column.type]}{'' if column.nullable else ' NOT NULL'}"
        for column in table.columns
    )
    return f"CREATE TABLE IF NOT EXISTS {name} (\n{columns}\n)"


def replace_slice(schema: str, stage: str) -> list[str]:
    """Give the statements of one transaction: rows staged in `stage` replace those of their slice.

    The slice is what the staged `runs` says, so a table without a staged row is emptied of it too.
    """
    return [
        statement
        for table in LOADED
        for statement in (_delete(table, schema, stage), _insert(table, schema, stage))
    ]


def _delete(table: Table, schema: str, stage: str) -> str:
    return (
        f"DELETE FROM {schema}.{table.name} WHERE EXISTS (\n"
        f"  SELECT 1 FROM {stage}.runs AS staged\n"
        f"  WHERE staged.audit_name = {table.name}.audit_name"
        f" AND staged.audit_date = {table.name}.audit_date\n)"
    )


def _insert(table: Table, schema: str, stage: str) -> str:
    columns = ", ".join(table.names)
    return (
        f"INSERT INTO {schema}.{table.name} ({columns})\nSELECT {columns}\n"
        f"FROM {stage}.{table.name}"
    )
