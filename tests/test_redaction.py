"""Text without secrets, whichever of the usual ways they are written."""

import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.redaction import Secrets

SECRET = "s3cr\"t/\\'%&-of<the>test"

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON in JSON in JSON": lambda text: json.dumps(json.dumps(json.dumps(text))),
    "JSON all in codes": lambda text: "".join(f"\\u{ord(c):04X}" for c in text),
    "percent-encoded": lambda text: quote(text, safe=""),
    "percent-encoded twice": lambda text: quote(quote(text, safe=""), safe=""),
    "percent-encoded all through": lambda text: "".join(f"%{ord(c):02x}" for c in text),
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
    "bytes in codes": lambda text: "".join(f"\\x{ord(c):02x}" for c in text),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_secret_is_found_in_every_form(form: Callable[[str], str]) -> None:
    text = f'{{"detail": "50% \\u0041 {form(SECRET)}, twice: {form(SECRET)}"}}'
    clean = Secrets("another", SECRET).without_in(text)

    assert clean.count("[secret]") == 2
    assert "test" not in clean
    assert form("of") not in clean


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6))
def test_any_secret_is_found_in_any_form(secret: str) -> None:
    for form in FORMS.values():
        clean = Secrets(secret).without_in(form(secret))

        assert clean.strip("b\"'\\") == "[secret]"


@given(st.text(), st.binary())
def test_what_holds_no_secret_stays(text: str, data: bytes) -> None:
    secrets = Secrets("one that is not in there", "")

    assert secrets.without_in(text) == text
    assert secrets.without(data) is data


def test_a_short_secret_does_not_spoil_every_text() -> None:
    assert Secrets("x", "abc").without_in("next: abc") == "next: abc"


def test_a_secret_that_came_later_is_taken_out_too() -> None:
    secrets = Secrets()
    secrets.add("came-later")

    assert secrets.without(b"it came-later") == b"it [secret]"


@pytest.mark.parametrize("piece", [b"\\", b"%25", b"\\\\u005c", b"%", b"s\\u0033"])
def test_no_text_takes_long(piece: bytes) -> None:
    """By the number of bytes, not by its square: else this would not end."""
    data = piece * (2**20 // len(piece))

    assert Secrets(SECRET, "\\" * 40, "%" * 40).without(data + SECRET.encode()) != data
