"""Plain JSON for who speaks no protocol: /v1/screen."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mnemoscope_runtime.errors import InputError, MnemoscopeError

from ...screening.detection import Detection
from .asking import Found, Service
from .json_routes import JsonRoute
from .leaving import while_there
from .statuses import FAULT, log_fault, status_of

__all__ = ["MODEL_FIELD", "chosen", "screen_router", "why_none"]

MODEL_FIELD = Field(None, description="Which model is asked; needed where several are served.")
_TOWER = "google icon of tokyo tower, on rings, in zagreb 2020"


class Asked(BaseModel):
    """Prompts to screen."""

    model_config = ConfigDict(extra="forbid")

    prompt: str | None = Field(None, description="One prompt, or ...")
    prompts: list[str] | None = Field(None, description="... several, each judged by itself.")
    model: str | None = MODEL_FIELD

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.prompt is None) == (self.prompts is None):
            raise ValueError("give either prompt or prompts")
        return self

    @property
    def all(self) -> list[str]:
        """The prompts."""
        return [self.prompt] if self.prompt is not None else self.prompts or []


class Scores(BaseModel):
    """What was measured; only shown by a service with --show-scores."""

    score: float = Field(description="Larger for memorised prompts.")
    p_value: float | None = Field(description="Share of benign prompts that score as high.")
    threshold: float | None = Field(description="Above it a prompt counts as memorised.")


class Verdict(BaseModel):
    """What is known of one prompt."""

    memorized: bool | None = Field(
        description="Whether the model is about to reproduce a training image; null if nobody "
        "knows, which is no all-clear."
    )
    why: str | None = Field(description="Why there is no verdict; null if there is one.")
    truncated: bool = Field(
        description="Whether the prompt's end was not read: `memorized` is of what was, and false "
        "is no all-clear of the whole. A service with --refuse-truncated then says null."
    )
    notes: list[str] = Field(description="What else to know of it, a sentence each.")
    scores: Scores | None = Field(
        description="What was measured; null where the service hides it (no --show-scores), or "
        "there is nothing to show."
    )


class Screened(BaseModel):
    """Verdicts, one for each prompt, in order."""

    model: str
    results: list[Verdict]


_EXAMPLES = {
    "one": {"summary": "One prompt", "value": {"prompt": _TOWER}},
    "several": {"summary": "Several", "value": {"prompts": [_TOWER, "a cat", ""]}},
}
_ANSWER = {
    "model": "mnemoscope",
    "results": [
        {"memorized": True, "why": None, "truncated": False, "notes": [], "scores": None},
        {
            "memorized": None,
            "why": "It is empty: there is nothing to compare with the empty prompt.",
            "truncated": False,
            "notes": [],
            "scores": None,
        },
    ],
}


def screen_router(service: Service) -> APIRouter:
    """The route /v1/screen."""
    router = APIRouter(tags=["Plain JSON"], route_class=JsonRoute)

    @router.post(
        "/v1/screen",
        responses={200: {"content": {"application/json": {"example": _ANSWER}}}},
    )
    async def screen(
        request: Request, asked: Annotated[Asked, Body(openapi_examples=_EXAMPLES)]
    ) -> Screened:
        """Screen prompts. One that cannot be measured has no verdict, and the others have."""
        name = chosen(service, asked.model)
        found = await while_there(request, service.screen(name, asked.all, protocol="v1"))
        shown = service.options.show_scores
        return Screened(
            model=name, results=[_verdict(k, each, shown) for k, each in enumerate(found)]
        )

    return router


def chosen(service: Service, name: str | None) -> str:
    """The model of that name, or the only one that there is.

    Raises:
        InputError: there are several.
    """
    if name is not None:
        return name
    names = [each.source.name for each in service.models]
    if len(names) != 1:
        raise InputError(f"Several models are served. Name one: {', '.join(names)}.")
    return names[0]


def why_none(found: Found) -> str | None:
    """Why there is no verdict of a prompt; None if there is one."""
    if isinstance(found, MnemoscopeError):
        if status_of(found)[0] < 500:
            return str(found)
        log_fault(found)
        return FAULT
    if found.memorized is None:
        return " ".join(found.notes) or "It was measured without a calibration."
    return None


def _verdict(index: int, found: Found, shown: bool) -> Verdict:
    why = why_none(found)
    if not isinstance(found, Detection):
        if index:
            why = f"{why} (Counted from prompt {index} of the request.)"
        return Verdict(memorized=None, why=why, truncated=False, notes=[], scores=None)
    return Verdict(
        memorized=found.memorized,
        why=why,
        truncated=found.truncated,
        notes=list(found.notes),
        scores=Scores(score=found.score, p_value=found.p_value, threshold=found.threshold)
        if shown
        else None,
    )
