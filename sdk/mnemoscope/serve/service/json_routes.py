"""Routes that take JSON, whatever its content type says."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from mnemoscope_runtime.errors import InputError

from .json_bodies import read_json

__all__ = ["JsonRoute"]

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRoute(APIRoute):
    """A route whose body is JSON, as curl sends it too, which calls it a form."""

    def get_route_handler(self) -> Handler:
        """As FastAPI's, of a request that reads so."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            headers = [each for each in request.scope["headers"] if each[0] != b"content-type"]
            headers.append((b"content-type", b"application/json"))
            return await handler(_Request({**request.scope, "headers": headers}, request.receive))

        return answer


class _Request(Request):
    async def json(self) -> dict[str, Any]:
        try:
            return read_json(await self.body())
        except InputError as error:  # FastAPI lets no other error through from here
            raise HTTPException(400, str(error)) from None
