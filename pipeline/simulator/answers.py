"""Answers as Atlas words them: errors, envelopes, media types.

An `Answer` says what; `render` says how, by the request's `envelope`, `pretty`, `Accept` and
`Accept-Encoding`.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, field
from datetime import date
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCEPTED = re.compile(r"application/vnd\.atlas\.(\d{4}-\d{2}-\d{2})\+json")
GZIP_FROM_BYTES = 1400
"""Below about one network packet, compression saves nobody anything."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say. A `version` (a date) belongs to good answers; errors are plain JSON.

    `listing` marks a page of results, which an envelope wraps in another way.
    """

    status: int
    payload: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    listing: bool = False

    @property
    def content_type(self) -> str:
        """The media type as Atlas writes it."""
        if not self.version:
            return "application/json"
        return f"application/vnd.atlas.{self.version}+json;charset=utf-8"


def problem(
    status: int,
    code: str,
    detail: str,
    parameters: list[object] | None = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Return an error in Atlas's form."""
    payload: dict[str, object] = {
        "detail": detail,
        "error": status,
        "errorCode": code,
        "parameters": parameters or [],
        "reason": HTTPStatus(status).phrase,
    }
    return Answer(status, payload, headers or {})


def invalid(name: str, value: str, rule: str) -> Answer:
    """Return the refusal of a parameter; its `parameters` mix types, as Atlas's do."""
    refusal = problem(
        400,
        "VALIDATION_ERROR",
        f"The value of {name} is not valid.",
        [name, len(value), {"pattern": rule}, None],
    )
    violation = {"field": name, "description": f"must match {rule}"}
    detail = {"badRequestDetail": {"fields": [violation]}}
    return Answer(400, {**refusal.payload, **detail})


def negotiate(accept: str, version: str) -> Answer | None:
    """Return the refusal of an Accept header that a resource of that version cannot serve, or None.

    Any date from the resource's own on is served by it. No date, one that is not in the calendar,
    or an earlier one is 406.
    """
    dates = (ACCEPTED.fullmatch(one.partition(";")[0].strip()) for one in accept.split(","))
    if any(found and _in_calendar(found[1]) and found[1] >= version for found in dates):
        return None
    return problem(
        406,
        "INVALID_VERSION_DATE",
        f"No version of this resource can be served for the media type {accept or '(none)'}.",
        [accept],
    )


def _in_calendar(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def asks(request: web.Request, flag: str) -> bool:
    """Return whether a boolean query parameter is set."""
    return request.query.get(flag, "").lower() == "true"


def render(
    request: web.Request, answer: Answer, *, compress: bool = True, enveloped: bool = True
) -> web.Response:
    """Return an answer in the form that a request asked for.

    Under `envelope=true` the HTTP status is 200 and the true one is in the body; `enveloped=False`
    is for what is said before a resource is reached, where a challenge must keep its status.
    """
    status, payload = answer.status, answer.payload
    if enveloped and asks(request, "envelope"):
        single = {"status": status, "content": payload}
        payload = {**payload, "status": status} if answer.listing else single
        status = 200
    body = msgspec.json.encode(payload)
    if asks(request, "pretty"):
        body = msgspec.json.format(body, indent=2)
    headers = {"Content-Type": answer.content_type, **answer.headers}
    if compress and len(body) >= GZIP_FROM_BYTES and _takes_gzip(request):
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return web.Response(status=status, body=body, headers=headers)


def _takes_gzip(request: web.Request) -> bool:
    return "gzip" in request.headers.get("Accept-Encoding", "")
