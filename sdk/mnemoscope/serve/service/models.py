"""Models by name: opened, opened anew and taken away while others are asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.errors import (
    CalibrationError,
    LoadFailed,
    MnemoscopeError,
    ModelNotReady,
    NotAllowed,
    UnknownModel,
)

from ...detector import Detector
from ...shipped import name_of
from ..async_detector import AsyncDetector
from ..batches import Batch
from ..probing import check_probes
from .options import ServiceOptions, Source, is_name
from .statistics import Statistics

__all__ = ["VERSION", "Listed", "Model", "Models", "open_detector"]

VERSION = "1"  # of every model: a bundle has an id, which answers name
State = Literal["LOADING", "READY", "UNAVAILABLE"]
Change = Literal["loaded", "failed", "unloaded"]
_log = logging.getLogger(__name__)


def open_detector(source: Source, options: ServiceOptions) -> Detector:
    """A detector that has verdicts in the setting that is served, and agrees with PyTorch.

    Raises:
        MnemoscopeError: as `Detector.load`, or it has none, or it does not.
    """
    detector = Detector.load(
        source.bundle,
        backend=options.backend,
        **asdict(options.backend_options),
        calibration=source.calibration,
        detector=options.detector,
        first=options.first,
        trust=options.trust,
    )
    try:
        missing = detector.missing(steps=options.steps, noises=options.noises)
        if missing is not None:
            raise CalibrationError(
                f"{source.name} cannot be served without verdicts. {missing} A file that is not "
                f"in the bundle is named so: --model {source.name}="
                f"{name_of(detector.screener.bundle.path)}:OWN.json."
            )
        known = detector.calibrated(steps=options.steps, noises=options.noises)
        error = check_probes(detector)
    except BaseException:
        detector.close()
        raise
    _log.info(
        "opened %s: bundle %s on %s, %.1e from PyTorch; calibrated on %d prompts for %g",
        source.name,
        detector.bundle_id,
        detector.screener.backend.name,
        error,
        0 if known is None else len(known.scores),
        float("nan") if known is None else known.fpr,
    )
    return detector


@dataclass
class Model:
    """One of them.

    Attributes:
        source: Where it comes from.
        state: What clients are told.
        why: Why it is not ready, for those who ask it; empty if it is.
        failed: Why it could not be opened, or opened anew, for the operator; empty if it could.
        wanted: Whether it should answer: it was named or loaded, and not unloaded since.
        detector: What answers; None if nothing does.
        statistics: What it has done so far.
    """

    source: Source
    state: State = "LOADING"
    why: str = ""
    failed: str = ""
    wanted: bool = False
    detector: AsyncDetector | None = None
    statistics: Statistics = field(default_factory=Statistics)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def alive(self) -> bool:
        """Whether its engine's thread, if there is one, still runs."""
        return self.detector is None or self.detector.alive


@dataclass(frozen=True)
class Listed:
    """What a list of models says of one.

    Attributes:
        name: What clients call it.
        state: Triton's words for it.
        why: Why it is not ready, or why opening it anew failed.
    """

    name: str
    state: State
    why: str


