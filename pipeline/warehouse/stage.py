"""The rows of a run, brought into a warehouse by dlt, into a schema of their own.

dlt is given nothing to remember and nothing to find out: its working folder is new for each load
and goes with it, so that no package of an earlier load is pending in it and no hint of an earlier
schema sticks; it reads no configuration but what stands here, neither the environment's nor files';
and the tables are there already, with the contract's types, so that no value decides one. Keys are
left out: with `primary_key` and `merge_key` together it merges row by row, without an end.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import AuditError, InputUnusable, LoadRefused
from pipeline.evidence import reading
from pipeline.published import AS_IT_WAS, PublishedRun
from pipeline.tables import Table
from pipeline.warehouse import tallies
from pipeline.warehouse.connections import Connection, full_disk, said
from pipeline.warehouse.statements import LOADED
from pipeline.warehouse.waiting import limited

log = logging.getLogger(__name__)

#: dlt reads these while it is imported, before anything can be said to it.
_BEFORE = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DISABLE_PLUGINS": "true"}

_CONFIGURATION: dict[str, dict[str, Any]] = {
    # Signals stay ours: dlt makes a failure of one that comes between its steps, or forgets it.
    "runtime": {
        "dlthub_telemetry": False,
        "log_level": "CRITICAL",
        "intercept_signals": False,
    },
    "load": {"workers": 4, "raise_on_max_retries": 1},
    "normalize": {"workers": 1, "data_writer": {"disable_compression": True}},
    "data_writer": {"disable_compression": True},
}


#: Rows that are sent at once: dlt takes its time for each batch, whatever is in it.
_BATCH_ROWS = 50_000


class Content(NamedTuple):
    """One table of a run: its files, and what is counted in them."""

    table: Table
    paths: list[Path]
    figures: tallies.Figures

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return int(self.figures[0][1] or 0)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read the rows, some at a time."""
        return _batches(self.table, self.paths)


def contents_of(run: PublishedRun) -> list[Content]:
    """Read what the tables of a run hold, after checking that its files are as published.

    Raises `InputUnusable`.
    """
    return [_content(run, table) for table in LOADED]


def _content(run: PublishedRun, table: Table) -> Content:
    paths = [path for path in run.files(table.name) if path.suffix == ".parquet"]
    return Content(table, paths, tallies.counted(table, _batches(table, paths)))


def _batches(table: Table, paths: list[Path]) -> Iterator[pa.RecordBatch]:
    names = list(table.names)
    for path in paths:
        with reading(path), pq.ParquetFile(path) as file:
            lacking = set(names).difference(file.schema_arrow.names)
            if lacking:
                raise InputUnusable(f"{path} lacks {', '.join(sorted(lacking))}", hint=AS_IT_WAS)
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                # In our order, and without the metadata, which are those of who wrote the file.
                yield batch.select(names).cast(table.schema)


def fill(connection: Connection, stage: str, contents: list[Content]) -> None:
    """Bring the rows into the tables of the schema `stage`, and check that all are there.

    Raises `LoadRefused`.
    """
    stand_in = f"empty in {stage}" if connection.loses_empty else ""
    with TemporaryDirectory(prefix="checkpoint-audit-load-") as name:
        _load(connection, stage, [each for each in contents if each.row_count], stand_in, name)
    for content in contents:
        place = f"{stage}.{content.table.name}"
        if stand_in:
            _take_out(connection, place, content, stand_in)
        _check(connection, place, content)


def _load(
    connection: Connection, stage: str, contents: list[Content], stand_in: str, folder: str
) -> None:
    os.environ.update(_BEFORE)
    import dlt
    from dlt.common.exceptions import DltException

    _forget(folder)
    pipeline = dlt.pipeline(
        pipeline_name="checkpoint_audit",
        pipelines_dir=folder,
        destination=connection.destination(),
        dataset_name=stage,
    )
    resources = [
        dlt.resource(
            _sent(connection, content, stand_in),
            name=content.table.name,
            write_disposition="replace",
        )
        for content in contents
    ]
    try:
        # dlt would wait for ever for a server that is silent, and for a job that never begins, as
        # where its worker fails before.
        with limited():
            pipeline.run(resources, loader_file_format=connection.file_format)
    except (DltException, OSError) as error:
        origin = _origin(error)
        if isinstance(origin, AuditError):  # while the rows were read, or a signal
            raise origin from None
        raise LoadRefused(
            f"the rows could not be staged: {said(origin)}",
            hint=full_disk(origin) or _hint(connection),
        ) from None


