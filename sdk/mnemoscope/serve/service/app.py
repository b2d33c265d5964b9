"""The HTTP side of a service, as one app."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

from mnemoscope_runtime import __version__

from .asking import Service
from .bodies import BoundedBodies
from .connections import LastAnswers
from .faults import FAILURES, Faults, answer_errors
from .locks import Lock, NeedsKey
from .tracing import Traced
from .v2.http import v2_router
from .v2.infer import Directly, make_infer

__all__ = ["make_app"]

_ABOUT = (
    "Tells, before an image is drawn, whether a diffusion model is about to reproduce a training "
    "image. `memorized` is a verdict on what was read of a prompt: all of it, unless it is "
    "`truncated`. What has no verdict is an error, in /v1/screen null, and never false."
)


def make_app(
    service: Service, routers: Sequence[APIRouter] = (), lock: Lock | None = None
) -> FastAPI:
    """An app that answers for a service; its models are started and closed by who made them.

    Args:
        service: What is asked.
        routers: Others than that of the Open Inference Protocol.
        lock: On all but the probes of health.
    """
    options, infer = service.options, make_infer(service)
    app = FastAPI(
        title="Mnemoscope",
        version=__version__,
        description=_ABOUT,
        responses=FAILURES,
        docs_url=None,  # pages that load scripts from elsewhere, and have no keys
        redoc_url=None,
        middleware=[
            Middleware(LastAnswers, stopping=lambda: service.models.stopping),
            Middleware(Faults),
            Middleware(Traced),
            *([] if lock is None else [Middleware(NeedsKey, lock=lock)]),
            Middleware(BoundedBodies, most=options.body, timeout=options.timeout),
            Middleware(Directly, infer=infer),
        ],
        # FastAPI's own records hold bodies; see `tracing` and `metrics`
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    answer_errors(app)
    for router in (v2_router(service, infer), *routers):
        app.include_router(router)
    return app
