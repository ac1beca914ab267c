"""Who may ask: service accounts, API keys, bearer tokens.

Sources: RFC 6749 §4.4 for the client credentials grant, RFC 7009 for revocation, RFC 7616 (and
RFC 2617, which Atlas's challenge still follows) for Digest. The limits of 100 live tokens and 50
creations a minute are those that Atlas documents for a service account.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.request import parse_http_list

if TYPE_CHECKING:
    from collections.abc import Callable

REALM = "MMS Public API"
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the simulator accepts, and how long. The defaults are plainly not anybody's.

    `expires_in` is a token's lifetime and `nonce_s` a nonce's, in seconds; `nonce_uses` is how
    often a nonce serves (None: any number). `max_live_tokens` and `max_creations` (a minute) bound
    a service account.
    """

    client_id: str = "mdb_sa_id_51e0a7ed51e0a7ed51e0a7ed"
    client_secret: str = field(default="mdb_sa_sk_simulated-not-a-secret", repr=False)
    public_key: str = "simulatd"
    private_key: str = field(default="00000000-5111-4000-8000-000000000000", repr=False)
    access_token: str = field(default="simulated-access-token", repr=False)
    expires_in: int = 3600
    max_live_tokens: int = 100
    max_creations: int = 50
    nonce_s: float = 300.0
    nonce_uses: int | None = None


def same(given: str, known: str) -> bool:
    """Compare without telling by the time taken how much was right."""
    return hmac.compare_digest(given.encode(), known.encode())


class Tokens:
    """The tokens of one service account. `clock` returns seconds and never goes back."""

    def __init__(self, credentials: Credentials, clock: Callable[[], float]) -> None:
        self._known = credentials
        self._clock = clock
        self._expiry: dict[str, float] = {}
        self._creations: deque[float] = deque()
        self.created = 0
        self.revoked = 0

    def knows_client(self, authorization: str) -> bool:
        """Check a Basic header against the client's id and secret."""
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(text.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        return same(given, f"{self._known.client_id}:{self._known.client_secret}")

    def too_fast(self) -> bool:
        """Count one creation and say whether it is one too many for this minute."""
        now = self._clock()
        while self._creations and self._creations[0] <= now - MINUTE_S:
            self._creations.popleft()
        if len(self._creations) >= self._known.max_creations:
            return True
        self._creations.append(now)
        return False

    def create(self) -> str | None:
        """Return a new token, or None when too many are alive."""
        if self.live >= self._known.max_live_tokens:
            return None
        token = f"simulated.{secrets.token_urlsafe(24)}"
        self._expiry[token] = self._clock() + self._known.expires_in
        self.created += 1
        return token

    def revoke(self, token: str) -> None:
        """End a token; one that is unknown is none the less ended (RFC 7009 §2.2)."""
        if self._expiry.pop(token, None) is not None:
            self.revoked += 1

    @property
    def live(self) -> int:
        """The number of tokens that are neither revoked nor expired."""
        now = self._clock()
        self._expiry = {token: end for token, end in self._expiry.items() if end > now}
        return len(self._expiry)

    def accepts(self, token: str) -> bool:
        """Say whether a bearer token is the fixed one or a living one."""
        if same(token, self._known.access_token):
            return True
        return self._expiry.get(token, 0.0) > self._clock()


@dataclass(slots=True)
class _Nonce:
    issued: float
    counts: set[int]


class Digest:
    """HTTP Digest with MD5 and qop auth, as Atlas challenges for API keys."""

    def __init__(self, credentials: Credentials, clock: Callable[[], float]) -> None:
        self._known = credentials
        self._clock = clock
        self._nonces: dict[str, _Nonce] = {}

    def challenge(self, *, stale: bool = False) -> str:
        """Return a WWW-Authenticate value with a new nonce."""
        nonce = secrets.token_urlsafe(24)
        self._forget_old()
        self._nonces[nonce] = _Nonce(self._clock(), set())
        return (
            f'Digest realm="{REALM}", domain="", nonce="{nonce}", algorithm=MD5, qop="auth", '
            f"stale={str(stale).lower()}"
        )

    def check(self, method: str, target: str, authorization: str) -> tuple[bool, bool]:
        """Return (accepted, stale) for one request.

        `target` is the request target as it was sent. Stale means that all was right but the
        nonce: the client may try again without asking anybody for a password.
        """
        fields = _digest_fields(authorization)
        if not self._well_formed(fields, target) or not self._computes(fields, method):
            return False, False
        nonce = self._nonces.get(fields["nonce"])
        if nonce is None or self._used_up(nonce):
            return False, True
        count = int(fields["nc"], 16)
        if count in nonce.counts:
            return False, False
        # Not "greater than the last": requests in flight together may overtake each other.
        nonce.counts.add(count)
        return True, False

    def _well_formed(self, fields: dict[str, str], target: str) -> bool:
        needed = ("username", "realm", "nonce", "uri", "response", "cnonce")
        return (
            all(fields.get(name) for name in needed)
            and fields.get("qop") == "auth"
            and fields.get("algorithm", "MD5").upper() == "MD5"
            and fields["realm"] == REALM
            and fields["uri"] == target
            and same(fields["username"], self._known.public_key)
            and _is_count(fields.get("nc", ""))
        )

    def _computes(self, fields: dict[str, str], method: str) -> bool:
        """Recompute the response: MD5(HA1:nonce:nc:cnonce:qop:HA2), RFC 7616 §3.4.1."""
        ha1 = _md5(f"{self._known.public_key}:{REALM}:{self._known.private_key}")
        ha2 = _md5(f"{method}:{fields['uri']}")
        between = ":".join(fields[name] for name in ("nonce", "nc", "cnonce", "qop"))
        return same(fields["response"].lower(), _md5(f"{ha1}:{between}:{ha2}"))

    def _used_up(self, nonce: _Nonce) -> bool:
        uses = self._known.nonce_uses
        aged = self._clock() - nonce.issued >= self._known.nonce_s
        return aged or (uses is not None and len(nonce.counts) >= uses)

    def _forget_old(self) -> None:
        for text in [text for text, nonce in self._nonces.items() if self._used_up(nonce)]:
            del self._nonces[text]


def _digest_fields(authorization: str) -> dict[str, str]:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "digest":
        return {}
    pairs = (item.partition("=") for item in parse_http_list(rest))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _is_count(text: str) -> bool:
    digits = "0123456789abcdef"
    return len(text) == len("00000001") and all(one in digits for one in text.lower())


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
