"""`AsyncDetector` on the embedded bundle."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cli_support import calibration
from numpy.typing import NDArray

from mnemoscope import (
    BackendError,
    CalibrationError,
    CalibrationFile,
    Detection,
    Detector,
    First,
    InputError,
    NumericsError,
    Overloaded,
    ServiceClosed,
    embedded,
)
from mnemoscope.serve import AsyncDetector, Batch, Limits
from mnemoscope.serve.settling import near, screen_settled
from mnemoscope_runtime import ClipTokenizer, Screener
from mnemoscope_runtime.backends import Arrays
from mnemoscope_runtime.testing import FakeBackend

MEMORISED = "google icon of tokyo tower, on rings, in zagreb 2020"
PROMPTS = ["a cat", MEMORISED, "a dog in a red hat", "", "word " * 100]


def load(**options: Any) -> Detector:
    return Detector.load(embedded.BUNDLE, threads=1, **options)


def run(
    work: Callable[[AsyncDetector], Coroutine[Any, Any, Any]],
    detector: Detector | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Any:
    async def main() -> Any:
        async with AsyncDetector(detector or load(), limits, **options) as found:
            return await work(found)

    return asyncio.run(main())


def timeless(detections: Sequence[Detection]) -> list[Detection]:
    return [replace(each, seconds=0) for each in detections]


def test_it_says_what_the_detector_says() -> None:
    async def work(detector: AsyncDetector) -> list[Detection]:
        return [await detector.screen(each, noises=1) for each in PROMPTS]

    with load() as plain:
        expected = [plain.screen([each], noises=1)[0] for each in PROMPTS]
    assert timeless(run(work)) == timeless(expected)  # the same bits: each was alone


def test_several_at_once_are_each_answered_or_refused() -> None:
    async def work(detector: AsyncDetector) -> list[Any]:
        await detector.screen("a cat", noises=1)  # is remembered
        found = detector.submit_all(["a cat", "x" * 100_001, MEMORISED], noises=1)
        assert found[0].done()
        return [each.exception(10) or each.result().memorized for each in found]

    first, second, third = run(work, cache=1)
    assert (first, third) == (False, True)
    assert isinstance(second, InputError)


def test_a_prompt_is_checked_once_before_it_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[list[str]] = []
    check = ClipTokenizer.check

    def noting(self: ClipTokenizer, prompts: list[str]) -> None:
        if threading.current_thread() is threading.main_thread():
            checked.append(prompts)
        check(self, prompts)

    async def work(detector: AsyncDetector) -> None:
        monkeypatch.setattr(ClipTokenizer, "check", noting)
        await detector.screen("a cat", noises=1)
        with pytest.raises(InputError):
            detector.submit("x" * 100_001, noises=1)

    run(work)
    assert checked == [["a cat"], ["x" * 100_001]]


def test_what_comes_together_is_measured_together() -> None:
    batches: list[Batch] = []

    async def work(detector: AsyncDetector) -> list[Detection]:
        batches.clear()  # of warming up there are none
        found = await asyncio.gather(*(detector.screen(each, noises=4) for each in PROMPTS * 4))
        assert sum(len(each.waited) for each in batches) == 20
        assert len(batches) < 10
        return found

    found = run(work, limits=Limits(batch=4), observe=batches.append)
    with load() as plain:
        for one, other in zip(found, plain.screen(PROMPTS, noises=4) * 4, strict=True):
            assert (one.prompt, one.memorized) == (other.prompt, other.memorized)
            assert one.score == pytest.approx(other.score, rel=1e-4, abs=1e-4)


def test_lanes_say_what_one_does() -> None:
    async def work(detector: AsyncDetector) -> list[Detection]:
        return await asyncio.gather(*(detector.screen(each, noises=1) for each in PROMPTS * 4))

    found = run(work, limits=Limits(batch=4, lanes=2))
    with load() as plain:
        for one, other in zip(found, plain.screen(PROMPTS, noises=1) * 4, strict=True):
            assert (one.prompt, one.memorized) == (other.prompt, other.memorized)
            assert one.score == pytest.approx(other.score, rel=1e-4, abs=1e-4)


def test_warming_up_tells_how_long_a_prompt_takes() -> None:
    async def work(detector: AsyncDetector) -> None:
        detector.submit_all(["a cat"] * 64, noises=1)
        with pytest.raises(Overloaded):
            detector.submit("a cat", noises=1)

    run(work, limits=Limits(patience=0.001))


def test_only_what_is_asked_is_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*_: object, **__: object) -> None:
        raise AssertionError("the detector looks at taps")

    monkeypatch.setattr(Screener, "first_step", other)

    async def work(detector: AsyncDetector) -> str:
        return (await detector.screen("a cat", noises=1)).detector

    assert run(work, load(detector="taps")) == "taps"


def test_threads_may_ask_too() -> None:
    async def work(detector: AsyncDetector) -> list[bool | None]:
        def ask() -> bool | None:
            return detector.submit(MEMORISED, noises=1).result(60).memorized

        return await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(8)))

    assert run(work) == [True] * 8


def test_a_bad_prompt_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is seen to be bad before, and one that only the engine finds out about."""
    first_step = Screener.first_step

    def spoilt(self: Screener, prompts: Any, **named: Any) -> Any:
        found = first_step(self, prompts, **named)
        nothing = self.tokenizer(["a dog in a red hat"])
        bad = np.array([(row == nothing).all() for row in getattr(prompts, "ids", [[0]])])
        if bad.any():
            raise NumericsError(f"prompt {bad.argmax()} is NaN")
        return found

    monkeypatch.setattr(Screener, "first_step", spoilt)

    async def work(detector: AsyncDetector) -> list[object]:
        asked = [detector.screen(each, noises=1) for each in [*PROMPTS, "x" * 100_001, None]]
        return await asyncio.gather(*asked, return_exceptions=True)

    *found, long, none = run(work)
    assert isinstance(found.pop(2), NumericsError)
    assert [each.memorized for each in found] == [False, True, None, False]
    assert isinstance(long, InputError)
    assert isinstance(none, InputError)


