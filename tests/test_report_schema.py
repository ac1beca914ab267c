"""The schema of summary.json: current, sound, and true of every summary that can be written."""

import json
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.policy import default_policy
from pipeline.report.schema import schema, written
from pipeline.report.summary import Summary
from pipeline.report.tally import Tally
from tests.nights import Night
from tests.nights import summary as published_summary
from tests.summaries import clean, facts, hostile, troubled

ROOT = Path(__file__).parents[1]
SCHEMA = schema()


def closed(known: Any) -> Any:
    """The schema as one that allows no field it does not name."""
    if isinstance(known, list):
        return [closed(one) for one in known]
    if not isinstance(known, dict):
        return known
    shut = {"additionalProperties": False} if "properties" in known else {}
    return {name: closed(value) for name, value in known.items()} | shut


VALID = Draft202012Validator(closed(SCHEMA), format_checker=Draft202012Validator.FORMAT_CHECKER)


def document(summary: Summary) -> Any:
    return json.loads(msgspec.json.encode(summary))


def made(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that a summary is made of."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        parts = {field.name: made(field.type) for field in msgspec.structs.fields(kind)}
        return st.builds(kind, **parts)
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple:
        return st.lists(made(args[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(made(args[0]), made(args[1]), max_size=2)
    if args:
        return st.one_of(*map(made, args))
    return SIMPLE[kind] if kind in SIMPLE else st.from_type(kind)


SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    datetime: st.datetimes(timezones=st.just(UTC)),
    str: st.text(max_size=5),
}


def test_page_is_current() -> None:
    """`make docs` was run after the last change of a struct."""
    assert (ROOT / "docs/summary.schema.json").read_text("utf-8") == written()


def test_it_is_a_schema_that_lets_a_version_grow() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    grown = document(clean()) | {"a_field_of_a_later_release": 1}

    assert Draft202012Validator(SCHEMA).is_valid(grown)
    assert not VALID.is_valid(grown)


@pytest.mark.parametrize(
    "summary",
    [clean(), troubled(), hostile("<b>=1"), Tally(default_policy()).summary(facts(
        line_count=0, triple_count=0, duplicate_count=0), [])],
    ids=["clean", "troubled", "hostile", "empty"],
)  # fmt: skip
def test_summaries_are_as_it_says(summary: Summary) -> None:
    VALID.validate(document(summary))


def test_a_published_summary_is_as_it_says(night: Night) -> None:
    published = published_summary(night.run().run)

    VALID.validate(published)
    assert published["timeline"]["bins"]
    assert published["policy"]["name"] == "default"


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(made(Summary))
def test_whatever_can_be_written_is_as_it_says(summary: Summary) -> None:
    VALID.validate(document(summary))


@pytest.mark.parametrize("wrong", ["count", "verdict", "missing", "date"])
def test_it_finds_what_is_wrong(wrong: str) -> None:
    told = deepcopy(document(troubled()))
    match wrong:
        case "count":
            told["counts"]["pass_count"] = "1"
        case "verdict":
            told["clusters"][0]["verdict"] = "FINE"
        case "missing":
            del told["answer"]
        case _:
            told["run"]["audit_date"] = 20261123

    assert not Draft202012Validator(SCHEMA).is_valid(told)
