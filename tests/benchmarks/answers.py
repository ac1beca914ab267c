"""What the fast server answers: responses prepared once a cluster, with holes for what differs.

Every id of the right form gets a healthy checkpoint of two shards and the config servers, about
1 KB. Nobody is ever limited: every project's bucket holds a million requests, in the headers and in
the resource that tells the limits alike.
"""

import json
import time
from collections.abc import Callable
from email.utils import formatdate
from urllib.parse import parse_qs
from zlib import crc32

from tests.benchmarks.triples import checkpoint_ids_of

CAPACITY = 1_000_000
REFILL_DURATION_S = 60

_MEDIA_TYPE = "application/vnd.atlas.{}+json;charset=utf-8"
_CHECKPOINT_TYPE = _MEDIA_TYPE.format("2023-01-01")
_LIMITS_TYPE = _MEDIA_TYPE.format("2025-03-12")

_CHECKPOINTS = b"/backupCheckpoints"
_ID_LENGTH = 24


class Atlas:
    """Answers requests. `requests` counts them, but for those about the usage."""

    def __init__(self) -> None:
        self.requests = 0
        self._responses: dict[bytes, bytes] = {}
        self._bodies: dict[bytes, bytes] = {}
        self._date = b""
        self._date_at = 0
        self._others: dict[bytes, Callable[[], bytes]] = {
            b"/api/atlas/v2/groups": self._groups,
            b"/api/atlas/v2/rateLimits": self._rate_limits,
            b"/api/oauth/token": self._token,
            b"/api/oauth/revoke": self._revoked,
            b"/usage": self._usage,
        }

    def answer(self, head: bytes) -> bytes:
        """Answer one request, given its head without the blank line."""
        self.requests += 1
        target = head.split(b" ", 2)[1]
        place, is_one, checkpoint_id = target.rpartition(_CHECKPOINTS + b"/")
        if is_one:
            return self._checkpoint(place, checkpoint_id.partition(b"?")[0])
        path, _, query = target.partition(b"?")
        if path.endswith(_CHECKPOINTS):
            return self._page(path.removesuffix(_CHECKPOINTS), query)
        return self._others.get(path, _missing)()

    def _checkpoint(self, place: bytes, checkpoint_id: bytes) -> bytes:
        response = self._responses.get(place)
        if response is None:
            response = self._responses[place] = _response_template(self._body_template(place))
        return response % {**_holes(checkpoint_id), b"date": self._now()}

    def _body_template(self, place: bytes) -> bytes:
        body = self._bodies.get(place)
        if body is None:
            body = self._bodies[place] = _body_template(place.decode())
        return body

    def _page(self, place: bytes, query: bytes) -> bytes:
        asked = parse_qs(query.decode())
        items, number = (
            int(asked.get(name, [default])[0])
            for name, default in (("itemsPerPage", "100"), ("pageNum", "1"))
        )
        *_, group_id, _, name = place.decode().split("/")
        every = list(checkpoint_ids_of(group_id, name))
        chosen = every[(number - 1) * items : number * items]
        template = self._body_template(place)
        results = b",".join(template % _holes(one.encode()) for one in chosen)
        rest = {"links": _page_links(place, number, number * items < len(every))}
        text = json.dumps({**rest, "totalCount": len(every)}, separators=(",", ":")).encode()
        return self._respond(text[:-1] + b',"results":[' + results + b"]}", limited=True)

    def _respond(
        self, body: bytes, media_type: str = _CHECKPOINT_TYPE, *, limited: bool = False
    ) -> bytes:
        return _head(len(body), media_type, limited=limited) % {b"date": self._now()} + body

    def _now(self) -> bytes:
        """Give the Date header, made once a second."""
        now = int(time.time())
        if now != self._date_at:
            self._date_at, self._date = now, formatdate(now, usegmt=True).encode()
        return self._date

    # --- the other resources ---

    def _groups(self) -> bytes:
        return self._respond(b'{"links":[],"results":[],"totalCount":0}')

    def _rate_limits(self) -> bytes:
        amounts = {"capacity": CAPACITY, "refillRate": CAPACITY}
        amounts["refillDurationSeconds"] = REFILL_DURATION_S
        limit = {
            "endpointSetName": "Legacy Backup",
            "scope": "GROUP",
            **{name: {"value": value, "defaultValue": value} for name, value in amounts.items()},
        }
        body = json.dumps({"links": [], "results": [limit], "totalCount": 1}).encode()
        return self._respond(body, _LIMITS_TYPE)

    def _token(self) -> bytes:
        token = {"access_token": "benchmark", "token_type": "Bearer", "expires_in": 3600}
        return self._respond(json.dumps(token).encode(), "application/json")

    def _revoked(self) -> bytes:
        return self._respond(b"", "application/json")

    def _usage(self) -> bytes:
        self.requests -= 1
        usage = {"cpu_s": time.process_time(), "requests": self.requests}
        return self._respond(json.dumps(usage).encode(), "application/json")


