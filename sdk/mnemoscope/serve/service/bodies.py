"""Bodies of requests: bounded in bytes and in time, whatever they say of it; never compressed."""

from __future__ import annotations

import asyncio

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["BoundedBodies"]

_CLOSE = {"connection": "close"}  # what else was sent is not read
_COMPRESSED = "Compressed bodies are not read. Send the body as it is, without Content-Encoding."


class BoundedBodies:
    """Middleware: whoever reads a body that is too large or too slow raises a 413 or a 408.

    A compressed one is refused before anybody reads it.
    """

    def __init__(self, app: ASGIApp, most: int, timeout: float) -> None:
        """Bound bodies.

        Args:
            app: What reads them.
            most: Bytes.
            timeout: Seconds until the last of them has to be there.
        """
        self._app, self._most, self._timeout = app, most, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if any(each.strip().lower() != "identity" for each in headers.getlist("content-encoding")):
            await JSONResponse({"error": _COMPRESSED}, 415, _CLOSE)(scope, receive, send)
            return
        declared = headers.get("content-length", "0")
        until = asyncio.get_running_loop().time() + self._timeout
        read, whole = 0, False

        async def bounded() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()  # tells when the client leaves
            if not declared.isdigit() or int(declared) > self._most:
                raise self._too_large()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408,
                    f"The request was not there within {self._timeout:g} s. Send it faster.",
                    _CLOSE,
                ) from None
            read += len(message.get("body", b""))
            if read > self._most:
                raise self._too_large()
            whole = not message.get("more_body", False)
            return message

        await self._app(scope, bounded, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413,
            f"The body has more than {self._most:,} bytes. Send fewer prompts at a time.",
            _CLOSE,
        )
