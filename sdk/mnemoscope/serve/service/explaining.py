"""Which words a score comes from, over HTTP: /v1/explain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field

from mnemoscope_runtime.errors import MnemoscopeError, NotAllowed

from ... import embedded
from ...explain import Explainer, Explanation, Kind, read_lexicon
from ..async_detector import AsyncDetector
from ..batches import Batches, Limits
from .asking import Service
from .json_routes import JsonRoute
from .leaving import while_there
from .options import ServiceOptions
from .screening import MODEL_FIELD, chosen

__all__ = ["explain_router"]

Queue = Batches[str, tuple[AsyncDetector, str], Explanation]  # by the names of models

_WAITING = 8  # an explanation takes as many passes as a prompt has words
_EXAMPLES = {
    "one": {
        "summary": "One prompt",
        "value": {"prompt": "google icon of tokyo tower, on rings, in zagreb 2020"},
    }
}


class Asked(BaseModel):
    """A prompt to explain."""

    model_config = ConfigDict(extra="forbid")

    prompt: str
    model: str | None = MODEL_FIELD


class Weighed(BaseModel):
    """A word."""

    word: str
    span: tuple[int, int] = Field(description="Its characters in the prompt, from and to.")
    score: float = Field(description="How far the prompt's score drops without it.")
    kind: Kind


class Explained(BaseModel):
    """Where a prompt's score comes from; as `mnemoscope explain --format json`, without edits."""

    model: str
    memorized: bool | None
    score: float
    p_value: float | None
    threshold: float | None
    words: list[Weighed] = Field(description="In the order of the prompt.")
    unread: str = Field(description="The end of a prompt that is longer than the model reads.")
    method: str
    detector: str
    steps: int
    noises: int
    backend: str
    bundle: str


def explain_router(service: Service) -> APIRouter:
    """The route /v1/explain: one explanation at a time, beside the engine's thread."""
    router = APIRouter(tags=["Plain JSON"], route_class=JsonRoute)
    options = service.options
    queue = _queue(options) if options.show_scores else None

    @router.post("/v1/explain")
    async def explain(
        request: Request, asked: Annotated[Asked, Body(openapi_examples=_EXAMPLES)]
    ) -> Explained:
        """Weigh a prompt's words by leaving each out. Only where scores are shown."""
        if queue is None:
            raise NotAllowed(
                "An explanation is made of scores, which this service does not show. Whoever runs "
                "it allows it with --show-scores."
            )
        name = chosen(service, asked.model)
        [waiting] = queue.submit(name, [(service.models.get(name), asked.prompt)])
        try:
            found = await while_there(
                request, asyncio.wait_for(asyncio.wrap_future(waiting), options.timeout)
            )
        except TimeoutError:
            raise TimeoutError(
                f"There was no explanation within {options.timeout:g} s. Ask again, or for a "
                "shorter prompt."
            ) from None
        told = Explained.model_validate({**found.as_json(), "model": name})
        if options.refuse_truncated and told.unread and not told.memorized:
            told.memorized = None
        return told

    return router


def _queue(options: ServiceOptions) -> Queue:
    """Explanations are made one after the other, in a thread of their own."""
    lexicon = read_lexicon(embedded.LEXICON)
    own = {each.name for each in options.models if each.bundle is None}

    def work(
        name: str, asked: Sequence[tuple[AsyncDetector, str]]
    ) -> list[Explanation | MnemoscopeError]:
        [(served, prompt)] = asked
        detector = served.detector
        explainer = Explainer(detector, lexicon=lexicon if name in own else None)
        try:
            return [explainer.explain(prompt, steps=options.steps, noises=options.noises)]
        except MnemoscopeError as error:
            if served.detector is detector:
                return [error]
            return work(name, asked)  # another bundle took over meanwhile, and this one was closed

    return Batches(work, Limits(batch=1, queue=_WAITING))
