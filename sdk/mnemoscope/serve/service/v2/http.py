"""The Open Inference Protocol, version 2, over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from mnemoscope_runtime.errors import ModelNotReady

from ..asking import Service
from ..models import VERSION
from . import described
from .infer import PLACES, Infer
from .parameters import decode_parameters, refuse_overrides

__all__ = ["v2_router"]


def v2_router(service: Service, infer: Infer) -> APIRouter:
    """The routes under /v2.

    Args:
        service: What is asked.
        infer: What answers requests for verdicts.
    """
    router = APIRouter(tags=["Open Inference Protocol v2"])
    models, options = service.models, service.options

    @router.get("/v2")
    async def server_metadata() -> dict[str, Any]:
        return described.server()

    @router.get("/v2/health/live", response_class=Response)
    async def live() -> Response:
        return Response(status_code=200 if models.live else 503)

    @router.get("/v2/health/ready", response_class=Response)
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

    @router.get("/v2/models/stats")
    async def all_statistics() -> dict[str, Any]:
        return {"model_stats": [described.statistics(each) for each in models]}

    for place in PLACES:
        router.post(f"{place}/infer", openapi_extra=described.INFER)(infer)
        router.get(place)(model_metadata)
        router.get(f"{place}/ready", response_class=Response)(model_ready)
        router.get(f"{place}/config")(model_config)
        router.get(f"{place}/stats")(model_statistics)

    @router.post("/v2/repository/index")
    async def index() -> list[dict[str, str]]:
        return [
            {"name": each.name, "version": VERSION, "state": each.state, "reason": each.why}
            for each in models.listed()
        ]

    @router.post("/v2/repository/models/{name}/load")
    async def load(name: str, request: Request) -> Response:
        body = await request.body()
        refuse_overrides(decode_parameters(body) if body else {})
        await models.load(name)
        return JSONResponse({})

    @router.post("/v2/repository/models/{name}/unload")
    async def unload(name: str) -> Response:
        await models.unload(name)
        return JSONResponse({})

    return router
