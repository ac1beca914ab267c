"""Data quality at the door: the tables of a run are read back before they are published.

What is staged was written from values in memory; what counts is what a reader will find in the
files. Each is read once, in the order of its keys, the tables side by side and a piece at a time,
so memory does not grow with the run. The first thing that is wrong ends the publishing.

- `files`: each table is one file, of the contract's schema; constants and enumerations.
- `rows`: every key once, and in order.
- `zones`: the same stretch of keys of all tables; `references`: what one table says of another.
- `counts`: rows, `runs` and `summary.json` tell the same numbers.
"""

from pathlib import Path

from pipeline.quality.counts import Counted, read_summary
from pipeline.quality.files import TableFile
from pipeline.quality.references import References
from pipeline.quality.rows import SORTED, last_of_keys, rows_of, whole_parts
from pipeline.quality.zones import zones
from pipeline.report.summary import RunFacts
from pipeline.tables import FAILING, FINDINGS, PARTS, REPLIES, RUNS, TABLES

__all__ = ["check_tables"]


#: Rows of each table that are in memory at a time: fewer cost more time, more only memory.
ROWS_AT_ONCE = 16_384


def check_tables(folder: Path, facts: RunFacts, rows_at_once: int = ROWS_AT_ONCE) -> None:
    """Check the staged tables of a run, and its `summary.json`, in `folder`.

    Raises `ProgramFault` that names the table, the key or the figure, and what is wrong with it.
    """
    tables = (*TABLES, FAILING, REPLIES)
    files = {table.name: TableFile(folder, table, facts, rows_at_once) for table in tables}
    for file in files.values():
        file.check()
    streams = {name: rows_of(files[name], sorting) for name, sorting in SORTED.items()}
    streams[PARTS.name] = last_of_keys(whole_parts(streams[PARTS.name]))
    references, counted = References(), Counted()
    for zone in zones(streams):
        references.check(zone)
        counted.add(zone["outcomes"], zone[FINDINGS.name], zone[REPLIES.name])
    references.check_end()
    counted.check(files[RUNS.name], read_summary(folder))
