from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnemoscope import Choice, Detector, First, InputError, calibrate, choose
from mnemoscope.calibration.conformal import proportion_interval
from mnemoscope_runtime import Screener
from mnemoscope_runtime.backends import Arrays
from mnemoscope_runtime.testing import FakeBackend

BENIGN = [f"a cat, number {i}" for i in range(60)]
MEMORIZED = [f"icon of a rocket, number {i}" for i in range(10)]
PROMISE = {"fpr": 0.2, "delta": 0.3}


class Rockets(FakeBackend):
    """Memorised prompts stand out on some noises: four of ten on the second, all on the third."""

    def __init__(self, screener: Screener) -> None:
        super().__init__()
        ids = [row.tobytes() for row in screener.tokenizer(MEMORIZED)]
        self._shown = {name: (0.0, 9.0 if i < 4 else 0.0, 99.0) for i, name in enumerate(ids)}

    def _run(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        [found] = super()._run(inputs, outputs)
        for row, ids in zip(found, inputs["input_ids"], strict=True):
            if ids.tobytes() in self._shown:
                row[:] = np.array(self._shown[ids.tobytes()])[inputs["noise_index"]]
        return [found]


@pytest.fixture
def rockets(bundle_dir: Path) -> Iterator[Screener]:
    with Screener.open(bundle_dir, threads=1) as screener:
        backend = Rockets(screener)
    with Screener.open(bundle_dir, backend=backend) as screener:
        yield screener


def chosen(screener: Screener, target: float, **options: Any) -> Choice:
    noises = options.pop("noises", (1, 2, 3))
    return choose(screener, BENIGN, MEMORIZED, target=target, noises=noises, **PROMISE | options)


@pytest.mark.parametrize(("target", "noises"), [(0.4, 2), (0.41, 3), (1, 3)])
def test_the_cheapest_that_reaches_the_target(
    rockets: Screener, target: float, noises: int
) -> None:
    choice = chosen(rockets, target)
    assert choice.chosen.calibration.setting.noises == noises
    assert [each.tpr for each in choice.candidates] == [0, 0.4, 1]
    costs = [each.flops for each in choice.candidates]
    assert costs == sorted(costs)
    assert costs[0] == rockets.bundle.manifest.flops["screen"]


def test_thresholds_and_intervals_allow_for_the_choice(rockets: Screener) -> None:
    choice = chosen(rockets, 0.4)
    alone = calibrate(Detector(rockets), BENIGN, fpr=0.2, delta=0.1, noises=(1, 2, 3))
    for each, other in zip(choice.candidates, alone, strict=True):
        assert each.calibration.threshold == other.threshold
        assert (each.calibration.delta, each.calibration.among) == (0.3, 3)
        hits = round(each.tpr * 10)
        assert (each.low, each.high) == proportion_interval(hits, 10, 1 - 0.05 / 3)


def test_none_is_good_enough(rockets: Screener) -> None:
    choice = chosen(rockets, 0.5, noises=(1, 2))
    assert choice.best.calibration.setting.noises == 2
    with pytest.raises(InputError) as error:
        _ = choice.chosen
    assert str(error.value).startswith(
        "None of the 2 candidates flags 0.5 of the memorised prompts at a false-positive rate of "
        "0.2. The best flags 0.400 (95 % confidence: "
    )
    assert "magnitude at 1 step on 2 noises" in str(error.value)


def test_detectors_are_compared_with_each_other(bundle_dir: Path) -> None:
    with Screener.open(bundle_dir, threads=1) as screener:
        choice = choose(
            screener,
            BENIGN,
            MEMORIZED,
            target=0.01,
            detectors=("magnitude", "anisotropy", "magnitude"),
            steps=(1, 2),
            noises=(1,),
            **PROMISE,
        )
        flops = screener.bundle.manifest.flops
    settings = [each.calibration.setting for each in choice.candidates]
    assert {(s.detector, s.steps) for s in settings} == {
        ("magnitude", 1),
        ("magnitude", 2),
        ("anisotropy", 1),  # which knows no other
    }
    for each in choice.candidates:
        learns = each.calibration.setting.detector == "anisotropy"
        assert each.calibration.among == 3
        assert len(each.calibration.positives) == 10  # none of them teaches
        assert len(each.calibration.scores) == (30 if learns else 60)
    assert choice.candidates[1].flops == flops["text_encoder"] + 2 * flops["step"]


def test_cascades_cost_what_their_first_stage_leaves(rockets: Screener) -> None:
    choice = chosen(rockets, 0.1, first=First(clear=0.75), noises=(2, 3))
    flops = rockets.bundle.manifest.flops
    own = flops["screen"] - flops["text_encoder"]
    assert [each.flops for each in choice.candidates] == [
        flops["screen"] + round(0.25 * (flops["text_encoder"] + m * own)) for m in (2, 3)
    ]
    assert [each.tpr for each in choice.candidates] == [0, 0]  # the first noise clears them


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": 0.0}, "--target-tpr 0.0 is not"),
        ({"target": 1.1}, "is at most 1"),
        ({"target": "all"}, "target is 'all'"),
        ({"detectors": ("magnitude", "taps")}, "has no taps"),
        ({"detectors": ("magnitude", "cheap")}, "no detector 'cheap'"),
        ({"noises": (1, 9)}, "has 3 noises"),
        ({"fpr": 0.01}, "60 benign prompts cannot promise a false-positive rate of 0.01"),
    ],
)
def test_what_cannot_be_chosen_from(rockets: Screener, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        chosen(rockets, **{"target": 0.5} | options)
    assert rockets.backend.calls == 0  # type: ignore[attr-defined]


def test_without_positives_there_is_no_rate_to_reach(rockets: Screener) -> None:
    with pytest.raises(InputError, match="--positives"):
        choose(rockets, BENIGN, [], target=0.5)
