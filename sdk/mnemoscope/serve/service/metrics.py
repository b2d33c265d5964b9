"""What a service did, for Prometheus. No label and no number tells a prompt or its score."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mnemoscope_runtime import __version__
from mnemoscope_runtime.errors import MnemoscopeError

from ..batches import Batch
from .asking import Request
from .drift import Traffic
from .models import Change, Models

__all__ = ["CountAnswers", "Counts", "State", "metrics_router"]

_SECONDS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
_REFUSED = frozenset(
    {
        "CalibrationError",
        "InputError",
        "ModelNotReady",
        "NotAllowed",
        "NoVerdict",
        "Overloaded",
        "ServiceClosed",
        "TimeoutError",
        "UnknownModel",
    }
)


class Counts:
    """Counts requests as they end, and batches as they are measured."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register what is counted."""

        def count(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"mnemoscope_{name}", what, labels, registry=registry)

        def times(name: str, what: str, *labels: str) -> Histogram:
            return Histogram(
                f"mnemoscope_{name}_seconds", what, labels, buckets=_SECONDS, registry=registry
            )

        self._requests = count(
            "requests",
            "Requests by how they ended: answered, refused (what was asked, or when, was in the "
            "way), failed (the service was), abandoned (nobody waited for it).",
            "protocol",
            "model",
            "outcome",
        )
        self._errors = count("errors", "Why there were no verdicts.", "model", "type")
        self._screened = count("prompts_screened", "Prompts that were measured.", "model")
        self._flagged = count("prompts_flagged", "Prompts that are memorised.", "model")
        self._refused = count("prompts_refused", "Prompts without a verdict.", "model")
        self._loads = count(
            "loads",
            "Models opened (loaded, failed), and taken away (unloaded).",
            "model",
            "outcome",
        )
        self._keys = count(
            "keys",
            "Requests that need a key, by whose they showed: the name that is before it in the "
            "file; empty where none is, and where it was refused.",
            "protocol",
            "client",
            "outcome",
        )
        self._whole = times(
            "request", "From when a request was read to its answer.", "protocol", "model"
        )
        self._queue = times("queue", "How long each prompt waited for the engine.", "model")
        self._engine = times(
            "engine", "How long a batch took, tokenising and settling included.", "model"
        )

    def request(self, request: Request) -> None:
        """Count one that ended."""
        model, protocol = request.model, request.protocol
        self._requests.labels(protocol, model, outcome(request.errors)).inc()
        self._whole.labels(protocol, model).observe(request.seconds)
        for each in request.errors:
            self._errors.labels(model, each).inc()
        judged, unjudged = len(request.scores), request.errors.count("NoVerdict")
        self._screened.labels(model).inc(judged + unjudged)
        self._flagged.labels(model).inc(request.flagged)
        self._refused.labels(model).inc(request.prompts - judged)

    def key(self, protocol: str, client: str | None) -> None:
        """Count a key that was shown; None: there was none, or it is no key."""
        self._keys.labels(protocol, client or "", "refused" if client is None else "accepted").inc()

    def change(self, model: str, change: Change) -> None:
        """Count a model that was opened, could not be, or was taken away."""
        self._loads.labels(model, "failed").inc(0)  # or the first to fail would be no increase
        self._loads.labels(model, change).inc()

    def batch(self, model: str, batch: Batch) -> None:
        """Count one that was measured."""
        queue = self._queue.labels(model)
        for each in batch.waited:
            queue.observe(each)
        self._engine.labels(model).observe(batch.seconds)


class CountAnswers:
    """Middleware that counts answers over HTTP, also of what never came to be screened."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        """Register what is counted."""
        self._app = app
        self._answers = Counter(
            "mnemoscope_http_answers",
            "Answers over HTTP; the route is empty where there is none.",
            ("route", "code"),
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "")
                self._answers.labels(route, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counting)


class State(Collector):
    """Tells how things are whenever it is asked: models, their queues, and drift."""

    def __init__(self, models: Models) -> None:
        """Tell of models, once `registry.register(state)`."""
        self._models = models
        self._traffic = Traffic()

    def request(self, request: Request) -> None:
        """Take the scores of one that ended into the traffic."""
        if not request.scores:
            return
        try:
            detector = self._models.get(request.model).detector
            options = self._models.options
            calibration = detector.calibrated(steps=options.steps, noises=options.noises)
        except MnemoscopeError:  # it was taken away meanwhile
            return
        if calibration is not None:
            self._traffic.add(request.model, calibration, request.scores)

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        yield _gauge("build_info", "The version that runs.", {"version": __version__}, 1)
        yield from self._of_models()
        waiting = _family("queue_length", "Prompts that wait for the engine.", "model")
        for name, length in self._models.waiting.items():
            waiting.add_metric([name], length)
        yield waiting
        p_value = _family(
            "drift_p_value",
            "Of the test that recent prompts score no higher than calibrated ones (one-sided).",
            "model",
        )
        recent = _family("drift_prompts", "On how many recent prompts that test rests.", "model")
        for name, drift in self._traffic.tested().items():
            p_value.add_metric([name], drift.p_value)
            recent.add_metric([name], drift.recent)
        yield p_value
        yield recent

    def _of_models(self) -> Iterator[Metric]:
        ready = _family("model_ready", "Whether a model that should answer does.", "model")
        bundle = _family(
            "bundle_info",
            "What a model measures with.",
            *("model", "bundle", "backend", "detector", "steps", "noises"),
        )
        calibration = _family(
            "calibration_info",
            "What its threshold promises, on how many benign prompts.",
            *("model", "fpr", "delta", "prompts"),
        )
        options = self._models.options
        for model in self._models:
            name, served = model.source.name, model.detector
            if model.wanted:
                ready.add_metric([name], float(served is not None and model.alive))
            if served is None:
                continue
            setting = served.detector.setting(steps=options.steps, noises=options.noises)
            bundle.add_metric(
                [name, setting.bundle, setting.backend, setting.detector,
                 str(setting.steps), str(setting.noises)], 1,
            )  # fmt: skip
            known = served.detector.calibrated(steps=options.steps, noises=options.noises)
            if known is not None:
                told = (known.fpr, known.delta, len(known.scores))
                calibration.add_metric([name, *map(str, told)], 1)
        yield from (ready, bundle, calibration)


def outcome(errors: tuple[str, ...]) -> str:
    """How a request ended, by the names of its errors."""
    if not errors:
        return "answered"
    if "CancelledError" in errors:
        return "abandoned"
    return "refused" if _REFUSED.issuperset(errors) else "failed"


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """The route /metrics, also for memory and CPU time of the process."""
    ProcessCollector(registry=registry)
    router = APIRouter(tags=["Operation"])

    @router.get("/metrics", response_class=Response)
    def metrics() -> Response:  # in a thread: the test for drift takes a while
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _family(name: str, what: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"mnemoscope_{name}", what, labels=labels)


def _gauge(name: str, what: str, labels: dict[str, str], value: float) -> Metric:
    family = _family(name, what, *labels)
    family.add_metric(list(labels.values()), value)
    return family
