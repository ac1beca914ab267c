"""The JSON Schema of `summary.json`, made from the structs that it is written from.

`python -m pipeline.report.schema > docs/summary.schema.json` renews the page.
"""

import sys
from typing import Any

import msgspec

from pipeline.report.summary import SUMMARY_VERSION, Summary


def schema() -> dict[str, Any]:
    """Give the schema.

    Objects may have more than it names (`additionalProperties` is left at its default, true): a
    field that is new does not make another version, and readers pass over what they do not know.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"summary.json of checkpoint-audit, version {SUMMARY_VERSION}",
        "$comment": "Made by `make docs`. Objects may gain fields in a version: read past them.",
        **msgspec.json.schema(Summary),
    }


def written() -> str:
    """Give the schema as text."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


if __name__ == "__main__":
    sys.stdout.write(written())
