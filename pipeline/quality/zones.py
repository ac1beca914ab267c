"""Several tables side by side: of each the rows of the same stretch of keys, a piece at a time."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

#: The rows of one stretch of keys, by their tables' names.
Zone = Mapping[str, pa.Table]


def zones(streams: Mapping[str, Iterator[pa.Table]]) -> Iterator[Zone]:
    """Cut tables at the same keys; each gives its rows in the order of `key`.

    All rows of one key are in one zone. Of each table are held what was read at once, and the rows
    of one key if they are more.
    """
    held = {name: _Stream(batches) for name, batches in streams.items()}
    bound: str | None = ""
    while bound is not None:
        for stream in held.values():
            stream.fill()
        bound = min((each.last for each in held.values() if not each.is_done), default=None)
        yield {name: stream.cut(bound) for name, stream in held.items()}


class _Stream:
    """One table: rows that were read and are in no zone yet."""

    def __init__(self, batches: Iterator[pa.Table]) -> None:
        self._batches = batches
        self._rows = next(batches)
        self.is_done = False

    @property
    def last(self) -> str:
        """The last key that was read; there may be more rows of it."""
        return str(self._rows["key"][-1].as_py())

    def fill(self) -> None:
        """Read on until there is a key whose rows are all there."""
        while not self.is_done and self._is_one_key():
            more = next(self._batches, None)
            if more is None:
                self.is_done = True
            else:
                self._rows = pa.concat_tables([self._rows, more])

    def _is_one_key(self) -> bool:
        return not self._rows.num_rows or self._rows["key"][0].as_py() == self.last

    def cut(self, bound: str | None) -> pa.Table:
        """Take the rows below a key; all that there are, where that is None."""
        keys = self._rows["key"]
        count = len(keys) if bound is None else pc.sum(pc.less(keys, bound)).as_py() or 0
        taken, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        return taken.combine_chunks()
