"""requests, a pool of threads with a session each, json_normalize.

python threads.py INPUT OUTPUT
"""

import csv
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import requests

BASE_URL = os.environ["MONGODB_ATLAS_BASE_URL"]
HEADERS = {
    "Authorization": f"Bearer {os.environ['MONGODB_ATLAS_ACCESS_TOKEN']}",
    "Accept": "application/vnd.atlas.2023-01-01+json",
}
PATH = "/api/atlas/v2/groups/{project_id}/clusters/{cluster_name}/backupCheckpoints/{checkpoint_id}"
CONCURRENCY = 64

local = threading.local()


def open_session() -> None:
    local.session = requests.Session()
    local.session.headers.update(HEADERS)


def fetch(row: dict[str, str]) -> Any:
    response = local.session.get(BASE_URL + PATH.format(**row), timeout=30)
    response.raise_for_status()
    return response.json()


def main() -> None:
    source, output = map(Path, sys.argv[1:])
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with ThreadPoolExecutor(CONCURRENCY, initializer=open_session) as pool:
        documents = list(pool.map(fetch, rows))
    checkpoints = pd.json_normalize(documents).drop(columns=["parts", "links"])
    parts = pd.json_normalize(documents, record_path="parts", meta=["groupId", "clusterId", "id"])
    checkpoints.to_parquet(output / "checkpoints.parquet")
    parts.to_parquet(output / "parts.parquet")
    sys.stdout.write(f"{len(checkpoints)} {len(parts)}\n")


if __name__ == "__main__":
    main()
