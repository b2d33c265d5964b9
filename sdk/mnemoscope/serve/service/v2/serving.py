"""A server of gRPC for a service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from mnemoscope_runtime.errors import BackendError

from ..asking import Service
from ..keys import REFUSAL
from ..locks import Lock
from .grpc import v2_handler
from .health import CHECK, WATCH, health_handler
from .messages import SERVICE, make_messages

__all__ = ["start_grpc"]

_OPEN = frozenset({CHECK, WATCH, f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady"})
_ENVELOPE = 4096  # bytes of a message beside what its tensors have


async def start_grpc(
    service: Service, host: str, port: int, lock: Lock | None = None
) -> tuple[grpc.aio.Server, int]:
    """Start it.

    Args:
        service: What is asked.
        host: The address to listen at.
        port: 0 takes one that is free.
        lock: On all but the probes of health.

    Returns:
        The server, and its port.

    Raises:
        BackendError: the address cannot be had.
    """
    server = grpc.aio.server(
        interceptors=[] if lock is None else [_NeedsKey(lock)],
        options=[
            ("grpc.max_receive_message_length", service.options.body + _ENVELOPE),
            ("grpc.keepalive_time_ms", 60_000),  # or who is gone holds a connection for hours
            ("grpc.so_reuseport", 0),  # or a second service would silently share the port
        ],
    )
    messages = make_messages()
    handlers = [v2_handler(service, messages), health_handler(service.models, messages)]
    server.add_generic_rpc_handlers(handlers)
    try:
        found = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError:
        raise BackendError(
            f"{host} port {port} cannot be listened at. Choose another --host or --grpc-port; "
            "port 0 takes one that is free, and --no-grpc none."
        ) from None
    await server.start()
    return server, found


class _NeedsKey(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # untyped
    """Lets calls through that show a key."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._refusing = grpc.unary_unary_rpc_method_handler(_refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """What answers a call."""
        shown = dict(details.invocation_metadata).get("authorization")
        if details.method in _OPEN or self._lock.opens("grpc", shown):
            return await continuation(details)
        return self._refusing


async def _refuse(_: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)
