"""The entrance: who is let in, and the two OAuth endpoints that hand out and take back tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from pipeline.simulator.answers import Answer, problem, render
from pipeline.simulator.credentials import Credentials, Digest, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN_PATH = "/api/oauth/token"  # noqa: S105 (a path)
REVOKE_PATH = "/api/oauth/revoke"


class Entrance:
    """Checks credentials.

    After `revoke_after` API requests (None: never) nothing is accepted any more, as when somebody
    deletes the service account or the key while an audit runs.
    """

    def __init__(
        self, credentials: Credentials, clock: Callable[[], float], revoke_after: int | None
    ) -> None:
        self.tokens = Tokens(credentials, clock)
        self._known = credentials
        self._digest = Digest(credentials, clock)
        self._revoke_after = revoke_after
        self._admitted = 0

    def refusal(self, request: web.Request) -> Answer | None:
        """Return why a request is not let in, or None if it is."""
        if self._revoked:
            return self.unauthorized()
        authorization = request.headers.get("Authorization", "")
        if authorization.lower().startswith("bearer "):
            accepted, stale = self.tokens.accepts(authorization[7:].strip()), False
        else:
            accepted, stale = self._digest.check(request.method, request.raw_path, authorization)
        if not accepted:
            return self.unauthorized(stale=stale)
        self._admitted += 1
        return None

    def unauthorized(self, *, stale: bool = False) -> Answer:
        """Return the 401 of bad or absent credentials, with a challenge for API keys."""
        return problem(
            401,
            "UNEXPECTED_ERROR",
            "You are not authorized for this resource.",
            headers={"WWW-Authenticate": self._digest.challenge(stale=stale)},
        )

    async def give_token(self, request: web.Request) -> web.Response:
        """Answer POST /api/oauth/token."""
        # Atlas counts creations by caller before it looks at the secret.
        if self.tokens.too_fast():
            return render(request, _too_fast(self._known.max_creations))
        if self._stranger(request):
            return _oauth_error(401, "invalid_client", "Invalid credentials provided.")
        form = await request.post()
        if form.get("grant_type") != "client_credentials":
            return _oauth_error(400, "unsupported_grant_type", "Only client_credentials is known.")
        token = self.tokens.create()
        if token is None:
            return _oauth_error(403, "access_denied", "Access Token limit reached.")
        expires_in = self._known.expires_in
        return web.json_response(
            {"access_token": token, "token_type": "Bearer", "expires_in": expires_in}
        )

    async def take_token(self, request: web.Request) -> web.Response:
        """Answer POST /api/oauth/revoke: 200 and no body."""
        if self._stranger(request):
            return _oauth_error(401, "invalid_client", "Invalid credentials provided.")
        token = (await request.post()).get("token")
        if not isinstance(token, str):
            return _oauth_error(400, "invalid_request", "There is no token to revoke.")
        self.tokens.revoke(token)
        return web.Response()

    @property
    def _revoked(self) -> bool:
        return self._revoke_after is not None and self._admitted >= self._revoke_after

    def _stranger(self, request: web.Request) -> bool:
        known = self.tokens.knows_client(request.headers.get("Authorization", ""))
        return self._revoked or not known


def _oauth_error(status: int, code: str, description: str) -> web.Response:
    return web.json_response({"error": code, "error_description": description}, status=status)


def _too_fast(limit: int) -> Answer:
    detail = f"Resource {TOKEN_PATH} takes {limit} requests every minute."
    return problem(429, "RATE_LIMITED", detail, [TOKEN_PATH, limit, 1])
