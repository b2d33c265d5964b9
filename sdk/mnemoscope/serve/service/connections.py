"""Connections that are closed: those that do not say what they want, and all before the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["LastAnswers", "impatient"]


class LastAnswers:
    """Middleware: while the service stops, each answer says that its connection is closed.

    Clients that keep connections, and proxies, then send their next request elsewhere, and not on
    one that is about to break.
    """

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        """Ask before each answer whether the service stops."""
        self._app, self._stopping = app, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._stopping():
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive, closing)


def impatient(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, with so many seconds for the headers of a request.

    uvicorn itself waits for the first ones for ever, and for others from their first byte on.
    """

    class Impatient(H11Protocol):
        _ending: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.trailing_data[0]:  # of a request that came with the last one
                self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._rest()

        def _watch(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._rest()
            elif self._ending is None:
                self._ending = self.loop.call_later(seconds, self.transport.abort)

        def _rest(self) -> None:
            if self._ending is not None:
                self._ending.cancel()
                self._ending = None

    return Impatient
