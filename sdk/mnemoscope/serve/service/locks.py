"""Who is let in: a key is asked for before anything of a request is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .keys import REFUSAL, Keys

__all__ = ["OPEN", "Lock", "NeedsKey"]

OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})  # probes of a cluster have no key
Way = Literal["http", "grpc"]


class Lock:
    """Opens to who shows a key."""

    def __init__(
        self, keys: Keys, observe: Callable[[Way, str | None], None] = lambda _, __: None
    ) -> None:
        """Lock a service.

        Args:
            keys: That open it.
            observe: Told of every request that needs one, and whose it showed; None: no key.
        """
        self._keys, self._observe = keys, observe

    def opens(self, way: Way, authorization: str | None) -> bool:
        """Whether the header Authorization, or gRPC's metadata of that name, shows a key."""
        client = self._keys.whose(authorization)
        self._observe(way, client)
        return client is not None


class NeedsKey:
    """Middleware: lets requests through that show a key, and those of `OPEN`."""

    def __init__(self, app: ASGIApp, lock: Lock) -> None:
        self._app, self._lock = app, lock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if (
            scope["type"] != "http"
            or scope["path"] in OPEN
            or self._lock.opens("http", Headers(scope=scope).get("authorization"))
        ):
            await self._app(scope, receive, send)
        else:
            headers = {"www-authenticate": "Bearer", "connection": "close"}
            await JSONResponse({"error": REFUSAL}, 401, headers)(scope, receive, send)
