"""SQLite's write-ahead log: whether anything in it was damaged.

SQLite takes a log for what it is up to the first frame whose sum is wrong, and everything behind it
for never written, without a word. A crash may well leave such a frame, but in the last transaction
only: each is forced to disk before the next one begins. Transactions behind it were lost.

The format is that of https://www.sqlite.org/fileformat2.html#walformat.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_HEADER, _FRAME = 32, 24
_BIG_ENDIAN = 0x377F0683
_64_KIB = 1
_WORD = 0xFFFFFFFF

#: The transaction that a crash has cut short may be whole but for the frame that is wrong.
_CUT_SHORT = 1


def is_damaged(log: Path) -> bool:
    """Whether a log lacks what was committed: more than a crash can have cut short.

    False where there is no log. Raises `OSError` where it cannot be read.
    """
    try:
        with log.open("rb") as file:
            return _lost_commits(file) > _CUT_SHORT
    except FileNotFoundError:
        return False


def _lost_commits(file: BinaryIO) -> int:
    """Count the transactions that end behind the first frame that is wrong."""
    header = file.read(_HEADER)
    if len(header) < _HEADER:
        return 0
    magic, _, size, _, *salts = struct.unpack(">6I", header[:24])
    order = ">" if magic == _BIG_ENDIAN else "<"
    sums = _sums(order, header[:24], (0, 0))
    if sums != struct.unpack(">2I", header[24:]):  # then nothing behind it is taken
        return _CUT_SHORT + bool(file.read(1))
    is_intact, lost = True, 0
    for frame in _frames(file, _FRAME + (65536 if size == _64_KIB else size)):
        _, commits, *found = struct.unpack(">4I", frame[:16])
        if is_intact:
            sums = _sums(order, frame[:8] + frame[_FRAME:], sums)
            is_intact = found == salts and sums == struct.unpack(">2I", frame[16:_FRAME])
        if not is_intact and found == salts:
            lost += bool(commits)
    return lost


def _frames(file: BinaryIO, size: int) -> Iterator[bytes]:
    while len(frame := file.read(size)) == size:
        yield frame


def _sums(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    for one, other in struct.iter_unpack(f"{order}2I", data):
        first = first + one + second & _WORD
        second = second + other + first & _WORD
    return first, second
