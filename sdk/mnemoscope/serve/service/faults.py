"""Errors as answers: one shape, the status that fits, and nothing in logs that a client sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mnemoscope_runtime.errors import MnemoscopeError, Overloaded

from .statuses import FAULT, log_fault, retry_after, status_of, told

__all__ = ["FAILURES", "Faults", "answer_error", "answer_errors"]


class Failure(BaseModel):
    """Why a request has no answer."""

    error: str = Field(description="What happened, why, and what to do next.")


FAILURES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": Failure,
        "description": "What was asked cannot be used (400), needs a key (401), is not allowed "
        "(403), is of no model that there is (404) or that can be loaded (409), is too large "
        "(413) or compressed (415), or comes when too many wait (429, with Retry-After).",
    },
    "5XX": {
        "model": Failure,
        "description": "The service failed (500), cannot answer now (503), or not in time (504).",
    },
}


def answer_errors(app: FastAPI) -> None:
    """Have errors answered as `{"error": "what happened, why, what to do next"}`."""
    for kind, answer in _ANSWERS.items():
        app.exception_handler(kind)(answer)


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """The same for what is no route of an app; raises what it is no answer to."""
    for kind, answer in _ANSWERS.items():
        if isinstance(error, kind):
            return await answer(request, error)
    raise error


class Faults:
    """Middleware: a defect is answered and logged, and is not the server's to print."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            log_fault(error)
            if scope["type"] == "http" and not started:
                await _error(500, FAULT)(scope, receive, send)


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


async def _answer_ours(_: Request, error: Any) -> JSONResponse:
    status = status_of(error)[0]
    if status == 500:
        log_fault(error)
    headers = {"retry-after": retry_after(error)} if isinstance(error, Overloaded) else None
    return _error(status, told(error), headers)


_NO_ROUTE = {
    404: "There is nothing at this path. POST prompts to /v1/screen or /v2/models/NAME/infer, GET "
    "/v2/health/ready or /metrics; /openapi.json describes every route.",
    405: "This path takes ALLOWED alone. /openapi.json describes every route.",
}
"""Instead of the bare phrases that the router raises; what is ours says 404 by `UnknownModel`."""


async def _answer_http(_: Request, error: Any) -> JSONResponse:
    allowed = (error.headers or {}).get("Allow", "")
    text = _NO_ROUTE.get(error.status_code, str(error.detail)).replace("ALLOWED", allowed)
    return _error(error.status_code, text, error.headers)


async def _answer_invalid(_: Request, error: Any) -> JSONResponse:
    wrong = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:4]]
    return _error(400, f"The request cannot be read: {'; '.join(wrong)}. See /openapi.json.")


_ANSWERS: dict[type[Exception], Callable[[Request, Any], Awaitable[JSONResponse]]] = {
    MnemoscopeError: _answer_ours,
    TimeoutError: _answer_ours,
    HTTPException: _answer_http,
    RequestValidationError: _answer_invalid,
}
