"""The demo: the same run as any other, against the embedded simulator over real HTTP."""

from pathlib import Path

import pyarrow.dataset as ds

#: The column of a demo's input that says how each triple should end.
EXPECTED = "expected_verdict"


def unexpected(run: Path) -> list[str]:
    """List the triples of a published run that did not end as their fleet should have it.

    What is expected stands in the input's column `expected_verdict`, which every outcome carries
    among its labels.
    """
    import json

    columns = ["group_id", "cluster_name", "checkpoint_id", "verdict", "labels"]
    rows = ds.dataset(run / "outcomes", format="parquet").to_table(columns=columns).to_pylist()
    wrong = []
    for row in rows:
        expected = json.loads(row["labels"]).get(EXPECTED)
        if expected and expected != row["verdict"]:
            triple = f"{row['group_id']}/{row['cluster_name']}/{row['checkpoint_id']}"
            wrong.append(f"{triple}: {row['verdict']}, expected {expected}")
    return wrong
