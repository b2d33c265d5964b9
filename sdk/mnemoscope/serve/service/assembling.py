"""A service with all that belongs to it: models, routes, metrics and traces."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from ..batches import Batch
from .app import make_app
from .asking import Service
from .explaining import explain_router
from .keys import Keys
from .litellm import litellm_router
from .locks import Lock
from .metrics import CountAnswers, Counts, State, metrics_router
from .models import Models
from .options import ServiceOptions
from .screening import screen_router
from .tracing import observe_batch

__all__ = ["Assembled", "assemble"]


@dataclass(frozen=True)
class Assembled:
    """What answers, once its models are started.

    Attributes:
        models: To be started, and closed.
        service: What every protocol asks.
        app: The HTTP side.
        lock: On both sides, if there is one.
    """

    models: Models
    service: Service
    app: FastAPI
    lock: Lock | None


def assemble(options: ServiceOptions, keys: Keys | None = None) -> Assembled:
    """Put a service together; nothing is opened yet.

    Args:
        options: What is served.
        keys: Of which clients need one.
    """
    registry = CollectorRegistry()
    counts = Counts(registry)

    def observe(model: str, batch: Batch) -> None:
        counts.batch(model, batch)
        observe_batch(model, batch)

    models = Models(options, observe=observe, changed=counts.change)
    state = State(models)
    registry.register(state)
    service = Service(models, (counts.request, state.request))
    routers = (
        screen_router(service),
        explain_router(service),
        litellm_router(service),
        metrics_router(registry),
    )
    lock = None if keys is None else Lock(keys, counts.key)
    app = make_app(service, routers, lock)
    app.add_middleware(CountAnswers, registry=registry)
    return Assembled(models, service, app, lock)
