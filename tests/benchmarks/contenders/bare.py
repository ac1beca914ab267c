"""The floor: aiohttp, 64 workers, bodies read and thrown away.

python bare.py INPUT OUTPUT
"""

import asyncio
import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp

BASE_URL = os.environ["MONGODB_ATLAS_BASE_URL"]
HEADERS = {
    "Authorization": f"Bearer {os.environ['MONGODB_ATLAS_ACCESS_TOKEN']}",
    "Accept": "application/vnd.atlas.2023-01-01+json",
}
PATH = "/api/atlas/v2/groups/{project_id}/clusters/{cluster_name}/backupCheckpoints/{checkpoint_id}"
CONCURRENCY = 64


async def work(session: aiohttp.ClientSession, urls: Iterator[str]) -> int:
    bodies = 0
    for url in urls:
        async with session.get(url) as response:
            response.raise_for_status()
            await response.read()
        bodies += 1
    return bodies


async def read_all(urls: Iterator[str]) -> int:
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        return sum(await asyncio.gather(*(work(session, urls) for _ in range(CONCURRENCY))))


def main() -> None:
    with Path(sys.argv[1]).open(encoding="utf-8", newline="") as file:
        urls = (BASE_URL + PATH.format(**row) for row in csv.DictReader(file))
        bodies = asyncio.run(read_all(urls))
    sys.stdout.write(f"{bodies}\n")


if __name__ == "__main__":
    main()