class Rounding(FakeBackend):
    """Whose magnitude, 1 alone, is off by a part for every prompt beside it."""

    name = "rounding"

    def __init__(self, off: float) -> None:
        super().__init__(lambda _: 1.0)
        self._off = off

    def _run(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        [found] = super()._run(inputs, outputs)
        return [(found * (1 + self._off * (len(found) - 1))).astype(np.float32)]


@pytest.mark.parametrize(("off", "threshold"), [(1e-5, 1.0), (-1e-5, 0.99999)])
def test_no_verdict_depends_on_the_batch(off: float, threshold: float) -> None:
    """Alone its score lies on one side of the threshold, among others on the other."""
    with Detector.load(backend=Rounding(off), uncalibrated="score") as detector:
        setting = detector.setting(noises=1)
        known = calibration(setting, threshold)
        detector.calibration = CalibrationFile((known,))
        [alone] = detector.screen(["a cat"], noises=1)
        together = detector.screen(["a cat"] * 5, noises=1)
        assert {each.memorized for each in together} == {not alone.memorized}
        found = screen_settled(detector, ["a cat"] * 5, 1, 1)
    assert timeless(found) == timeless([alone]) * 5


def test_what_rounding_cannot_move_is_not_measured_again() -> None:
    backend = Rounding(1e-5)
    with Detector.load(backend=backend, uncalibrated="score") as detector:
        known = calibration(detector.setting(noises=1), 0.9)
        detector.calibration = CalibrationFile((known,))
        screen_settled(detector, PROMPTS, 1, 1)
        assert backend.calls == 1
        budget = detector.screener.bundle.manifest.budget
    assert near(0.9 * (1 - 0.99 * budget), known, budget)
    assert near(0.9 * (1 + 0.99 * budget), known, budget)
    assert not near(0.9 * (1 - 1.01 * budget), known, budget)


def test_a_cascade_takes_one_at_a_time() -> None:
    asked: list[int] = []

    class Cascade:
        first = First("magnitude")

        def screen(self, prompts: Sequence[str], **_: object) -> list[str]:
            asked.append(len(prompts))
            return list(prompts)

    assert screen_settled(Cascade(), PROMPTS, 1, None) == PROMPTS  # type: ignore[arg-type,comparison-overlap]
    assert asked == [1] * len(PROMPTS)


def test_what_is_asked_again_is_not_measured_again() -> None:
    batches: list[Batch] = []

    async def work(detector: AsyncDetector) -> None:
        first = await detector.screen("a cat", noises=1)
        assert await detector.screen("a cat", noises=1) is first
        assert await detector.screen("a cat", noises=4) is not first
        assert await detector.screen("A cat", noises=1) is not first
        assert len(batches) == 3
        await detector.recalibrate(detector.detector.calibration)
        assert await detector.screen("a cat", noises=1) is not first

    run(work, cache=3, observe=batches.append)
    with pytest.raises(InputError, match="cache is -1"):
        AsyncDetector(load(), cache=-1)


def test_time_is_over_and_nothing_is_measured() -> None:
    go, batches = threading.Event(), list[Batch]()

    async def work(detector: AsyncDetector) -> None:
        held = detector._batches.call(lambda: go.wait(10))
        with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s; 1 prompt"):
            await detector.screen("a cat", timeout=0.01)
        task = asyncio.create_task(detector.screen("a dog"))
        await asyncio.sleep(0.01)
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert detector.waiting == 2
        go.set()
        await asyncio.wrap_future(held)
        await detector.screen("a bird", noises=1)

    run(work, observe=batches.append)
    assert [len(each.waited) for each in batches] == [1]


def test_who_comes_too_late_or_too_often() -> None:
    go = threading.Event()

    async def work(detector: AsyncDetector) -> None:
        held = detector._batches.call(lambda: go.wait(10))
        waits = [detector.submit("a cat", noises=1) for _ in range(2)]
        with pytest.raises(Overloaded, match="2 prompts are waiting"):
            await detector.screen("a cat")
        go.set()
        await asyncio.wrap_future(held)
        assert await detector.drain(60)
        assert [each.result(0).memorized for each in waits] == [False] * 2
        with pytest.raises(ServiceClosed):
            await detector.screen("a cat")

    run(work, limits=Limits(queue=2))


def test_another_detector_in_the_middle_of_traffic() -> None:
    """None is lost; each detection is wholly of the one or of the other."""

    async def work(detector: AsyncDetector) -> None:
        old, new = detector.detector, load(detector="taps")
        before = [asyncio.create_task(detector.screen(each, noises=1)) for each in PROMPTS * 3]
        await asyncio.sleep(0)
        await detector.swap(new)
        found = await asyncio.gather(*before, detector.screen("a cat", noises=1))
        assert detector.detector is new
        assert found[-1].detector == "taps"
        assert {each.detector for each in found} <= {"magnitude", "taps"}
        with pytest.raises(BackendError, match="closed"):
            old.screen(["a cat"])

    run(work)


def test_what_cannot_take_over_does_not() -> None:
    async def work(detector: AsyncDetector) -> None:
        await detector.screen("a cat", noises=1)
        closed, mute = load(), load()
        closed.close()
        mute.calibration = CalibrationFile(())
        own = detector.detector
        for other, error, words in (
            ("nope", InputError, "not str"),
            (None, InputError, "not NoneType"),
            (own, InputError, "Another open Detector"),
            (closed, BackendError, "is closed"),
            (mute, CalibrationError, "There is no calibration of"),
        ):
            with pytest.raises(error, match=words):
                await detector.swap(other)  # type: ignore[arg-type]
        for given, error, words in (
            ("m.json", InputError, "not str"),
            (None, InputError, "not NoneType"),
            (CalibrationFile(()), CalibrationError, "There is no calibration of"),
        ):
            with pytest.raises(error, match=words):
                await detector.recalibrate(given)  # type: ignore[arg-type]
        assert detector.detector is own
        assert (await detector.screen("a dog", noises=1)).memorized is False
        mute.close()

    run(work)


def test_a_setting_without_a_calibration_is_refused_at_once() -> None:
    async def work(detector: AsyncDetector) -> None:
        with pytest.raises(CalibrationError, match="There is no calibration of"):
            detector.submit("a cat", steps=7)
        with pytest.raises(InputError, match="noises"):
            detector.submit("a cat", noises=99)

    run(work)


def test_probing() -> None:
    async def work(detector: AsyncDetector) -> float:
        return await detector.probe()

    assert run(work) < 1e-4


def test_loading() -> None:
    async def main() -> None:
        async with AsyncDetector.load(limits=Limits(batch=1), threads=1) as detector:
            assert (await detector.screen(MEMORISED, noises=1)).memorized

    asyncio.run(main())