def _missing() -> bytes:
    return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


# --- what answers are made of -------------------------------------------------------------------


def _head(length: int, media_type: str, *, limited: bool) -> bytes:
    """Give a response's head with a hole for the date; `limited` adds the bucket's headers."""
    lines = [
        "HTTP/1.1 200 OK",
        f"Content-Type: {media_type}",
        f"Content-Length: {length}",
        "Date: %(date)b",
    ]
    if limited:
        lines += [f"RateLimit-Limit: {CAPACITY}", f"RateLimit-Remaining: {CAPACITY - 1}"]
    return "\r\n".join([*lines, "", ""]).encode()


def _response_template(body: bytes) -> bytes:
    """Put the head before a body with holes; what fills them is always of the same length."""
    length = len(body % _holes(b"0" * _ID_LENGTH))
    return _head(length, _CHECKPOINT_TYPE, limited=True) + body


def _holes(checkpoint_id: bytes) -> dict[bytes, bytes]:
    """What differs between the checkpoints of a cluster. The restore point is up to 63 s early."""
    started = int(checkpoint_id[:8], 16)
    lead = int(checkpoint_id[-2:], 16) % 64
    return {b"id": checkpoint_id, b"started": _time(started), b"timestamp": _time(started - lead)}


def _time(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)).encode()


def _body_template(place: str) -> bytes:
    """Give the body for any checkpoint of the cluster at `place`, a path, with holes."""
    *_, group_id, _, name = place.split("/")
    cluster_id = f"{group_id[:16]}{crc32(name.encode()):08x}"
    stem = f"atlas-{cluster_id[-6:]}"
    shards = [f"{stem}-shard-{number}" for number in range(2)]
    body = {
        "clusterId": cluster_id,
        "completed": "%(started)b",
        "groupId": group_id,
        "id": "%(id)b",
        "links": [_link("self", f"{place}/backupCheckpoints/%(id)b")],
        "parts": [
            *(
                {**_part(one, "REPLICA_SET", 1 + n), "shardName": one}
                for n, one in enumerate(shards)
            ),
            _part(f"{stem}-config-0", "CONFIG_SERVER_REPLICA_SET", 4),
        ],
        "restorable": True,
        "started": "%(started)b",
        "timestamp": "%(timestamp)b",
    }
    return json.dumps(body, separators=(",", ":")).encode()


def _part(replica_set_name: str, type_name: str, increment: int) -> dict[str, object]:
    return {
        "replicaSetName": replica_set_name,
        "tokenDiscovered": True,
        "tokenTimestamp": {"date": "%(started)b", "increment": increment},
        "typeName": type_name,
    }


def _link(rel: str, path: str) -> dict[str, str]:
    return {"href": f"https://cloud.mongodb.com{path}", "rel": rel}


def _page_links(place: bytes, number: int, has_next: bool) -> list[dict[str, str]]:
    path = f"{place.decode()}/backupCheckpoints?pageNum="
    links = [_link("self", f"{path}{number}")]
    return [*links, _link("next", f"{path}{number + 1}")] if has_next else links
