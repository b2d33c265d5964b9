"""gRPC's own health protocol (grpc.health.v1), for Kubernetes' gRPC probes and load balancers.

`Watch`, without which clients can do, is not served: it would hold a stream open for each.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc

from ..models import Models
from .messages import SERVICE

__all__ = ["CHECK", "health_handler"]

_NAME = "grpc.health.v1.Health"
CHECK = f"/{_NAME}/Check"
_SERVING, _NOT_SERVING = 1, 2
_UNKNOWN = f"Nothing of that name has a health. Ask for none, readiness, liveness or {SERVICE}."


def health_handler(models: Models, messages: SimpleNamespace) -> grpc.GenericRpcHandler:
    """What answers the call of `grpc.health.v1.Health`.

    A probe may name what it asks for: nothing, `readiness` or the protocol's service is the whole,
    `liveness` whether a new process is needed. Models are not for who has no key.
    """

    async def check(request: Any, context: Any) -> Any:
        if request.service in ("", "readiness", SERVICE):
            good = models.ready
        elif request.service == "liveness":
            good = models.live
        else:
            return await context.abort(grpc.StatusCode.NOT_FOUND, _UNKNOWN)
        return messages.HealthCheckResponse(status=_SERVING if good else _NOT_SERVING)

    method = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=messages.HealthCheckRequest.FromString,
        response_serializer=messages.HealthCheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(_NAME, {"Check": method})
