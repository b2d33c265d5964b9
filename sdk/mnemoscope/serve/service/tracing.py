"""Spans of requests, and of what their prompts waited for, by OpenTelemetry's API.

Where no SDK is set up there are none. None has a prompt or a score.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import context, propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..batches import Batch

__all__ = ["Traced", "continued", "observe_batch", "screening"]


def _tracer() -> trace.Tracer:
    return trace.get_tracer("mnemoscope.serve")


def _is_set_up() -> bool:
    """Whether spans go anywhere; an SDK may be set up at any time."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


class Traced:
    """Middleware: what a request causes belongs to the trace that its headers name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        with continued(headers):
            await self._app(scope, receive, send)


def continued(headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Go on with the trace that headers, or gRPC's metadata, name.

    Args:
        headers: By their names in lower case.
    """
    return _continued(headers) if _is_set_up() else nullcontext()


@contextmanager
def _continued(headers: Mapping[str, str]) -> Iterator[None]:
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def screening(protocol: str, model: str, prompts: int) -> AbstractContextManager[None]:
    """The span of a request.

    Args:
        protocol: How it came.
        model: What it asks; empty if there is no such model.
        prompts: How many prompts it has.
    """
    return _screening(protocol, model, prompts) if _is_set_up() else nullcontext()


@contextmanager
def _screening(protocol: str, model: str, prompts: int) -> Iterator[None]:
    told: dict[str, str | int] = {
        "mnemoscope.protocol": protocol,
        "mnemoscope.model": model,
        "mnemoscope.prompts": prompts,
    }
    with _tracer().start_as_current_span(
        "mnemoscope.screen",
        kind=SpanKind.SERVER,
        attributes=told,
        record_exception=False,  # what errors say may hold a prompt
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR))
            span.set_attribute("error.type", type(error).__name__)
            raise


def observe_batch(model: str, batch: Batch) -> None:
    """Tell each request of a batch how long it waited, and how long the engine took.

    Args:
        model: Whose batch it was.
        batch: As it was measured, just now.
    """
    if not _is_set_up():
        return
    end = time.time_ns()
    begin = end - round(1e9 * batch.seconds)
    told: dict[str, str | int] = {"mnemoscope.model": model, "mnemoscope.batch": len(batch.waited)}
    for waited, whose in zip(batch.waited, batch.contexts, strict=True):
        if not whose.run(trace.get_current_span).is_recording():
            continue
        parent = whose.run(context.get_current)
        queue = _tracer().start_span(
            "mnemoscope.queue", parent, attributes=told, start_time=begin - round(1e9 * waited)
        )
        queue.end(begin)
        engine = _tracer().start_span(
            "mnemoscope.engine", parent, attributes=told, start_time=begin
        )
        engine.end(end)
