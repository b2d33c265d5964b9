"""The Open Inference Protocol, version 2, over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from mnemoscope_runtime.errors import ModelNotReady

from ..answer import columns, judged
from ..asking import Service
from ..leaving import while_there
from ..models import VERSION
from . import described
from .parameters import decode_parameters, refuse_overrides
from .tensors import decode_request, encode_response

__all__ = ["v2_router"]

_HEADER = "Inference-Header-Content-Length"


def v2_router(service: Service) -> APIRouter:
    """The routes under /v2."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])
    models, options = service.models, service.options

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

    # the first in the list, which is searched from its beginning
    places = ("/models/{name}", "/models/{name}/versions/{version}")
    for place in places:
        router.post(f"{place}/infer", openapi_extra=described.INFER)(infer)

    @router.get("")
    async def server_metadata() -> dict[str, Any]:
        return described.server()

    @router.get("/health/live", response_class=Response)
    async def live() -> Response:
        return Response(status_code=200 if models.live else 503)

    @router.get("/health/ready", response_class=Response)
    async def ready() -> Response:
        return Response(status_code=200 if models.ready else 503)

    async def model_ready(name: str, version: str = "") -> Response:
        try:
            models.get(name, version)
        except ModelNotReady as error:
            return JSONResponse({"error": str(error)}, 503)
        return Response()

    async def model_metadata(name: str, version: str = "") -> dict[str, Any]:
        models.get(name, version)
        return described.metadata(name, options)

    async def model_config(name: str, version: str = "") -> dict[str, Any]:
        models.get(name, version)
        return described.config(name, options)

    async def model_statistics(name: str, version: str = "") -> dict[str, Any]:
        return {"model_stats": [described.statistics(models.find(name, version))]}

    @router.get("/models/stats")
    async def all_statistics() -> dict[str, Any]:
        return {"model_stats": [described.statistics(each) for each in models]}

    for place in places:
        router.get(place)(model_metadata)
        router.get(f"{place}/ready", response_class=Response)(model_ready)
        router.get(f"{place}/config")(model_config)
        router.get(f"{place}/stats")(model_statistics)

    @router.post("/repository/index")
    async def index() -> list[dict[str, str]]:
        return [
            {"name": each.name, "version": VERSION, "state": each.state, "reason": each.why}
            for each in models.listed()
        ]

    @router.post("/repository/models/{name}/load")
    async def load(name: str, request: Request) -> Response:
        body = await request.body()
        refuse_overrides(decode_parameters(body) if body else {})
        await models.load(name)
        return JSONResponse({})

    @router.post("/repository/models/{name}/unload")
    async def unload(name: str) -> Response:
        await models.unload(name)
        return JSONResponse({})

    return router
