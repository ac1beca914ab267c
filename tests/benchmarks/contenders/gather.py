"""aiohttp, gather over everything, a semaphore, json_normalize.

python gather.py INPUT OUTPUT
"""

import asyncio
import csv
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pandas as pd

BASE_URL = os.environ["MONGODB_ATLAS_BASE_URL"]
HEADERS = {
    "Authorization": f"Bearer {os.environ['MONGODB_ATLAS_ACCESS_TOKEN']}",
    "Accept": "application/vnd.atlas.2023-01-01+json",
}
PATH = "/api/atlas/v2/groups/{project_id}/clusters/{cluster_name}/backupCheckpoints/{checkpoint_id}"
CONCURRENCY = 64
TOO_MANY_REQUESTS = 429


async def fetch(
    session: aiohttp.ClientSession, semaphore: asyncio.Semaphore, row: dict[str, str]
) -> Any:
    async with semaphore:
        while True:
            async with session.get(BASE_URL + PATH.format(**row)) as response:
                if response.status != TOO_MANY_REQUESTS:
                    response.raise_for_status()
                    return await response.json()
                wait = max(1, int(response.headers.get("Retry-After", "1")))
            await asyncio.sleep(wait)


async def fetch_all(rows: list[dict[str, str]]) -> list[Any]:
    semaphore = asyncio.Semaphore(CONCURRENCY)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        return await asyncio.gather(*(fetch(session, semaphore, row) for row in rows))


def main() -> None:
    source, output = map(Path, sys.argv[1:])
    with source.open(encoding="utf-8", newline="") as file:
        documents = asyncio.run(fetch_all(list(csv.DictReader(file))))
    checkpoints = pd.json_normalize(documents).drop(columns=["parts", "links"])
    parts = pd.json_normalize(documents, record_path="parts", meta=["groupId", "clusterId", "id"])
    checkpoints.to_parquet(output / "checkpoints.parquet")
    parts.to_parquet(output / "parts.parquet")
    sys.stdout.write(f"{len(checkpoints)} {len(parts)}\n")


if __name__ == "__main__":
    main()