class Models:
    """All that a service has. Lives in one loop."""

    def __init__(
        self,
        options: ServiceOptions,
        *,
        observe: Callable[[str, Batch], None] = lambda _, __: None,
        changed: Callable[[str, Change], None] = lambda _, __: None,
        opens: Callable[[Source, ServiceOptions], Detector] = open_detector,
    ) -> None:
        """Nothing is opened yet.

        Args:
            options: What is served.
            observe: Told of every batch and whose it was, in engines' threads: it has to be quick.
            changed: Told of every model that was opened, could not be, or was taken away.
            opens: Makes detectors, outside the loop's thread.
        """
        self.options = options
        self._observe, self._changed, self._opens = observe, changed, opens
        self._models = {each.name: Model(each, wanted=True) for each in options.models}
        self._started = self._stopping = False
        self._changes: set[asyncio.Task[None]] = set()

    @property
    def live(self) -> bool:
        """Whether every engine's thread still runs; if not, nothing but a new process helps."""
        return all(each.alive for each in self._models.values())

    @property
    def ready(self) -> bool:
        """Whether all that should answer is open, warm and probed, and not about to be closed."""
        wanted = [each for each in self._models.values() if each.wanted]
        return (
            self._started
            and not self._stopping
            and self.live
            and bool(wanted)
            and all(each.detector is not None for each in wanted)
        )

    @property
    def stopping(self) -> bool:
        """Whether it is about to be closed."""
        return self._stopping

    @property
    def answered(self) -> int:
        """How many requests were answered so far."""
        return sum(each.statistics.totals().success.count for each in self._models.values())

    @property
    def waiting(self) -> dict[str, int]:
        """How many prompts stand in the queue of each model that answers."""
        return {
            name: model.detector.waiting for name, model in self._models.items() if model.detector
        }

    def __contains__(self, name: str) -> bool:
        return name in self._models

    def __iter__(self) -> Iterator[Model]:
        return iter(tuple(self._models.values()))

    async def start(self) -> None:
        """Open all that was named.

        Raises:
            MnemoscopeError: one cannot be opened.
        """
        for name in tuple(self._models):
            await self._load(self._models[name])
        self._started = True

    def find(self, name: str, version: str = "") -> Model:
        """A model, whether it is ready or not.

        Raises:
            UnknownModel: there is none of that name and version.
        """
        model = self._models.get(name)
        if model is None:
            raise UnknownModel(
                f"There is no model {name!r:.80}. Ask for one of: {', '.join(self._models)}."
            )
        if version not in ("", VERSION):
            raise UnknownModel(
                f"{name} has no version {version!r:.40}. Ask for {VERSION}, or for none."
            )
        return model

    def get(self, name: str, version: str = "") -> AsyncDetector:
        """What answers for a model.

        Raises:
            UnknownModel: as `find`.
            ModelNotReady: nothing does.
        """
        model = self.find(name, version)
        if model.detector is None:
            raise ModelNotReady(f"{name} is not ready: {model.why or 'it is being opened'}.")
        if not model.alive:
            raise ModelNotReady(f"{name} is not ready: its engine has ended. Restart the service.")
        return model.detector

    def listed(self) -> list[Listed]:
        """All models, and those that may be loaded."""
        found = [
            Listed(name, each.state, each.failed or each.why) for name, each in self._models.items()
        ]
        folder = self.options.models_dir
        if folder is not None:
            found += [
                Listed(each.parent.name, "UNAVAILABLE", "it was not loaded")
                for each in sorted(folder.glob(f"*/{MANIFEST}"))
                if is_name(each.parent.name) and each.parent.name not in self._models
            ]
        return found

    async def load(self, name: str) -> None:
        """Open a model, or open it anew, and go on with it once it is warm; none is lost.

        Raises:
            NotAllowed: clients may load nothing.
            UnknownModel: it was not named, and no bundle of that name is in the folder.
            LoadFailed: it cannot be opened, or has no verdicts. What was open goes on.
        """
        self._check_control()
        if name not in self._models:
            folder = self.options.models_dir
            if folder and is_name(name) and (folder / name / MANIFEST).is_file():
                self._models[name] = Model(Source(name, folder / name))
        model = self.find(name)
        try:
            await self._change(self._load(model))
        except MnemoscopeError as error:
            raise LoadFailed(f"{name} could not be loaded: {error}") from error

    async def unload(self, name: str) -> None:
        """Take a model away once all that it was asked is answered.

        Raises:
            NotAllowed: clients may unload nothing.
            UnknownModel: there is none.
        """
        self._check_control()
        model = self.find(name)
        model.wanted = False
        await self._change(self._take_away(model))

    def stop(self) -> None:
        """Be ready no more; what comes is answered all the same until `close`."""
        self._stopping = True

    async def close(self, timeout: float | None = None) -> None:
        """Answer what was taken on, and let go of all engines.

        Args:
            timeout: Seconds to wait for answers.
        """
        self.stop()
        await asyncio.gather(*self._changes, return_exceptions=True)
        for model in self._models.values():
            await self._unload(model, "the service is shutting down", timeout)

    def _check_control(self) -> None:
        if not self.options.control:
            raise NotAllowed(
                "Clients may not load or unload models here. Whoever runs the service allows it "
                "with --control."
            )

    async def _change(self, change: Coroutine[Any, Any, None]) -> None:
        """Let a change happen to its end, whether or not somebody still waits for it."""
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _load(self, model: Model) -> None:
        async with model.lock:
            again = model.detector is not None
            try:
                opened = await asyncio.to_thread(self._opens, model.source, self.options)
                if model.detector is not None and model.alive:
                    await _swap(model.detector, opened)
                else:
                    model.detector = await self._serve(model, opened)
            except Exception as error:
                self._note_failure(model, error)
                raise
            model.state, model.why, model.failed, model.wanted = "READY", "", "", True
            if again:
                _log.info("reloaded %s: the new one answers", model.source.name)
            self._changed(model.source.name, "loaded")

    def _note_failure(self, model: Model, error: Exception) -> None:
        """Say in the index and in the log why what is open, if anything is, goes on."""
        name, going_on = model.source.name, model.detector is not None and model.alive
        ours = isinstance(error, MnemoscopeError)
        why = str(error) if ours else f"{type(error).__name__}, see the log"
        if going_on:
            model.failed = f"reloading failed: {why}"
        else:
            model.failed, model.state = why, "UNAVAILABLE"
            model.why = "it could not be loaded, and /v2/repository/index says why"
        if self._started:  # or the process ends with it
            rest = ", and what was open goes on" if going_on else ""
            _log.error("loading %s failed%s: %s", name, rest, why)
        self._changed(name, "failed")

    async def _serve(self, model: Model, opened: Detector) -> AsyncDetector:
        def observe(batch: Batch) -> None:
            model.statistics.batch(batch)
            self._observe(model.source.name, batch)

        options = self.options
        served = AsyncDetector(opened, options.limits, cache=options.cache, observe=observe)
        try:
            await served.warm_up()
        except BaseException:
            await asyncio.to_thread(served.close)
            raise
        return served

    async def _take_away(self, model: Model) -> None:
        await self._unload(model, "it was unloaded")
        _log.info("unloaded %s", model.source.name)
        self._changed(model.source.name, "unloaded")

    async def _unload(self, model: Model, why: str, timeout: float | None = None) -> None:
        async with model.lock:
            detector, model.detector = model.detector, None
            model.state, model.why, model.failed = "UNAVAILABLE", why, ""
            if detector is not None:
                if detector.alive:
                    await detector.drain(timeout)
                await asyncio.to_thread(detector.close)


async def _swap(served: AsyncDetector, opened: Detector) -> None:
    try:
        await served.swap(opened)
    except BaseException:
        await asyncio.to_thread(opened.close)
        raise
