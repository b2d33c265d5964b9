from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mnemoscope import (
    CalibrationError,
    CalibrationFile,
    Detector,
    First,
    InputError,
    NumericsError,
    calibrate,
)
from mnemoscope.detectors import find_statistic
from mnemoscope.screening.stages import Stage
from mnemoscope_runtime import Screener
from mnemoscope_runtime.backends import Arrays
from mnemoscope_runtime.testing import FakeBackend

PROMPTS = [f"a cat, number {i}" for i in range(100)]


def stage(screener: Screener, detector: str, steps: int = 1, noises: int | None = None) -> Stage:
    return Stage.of(screener, find_statistic(detector), steps, noises)


def test_what_a_prompt_costs(screener: Screener) -> None:
    flops = screener.bundle.manifest.flops
    text, screen, step = (flops[name] for name in ("text_encoder", "screen", "step"))
    assert stage(screener, "magnitude", noises=1).flops == screen
    assert stage(screener, "magnitude").flops == text + 3 * (screen - text)
    assert stage(screener, "magnitude", 5, 2).flops == text + 5 * 2 * step
    assert stage(screener, "sharpness", noises=1).flops == text + 2 * step
    passes = [("magnitude", 1, 3), ("magnitude", 5, 30), ("sharpness", 1, 12)]
    assert [stage(screener, d, s).passes for d, s, _ in passes] == [p for _, _, p in passes]


def test_what_the_bundle_lacks(screener: Screener) -> None:
    with pytest.raises(InputError, match="has 3 noises, 4 cannot be used"):
        stage(screener, "magnitude", noises=4)
    with pytest.raises(InputError, match="has 50 steps, 51 cannot be used"):
        stage(screener, "magnitude", 51)
    with pytest.raises(InputError, match="looks at the first step alone"):
        stage(screener, "sharpness", 2)
    with pytest.raises(InputError, match="has no taps"):
        stage(screener, "taps")
    with pytest.raises(
        InputError, match=r"no taps\. Export the PyTorch model again .* --taps mid_block"
    ):
        stage(screener, "tap:mid_block.resnets.0")


def test_scores_are_those_after_the_last_step(bundle_dir: Path) -> None:
    with Screener.open(bundle_dir, threads=1) as screener:
        found = stage(screener, "magnitude", 3, 2)
        scores = found.scores(["a cat", "rain"], None)
        each = screener.trajectory(["a cat", "rain"], steps=3, noises=2)
    assert scores.shape == (2, 2)
    assert scores == pytest.approx(each.mean(2), rel=1e-4)


# a cascade


class Counting(FakeBackend):
    """Counts UNet samples; another magnitude where it is asked for all three noises."""

    def __init__(self, wide: float | None = None) -> None:
        super().__init__()
        self.samples, self.wide = 0, wide

    def _run(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        [found] = super()._run(inputs, outputs)
        self.samples += found.size
        return [found if self.wide is None or found.shape[1] < 3 else found * self.wide]


@pytest.fixture
def cascade(bundle_dir: Path) -> Iterator[Detector]:
    """One noise clears four fifths, three decide on the others."""
    first = First(clear=0.8)
    with Detector.load(bundle_dir, backend=Counting(2.0), first=first) as detector:
        benign = [f"a dog, number {i}" for i in range(100)]
        found = calibrate(detector, benign, fpr=0.1, delta=0.3)
        yield Detector(detector.screener, CalibrationFile(tuple(found)), first=first)


def test_a_cascade_measures_fully_only_what_it_cannot_clear(cascade: Detector) -> None:
    backend = cascade.screener.backend
    assert isinstance(backend, Counting)
    before = backend.samples
    found = cascade.screen(PROMPTS)
    left = [d for d in found if not d.cleared]
    assert 0 < len(left) < len(found) / 2
    assert backend.samples - before == len(found) + 3 * len(left)
    assert [d.passes for d in found] == [1 if d.cleared else 4 for d in found]
    assert [d.prompt for d in found] == PROMPTS


def test_what_a_cascade_says(cascade: Detector) -> None:
    assert cascade.calibration is not None
    [calibration] = cascade.calibration.calibrations
    assert calibration.gate is not None
    narrow = cascade.magnitudes(PROMPTS, noises=1)[:, 0, 0]
    found = cascade.screen(PROMPTS)
    [scale] = cascade.screener.x0_per_unit()
    assert any(d.memorized for d in found)
    for detection, first in zip(found, narrow.tolist(), strict=True):
        assert detection.first == "magnitude at 1 step on 1 noise, which clears 0.8"
        assert (detection.steps, detection.noises) == (1, 3)
        assert detection.cleared == (first <= calibration.gate.level)
        assert detection.memorized == (not detection.cleared and 2 * first > calibration.threshold)
        assert detection.p_value == calibration.p_values([detection.score])[0]
        if detection.cleared:
            assert detection.scores == (first,)
            assert detection.score <= calibration.gate.floor
            assert detection.rms is None
        else:
            assert detection.scores == pytest.approx((2 * first,) * 3)
            assert detection.score == pytest.approx(max(2 * first, calibration.gate.floor))
            assert detection.rms == pytest.approx(2 * first * scale / 16)


def test_where_all_are_cleared_the_second_stage_is_not_asked(cascade: Detector) -> None:
    easy = [d.prompt for d in cascade.screen(PROMPTS) if d.cleared]
    assert 0 < len(easy) < len(PROMPTS)
    assert all(d.cleared and d.passes == 1 for d in cascade.screen(easy))


def test_a_cascade_is_calibrated_as_itself(cascade: Detector, bundle_dir: Path) -> None:
    screener, known = cascade.screener, cascade.calibration
    others = [None, First(clear=0.7), First(noises=2, clear=0.8), First("sharpness", clear=0.8)]
    for first in others[:3]:
        with pytest.raises(CalibrationError, match=r"which clears 0\.8") as caught:
            Detector(screener, known, first=first).screen(PROMPTS)
        if first is not None:
            assert f"on 3 noises, after {first}" in str(caught.value)
    with pytest.raises(
        CalibrationError, match=r"seen benign prompts\. `mnemoscope.calibrate.*` makes"
    ):
        Detector(screener, first=First()).screen(PROMPTS)
    with pytest.raises(InputError, match=r"costs 1\.\d\d of the second.* saves nothing"):
        Detector(screener, first=others[3]).screen(PROMPTS)
    with pytest.raises(InputError, match="has 3 noises, 4 cannot"):
        Detector.load(bundle_dir, first=First(noises=4))
    with pytest.raises(InputError, match="first is 'taps', not a stage"):
        Detector(screener, first="taps")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no detector 'cheap'"):
        Detector.load(bundle_dir, first=First("cheap"))


def test_a_second_look_that_is_no_number_is_no_verdict(cascade: Detector) -> None:
    left = [i for i, d in enumerate(cascade.screen(PROMPTS[:20])) if not d.cleared]
    cascade.screener.backend.wide = math.nan  # type: ignore[attr-defined]
    with pytest.raises(NumericsError) as caught:
        cascade.screen(PROMPTS[:20])
    assert f"(The second stage looked at prompts {left} of its batch.)" in str(caught.value)
