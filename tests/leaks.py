"""Where a secret could be after a run, and a search of all these places.

The search knows nothing of how the program takes secrets out: it looks for the forms that text
takes on its way through headers, URLs, JSON, logs and tables.
"""

import gzip
import json
import shutil
import sqlite3
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import zstandard


def forms(secret: str, login: str = "") -> dict[str, str]:
    """A secret as it looks in other text, by the name of the form."""
    basic = b64encode(f"{login}:{secret}".encode()).decode()
    return {
        **({"Basic": basic} if login else {}),
        "as it is": secret,
        "JSON": json.dumps(secret)[1:-1],
        "JSON in JSON": json.dumps(json.dumps(secret)[1:-1])[1:-1],
        "codes": "".join(f"\\u{ord(c):04x}" for c in secret),
        "percent-encoded": quote(secret, safe=""),
        "percent-encoded but for slashes": quote(secret),
        "repr": repr(secret)[1:-1],
        "repr of bytes": repr(secret.encode())[2:-1],
        "base64": b64encode(secret.encode()).decode(),
    }


def leaks(folder: Path, needles: Sequence[str]) -> list[str]:
    """Name every place below `folder` that holds one of `needles`."""
    return [
        f"{place}: {needle}"
        for place, text in _texts(folder)
        for needle in needles
        if needle.encode() in text
    ]


def _texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file as it is, and what is packed in it."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert paths
    for path in paths:
        name = str(path.relative_to(folder))
        yield name, path.read_bytes()
        if path.suffix == ".gz":
            yield f"{name}, unpacked", gzip.decompress(path.read_bytes())
        if path.suffix == ".parquet":
            yield f"{name}, unpacked", _cells(path)
        if path.suffix == ".journal":
            yield f"{name}, unpacked", _journal(path)


def _cells(path: Path) -> bytes:
    rows = pq.read_table(path).to_pylist()
    return b"\n".join(
        cell if isinstance(cell, bytes) else str(cell).encode("utf-8", "surrogatepass")
        for row in rows
        for cell in row.values()
    )


def _journal(path: Path) -> bytes:
    """Every value of a journal, bodies unpacked; of a copy, since reading would change it."""
    copy = path.parent.parent / "copy-of-a-journal"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in path.parent.glob(path.name + "*"):
        shutil.copy(file, copy)
    db = sqlite3.connect(copy / path.name)
    try:
        return b"\n".join(_values(db))
    finally:
        db.close()
        shutil.rmtree(copy)


def _values(db: sqlite3.Connection) -> Iterator[bytes]:
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if "facts" not in tables:
        return
    facts = dict(db.execute("SELECT name, value FROM facts").fetchall())
    common = zstandard.ZstdCompressionDict(
        facts["dictionary"].encode(), dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    unpack = zstandard.ZstdDecompressor(dict_data=common).decompress
    for table in tables:
        for row in db.execute(f"SELECT * FROM {table}"):  # noqa: S608 - the journal's own names
            for value in row:
                yield unpack(value) if isinstance(value, bytes) else str(value).encode()
