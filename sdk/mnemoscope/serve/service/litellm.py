"""LiteLLM's Generic Guardrail API: its proxy asks before it has a picture drawn.

LiteLLM appends /beta/litellm_basic_guardrail_api to the `api_base` that it is given. Which model
decides stands in that address, and nowhere in the request: parts of that are the client's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field

from ...screening.detection import Detection
from .asking import Found, Service
from .json_routes import JsonRoute
from .leaving import while_there
from .screening import chosen, why_none

__all__ = ["litellm_router"]

_PLACE = "/beta/litellm_basic_guardrail_api"
_MEMORIZED = (
    "This prompt makes the model reproduce a picture that it was trained on, so nothing was drawn. "
    "Ask for it in other words."
)
_PICTURE = "What begins with a picture cannot be screened, so nothing was drawn."
_FORM = (
    "The request is no JSON. As forms LiteLLM takes pictures to begin with, of which it tells "
    "guardrails nothing, and they cannot be screened, so nothing was drawn. Ask for a picture by a "
    "prompt alone, in JSON: /images/generations."
)
_BODY = Body(
    openapi_examples={
        "request": {
            "summary": "Before a picture is drawn",
            "value": {"texts": ["a cat"], "input_type": "request"},
        }
    }
)


class Asked(BaseModel):
    """What LiteLLM sends, as far as it is read."""

    model_config = ConfigDict(extra="ignore")

    texts: list[str] | None = None
    images: list[Any] | None = None
    request_headers: dict[str, Any] | None = None
    input_type: Literal["request", "response"] = "request"


class Answer(BaseModel):
    """What LiteLLM makes of it: BLOCKED is a 400 to its client, with the reason."""

    action: Literal["BLOCKED", "NONE"]
    blocked_reason: str | None = Field(description="What its client is told.")


def litellm_router(service: Service) -> APIRouter:
    """The routes of the guardrail."""
    router = APIRouter(tags=["LiteLLM"], route_class=JsonRoute)

    async def guard(
        request: Request, asked: Annotated[Asked, _BODY], model: str | None = None
    ) -> Answer:
        name = chosen(service, model)
        if asked.input_type == "response":
            return _blocked(
                "Prompts are screened before something is drawn, and answers are not. Whoever runs "
                "the proxy sets `mode: pre_call` for this guardrail."
            )
        if asked.images:
            return _blocked(_PICTURE)
        if not _is_json(asked.request_headers or {}):
            return _blocked(_FORM)
        if not asked.texts:
            return _blocked("There is no prompt to screen, so nothing was drawn.")
        found = await while_there(request, service.screen(name, asked.texts, protocol="litellm"))
        if any(isinstance(each, Detection) and each.memorized for each in found):
            return _blocked(_MEMORIZED)
        reasons = [why for each in found if (why := _unsure(each)) is not None]
        return _blocked(reasons[0]) if reasons else Answer(action="NONE", blocked_reason=None)

    async def only(request: Request, asked: Annotated[Asked, _BODY]) -> Answer:
        """Answer LiteLLM for the only model that is served."""
        return await guard(request, asked)

    async def named(request: Request, asked: Annotated[Asked, _BODY], model: str) -> Answer:
        """Answer LiteLLM for a model: `api_base: http://.../v1/guard/litellm/MODEL`."""
        return await guard(request, asked, model)

    for place in (_PLACE, "/v1/guard/litellm", f"/v1/guard/litellm{_PLACE}"):
        router.post(place)(only)
    router.post(f"/v1/guard/litellm/{{model}}{_PLACE}")(named)
    return router


def _is_json(headers: dict[str, Any]) -> bool:
    """Whether a request to the proxy was JSON, as all are that may be drawn from a text alone."""
    kinds = [str(each) for name, each in headers.items() if name.lower() == "content-type"]
    return all(each.split(";")[0].strip().lower() == "application/json" for each in kinds)


def _blocked(reason: str) -> Answer:
    return Answer(action="BLOCKED", blocked_reason=reason)


def _unsure(found: Found) -> str | None:
    """Why a prompt may not be drawn though it is not flagged; None if it may."""
    why = why_none(found)
    if why is None and isinstance(found, Detection) and found.truncated:
        why = found.notes[0]
    return None if why is None else f"The prompt was not screened, so nothing was drawn. {why}"