def _forget(folder: str) -> None:
    """Let dlt know nothing but `_CONFIGURATION`, and no place but `folder`."""
    from dlt.common.configuration.container import Container
    from dlt.common.configuration.providers.dictionary import DictionaryProvider
    from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
    from dlt.common.runtime.run_context import RunContext

    class Alone(RunContext):
        """A context whose folders are all the same one."""

        global_dir = run_dir = local_dir = data_dir = folder

        def initial_providers(self) -> list[Any]:
            provider = DictionaryProvider()
            for section, values in _CONFIGURATION.items():
                for key, value in values.items():
                    provider.set_value(key, value, None, section)
            return [provider]

    Container()[PluggableRunContext] = PluggableRunContext(Alone(folder))


def _origin(error: BaseException) -> BaseException:
    """What an error of dlt's began with; its own words tell of packages and folders."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _hint(connection: Connection) -> str:
    if connection.encoding == "UTF8":
        return "nothing was changed in the warehouse; load the run again"
    return (
        f"nothing was changed in the warehouse; its database is in {connection.encoding}, which "
        "cannot hold every text: load into a database in UTF8"
    )


# --- texts that the warehouse does not take -----------------------------------------------------


def _sent(connection: Connection, content: Content, stand_in: str) -> Iterator[pa.RecordBatch]:
    """Give the rows as the warehouse takes them, and say what had to be changed for that."""
    changed: Counter[str] = Counter()
    for batch in _standing_in(content, stand_in):
        yield batch if connection.takes_nul else _without_nul(batch, changed)
    for name, count in changed.items():
        log.warning(
            "%s.%s: the character NUL, which the warehouse does not take, is U+FFFD there in %s "
            "of the values",
            content.table.name,
            name,
            f"{count:,}",
        )


def _without_nul(batch: pa.RecordBatch, changed: Counter[str]) -> pa.RecordBatch:
    """Replace each NUL by one other character; `changed` counts the values of each column."""
    for index, field in enumerate(batch.schema):
        if field.type == pa.string():
            column = batch.column(index)
            count = pc.sum(pc.match_substring(column, "\0")).as_py() or 0
            if count:
                changed[field.name] += count
                replaced = pc.replace_substring(column, "\0", "\N{REPLACEMENT CHARACTER}")
                batch = batch.set_column(index, field, replaced)
    return batch


# --- empty texts --------------------------------------------------------------------------------


def _standing_in(content: Content, stand_in: str) -> Iterator[pa.RecordBatch]:
    """Give the rows with `stand_in` for each empty text, where such would arrive as null."""
    for batch in content.batches():
        yield _replaced(batch, stand_in) if stand_in else batch


def _replaced(batch: pa.RecordBatch, stand_in: str) -> pa.RecordBatch:
    for index, field in enumerate(batch.schema):
        if field.type == pa.string() and field.nullable:
            column = batch.column(index)
            is_empty = pc.equal(column, "")
            if pc.any(is_empty).as_py():
                batch = batch.set_column(index, field, pc.if_else(is_empty, stand_in, column))
    return batch


def _take_out(connection: Connection, place: str, content: Content, stand_in: str) -> None:
    """Make the texts empty again that `stand_in` stood for."""
    for column in content.table.columns:
        if column.type == "string" and column.nullable:
            name = column.name
            connection.rows(f"UPDATE {place} SET {name} = '' WHERE {name} = ?", [stand_in])


# --- what arrived -------------------------------------------------------------------------------


def check(
    connection: Connection, content: Content, source: str, parameters: Sequence[Any], where: str
) -> None:
    """Refuse what is not as in the files.

    `source` is a table, or that and a condition with `parameters`; `where` is what it is called.
    Raises `LoadRefused`.
    """
    asked = tallies.statement(content.table, source, connection.microseconds)
    (row,) = connection.rows(asked, parameters)
    wrong = tallies.differences(content.figures, tallies.answered(content.table, row), where)
    if wrong:
        more = f" (and {len(wrong) - 1} more figures)" if len(wrong) > 1 else ""
        raise LoadRefused(
            f"not all of the rows of {content.table.name} arrived: {wrong[0]}{more}",
            hint=_hint(connection),
        )


def _check(connection: Connection, place: str, content: Content) -> None:
    check(connection, content, place, (), "staged")
