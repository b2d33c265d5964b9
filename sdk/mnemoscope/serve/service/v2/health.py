"""gRPC's own health protocol (grpc.health.v1), for Kubernetes' gRPC probes and load balancers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc

from ..models import Models
from .messages import SERVICE

__all__ = ["CHECK", "WATCH", "health_handler"]

_NAME = "grpc.health.v1.Health"
CHECK, WATCH = f"/{_NAME}/Check", f"/{_NAME}/Watch"
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3
_UNKNOWN = f"Nothing of that name has a health. Ask for none, readiness, liveness or {SERVICE}."
_LOOK = 0.1  # seconds until a watcher is told of a change
_MOST = 256  # watchers at once: nobody needs a key for it
_TOO_MANY = f"{_MOST} clients watch already, the most that may. Ask with Check."


def health_handler(models: Models, messages: SimpleNamespace) -> grpc.GenericRpcHandler:
    """What answers the calls of `grpc.health.v1.Health`.

    A probe may name what it asks for: nothing, `readiness` or the protocol's service is the whole,
    `liveness` whether a new process is needed. Models are not for who has no key.
    """
    free = asyncio.Semaphore(_MOST)

    def status(service: str) -> int:
        if service in ("", "readiness", SERVICE):
            return _SERVING if models.ready else _NOT_SERVING
        if service == "liveness":
            return _SERVING if models.live else _NOT_SERVING
        return _SERVICE_UNKNOWN

    async def check(request: Any, context: Any) -> Any:
        found = status(request.service)
        if found == _SERVICE_UNKNOWN:
            return await context.abort(grpc.StatusCode.NOT_FOUND, _UNKNOWN)
        return messages.HealthCheckResponse(status=found)

    async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
        """Its status at once and after every change, until the service is about to end."""
        if free.locked():
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _TOO_MANY)
        async with free:
            told = None
            while True:
                ends, found = models.stopping, status(request.service)
                if found != told:
                    yield messages.HealthCheckResponse(status=found)
                    told = found
                if ends:  # or the server would wait for whoever watches
                    return
                await asyncio.sleep(_LOOK)

    coding = {
        "request_deserializer": messages.HealthCheckRequest.FromString,
        "response_serializer": messages.HealthCheckResponse.SerializeToString,
    }
    return grpc.method_handlers_generic_handler(
        _NAME,
        {
            "Check": grpc.unary_unary_rpc_method_handler(check, **coding),
            "Watch": grpc.unary_stream_rpc_method_handler(watch, **coding),
        },
    )
