"""Middleware that asks for a key before anything of a request is read."""

from __future__ import annotations

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .keys import REFUSAL, Keys

__all__ = ["OPEN", "NeedsKey"]

OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})  # probes of a cluster have no key


class NeedsKey:
    """Lets requests through that show a key, and those of `OPEN`."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if (
            scope["type"] != "http"
            or scope["path"] in OPEN
            or self._keys.allow(Headers(scope=scope).get("authorization"))
        ):
            await self._app(scope, receive, send)
        else:
            headers = {"www-authenticate": "Bearer", "connection": "close"}
            await JSONResponse({"error": REFUSAL}, 401, headers)(scope, receive, send)
