"""Verdicts by the Open Inference Protocol, version 2, over HTTP, and the short way to them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..answer import columns, judged
from ..asking import Service
from ..faults import answer_error
from ..leaving import while_there
from ..models import VERSION
from .tensors import decode_request, encode_response

__all__ = ["PLACES", "Directly", "Infer", "make_infer"]

Infer = Callable[[Request, str, str], Awaitable[Response]]  # the request, a model and its version

PLACES = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")  # of a model
_PLACE = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_HEADER = "Inference-Header-Content-Length"


def make_infer(service: Service) -> Infer:
    """What answers requests for verdicts."""
    options = service.options

    async def infer(request: Request, name: str, version: str = "") -> Response:
        body = await request.body()
        asked = decode_request(body, request.headers.get(_HEADER), options.prompts)
        columns((), asked.outputs, show_scores=options.show_scores)  # or refuse before measuring
        found = judged(
            await while_there(
                request,
                service.screen(
                    name, asked.prompts, protocol="http", version=version, timeout=asked.timeout
                ),
            )
        )
        told = columns(found, asked.outputs, show_scores=options.show_scores)
        content, length = encode_response(asked, told, name, VERSION)
        if length is None:
            return Response(content, media_type="application/json")
        return Response(
            content, headers={_HEADER: str(length)}, media_type="application/octet-stream"
        )

    return infer


class Directly:
    """Middleware: requests for verdicts go past the routes, in which each spends as long as here.

    What answers is the same as that of the routes, which answer all else, and describe it.
    """

    def __init__(self, app: ASGIApp, infer: Infer) -> None:
        """Go past an app to what it would ask."""
        self._app, self._infer = app, infer
        self._routes = [SimpleNamespace(path=f"{place}/infer") for place in PLACES]  # for metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        asked = None
        if scope["type"] == "http" and scope["method"] == "POST" and not scope["query_string"]:
            asked = _PLACE.fullmatch(scope["path"])
        if asked is None:
            await self._app(scope, receive, send)
            return
        name, version = asked.groups("")
        scope["route"] = self._routes[bool(version)]
        request = Request(scope, receive)
        try:
            answer = await self._infer(request, name, version)
        except Exception as error:
            answer = await answer_error(request, error)
        await answer(scope, receive, send)
