"""Chance that comes out the same everywhere.

Everything the simulator chooses is drawn from a key instead of a running generator, so the body of
one checkpoint out of a million can be made without making those before it, and is the same in every
process and Python version (`hash()` is not, and `random` promises less).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

Key = str | int
Item = TypeVar("Item")


def _digest(key: tuple[Key, ...], size: int) -> bytes:
    text = "\x1f".join(map(str, key))
    return blake2b(text.encode(), digest_size=size).digest()


def draw(bound: int, *key: Key) -> int:
    """Return a number from 0 to `bound - 1` that depends on the key alone."""
    return int.from_bytes(_digest(key, 8), "big") % bound


def hex_text(length: int, *key: Key) -> str:
    """Return `length` hexadecimal digits that depend on the key alone; `length` is even."""
    return _digest(key, length // 2).hex()


def object_id(seconds: int, *key: Key) -> str:
    """Return an ObjectId in hexadecimal: four bytes of Unix time, eight drawn from the key."""
    return f"{seconds:08x}{hex_text(16, *key)}"


def shuffled(items: Sequence[Item], *key: Key) -> tuple[Item, ...]:
    """Return the items in an order that depends on the key alone."""
    order = sorted(range(len(items)), key=lambda place: draw(1 << 63, *key, place))
    return tuple(items[place] for place in order)
