"""One detector for many coroutines and threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from mnemoscope_runtime.errors import InputError, MnemoscopeError

from ..calibration import CalibrationFile
from ..detector import Detector
from ..prompts.printable import counted
from ..screening.detection import Detection
from .batches import Batch, Batches, Limits
from .remembering import Memory
from .settling import screen_each

__all__ = ["AsyncDetector"]

Look = tuple[int, int | None]  # steps, noises
Result = TypeVar("Result")


class AsyncDetector:
    """Screens for many coroutines and threads at once, in threads of its own.

        from mnemoscope.serve import AsyncDetector

        async with AsyncDetector.load("bundle") as detector:
            detection = await detector.screen("a prompt")

    What arrives while a batch is measured is the next batch. A prompt that cannot be measured
    fails alone. No verdict depends on what else is in a batch: see `settling`. A cascade, which
    decides twice, takes one prompt at a time.
    """

    def __init__(
        self,
        detector: Detector,
        limits: Limits | None = None,
        *,
        cache: int = 0,
        observe: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        """Take a detector over: `close` closes it.

        Args:
            detector: What measures.
            limits: How requests are gathered.
            cache: How many detections are kept for prompts that come again, letter by letter; a
                new bundle or calibration forgets them.
            observe: Told of every batch, in the thread that measured it: it has to be quick.

        Raises:
            InputError: `cache` cannot be used.
        """
        self.detector = detector
        self._memory = Memory(cache)
        self._looks: set[Look] = set()
        self._batches: Batches[Look, str, Detection] = Batches(
            self._work, limits or Limits(), observe
        )

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        limits: Limits | None = None,
        *,
        cache: int = 0,
        observe: Callable[[Batch], None] = lambda _: None,
        **options: Any,
    ) -> AsyncDetector:
        """Open a bundle: the embedded one by default. It takes a while, and the loop waits.

        Args:
            bundle: As in `Detector.load`.
            limits: As in `AsyncDetector`.
            cache: Likewise.
            observe: Likewise.
            options: What else `Detector.load` takes, and raises.
        """
        return cls(Detector.load(bundle, **options), limits, cache=cache, observe=observe)

    @property
    def waiting(self) -> int:
        """How many prompts stand in the queue."""
        return self._batches.waiting

    @property
    def alive(self) -> bool:
        """Whether the engine's threads run: they do until `close`, if nothing is amiss."""
        return self._batches.alive

    async def screen(
        self,
        prompt: str,
        *,
        steps: int = 1,
        noises: int | None = None,
        timeout: float | None = None,
    ) -> Detection:
        """Screen a prompt. Who is cancelled, or waits no longer, is not measured.

        Args:
            prompt: The prompt.
            steps: As in `Detector.screen`.
            noises: Likewise.
            timeout: Seconds after which nobody waits any more.

        Raises:
            InputError, NumericsError, CalibrationError: as `Detector.screen`.
            Overloaded: too many prompts are waiting, or this one would wait too long.
            ServiceClosed: nothing is taken on any more.
            TimeoutError: the time is over.
        """
        found = asyncio.wrap_future(self.submit(prompt, steps=steps, noises=noises))
        try:
            async with asyncio.timeout(timeout):
                return await found
        except TimeoutError:
            raise TimeoutError(
                f"There was no answer within {timeout} s; {counted(self.waiting, 'prompt')} "
                "waited then. Nothing is known of this one: ask again, or wait longer."
            ) from None

    def submit(
        self, prompt: str, *, steps: int = 1, noises: int | None = None
    ) -> Future[Detection]:
        """The same for threads: a future, whose `cancel` says that nobody waits any more.

        Raises:
            InputError: the prompt, steps or noises cannot be used.
            CalibrationError: the setting has none, and verdicts are wanted.
            Overloaded: too many prompts are waiting, or this one would wait too long.
            ServiceClosed: nothing is taken on any more.
            BackendError: this process is a fork of the one that opened the bundle.
        """
        look = self._look(steps, noises)
        return self._known(look, prompt) or self._batches.submit(look, [prompt])[0]

    def submit_all(
        self, prompts: Sequence[str], *, steps: int = 1, noises: int | None = None
    ) -> list[Future[Detection]]:
        """The same of several, which are queued all or none; what cannot be used fails alone.

        Raises:
            InputError: steps or noises cannot be used.
            CalibrationError, Overloaded, ServiceClosed, BackendError: as `submit`.
        """
        look = self._look(steps, noises)
        found = [self._at_once(look, each) for each in prompts]
        new = [prompt for prompt, known in zip(prompts, found, strict=True) if known is None]
        queued = iter(self._batches.submit(look, new))
        return [known or next(queued) for known in found]

    def _look(self, steps: int, noises: int | None) -> Look:
        """Raises what screening would whatever the prompt is."""
        detector, look = self.detector, (steps, noises)
        detector.screener.backend.process.check()  # in a fork there are no engine's threads
        detector.calibrated(steps=steps, noises=noises)
        self._looks.add(look)
        return look

    def _at_once(self, look: Look, prompt: str) -> Future[Detection] | None:
        """What needs no engine: the error of a prompt that cannot be used, or what is known."""
        try:
            return self._known(look, prompt)
        except InputError as error:
            found: Future[Detection] = Future()
            found.set_exception(error)
            return found

    def _known(self, look: Look, prompt: str) -> Future[Detection] | None:
        """What is remembered of a prompt; raises if it cannot be used."""
        self.detector.screener.tokenizer.check([prompt])
        known = self._memory.recall((look, prompt))
        if known is None:
            return None
        found: Future[Detection] = Future()
        found.set_result(known)
        return found

    async def warm_up(self) -> None:
        """Measure a prompt alone and a full batch, so that no request pays for what comes first."""
        await self._call(lambda: self._warm(self.detector))

    async def probe(self) -> float:
        """Measure the bundle's probes while no batch is measured; see `Screener.probe`.

        Returns:
            The largest error against PyTorch, relative.
        """
        return await self._call(lambda: self.detector.screener.probe())

    async def swap(self, other: Detector) -> None:
        """Go on with another detector from the next batch on, and close this one. None is lost.

        Raises:
            InputError: it is no other detector.
            BackendError: it is closed, or does not measure.
            CalibrationError: it has no verdicts in a setting that was asked for so far. After any
                error this one goes on.
        """
        if not isinstance(other, Detector) or other is self.detector:
            raise InputError(
                f"Another open Detector is needed, not {type(other).__name__}. Give what "
                "`Detector.load` returns, for this service alone."
            )

        def change() -> None:
            self._require(other)
            self._warm(other)
            old, self.detector = self.detector, other
            self._memory.forget()
            old.close()

        await self._call(change)

    async def recalibrate(self, calibration: CalibrationFile) -> None:
        """Go on with another calibration from the next batch on.

        Raises:
            InputError: it is none.
            CalibrationError: it belongs to another bundle, or lacks a setting that was asked for
                so far. After any error the old one stays.
        """
        if not isinstance(calibration, CalibrationFile):
            raise InputError(
                f"A CalibrationFile is needed, not {type(calibration).__name__}. Read one: "
                "`CalibrationFile.read(path)`."
            )

        def change() -> None:
            old = self.detector.calibration
            self.detector.calibration = calibration
            try:
                self._require(self.detector)
            except MnemoscopeError:
                self.detector.calibration = old
                raise
            self._memory.forget()

        await self._call(change)

    async def drain(self, timeout: float | None = None) -> bool:
        """Take no prompts on any more, and wait until those that were taken on are answered.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether they are.
        """
        return await asyncio.to_thread(self._batches.drain, timeout)

    def close(self) -> None:
        """Refuse what still waits, and let go of the engines."""
        self._batches.close()
        self.detector.close()

    async def _call(self, function: Callable[[], Result]) -> Result:
        """Have an engine's thread do something while no batch is measured."""
        return await asyncio.wrap_future(self._batches.call(function))

    def _warm(self, detector: Detector) -> None:
        """Have the engines that the detector asks, and no others, do what requests will."""
        detector.screener.prepare(*detector.statistic.graphs(detector.screener))
        if not detector.statistic.draws:  # which takes so long that warmth is nothing
            for size in sorted({1, self._batches.limits.batch}):
                start = time.perf_counter()
                detector.measure(["a"] * size)
                self._batches.expect((time.perf_counter() - start) / size)

    def _require(self, detector: Detector) -> None:
        """Raises what screening would in a setting that was asked for so far."""
        for steps, noises in tuple(self._looks):
            detector.calibrated(steps=steps, noises=noises)

    def _work(self, look: Look, prompts: Sequence[str]) -> list[Detection | MnemoscopeError]:
        """A detection of each prompt, or why there is none."""
        found = screen_each(self.detector, prompts, *look)
        for each in found:
            if isinstance(each, Detection):
                self._memory.keep((look, each.prompt), each)
        return found

    async def __aenter__(self) -> Self:
        await self.warm_up()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)
