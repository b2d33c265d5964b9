"""A detector is one file and one line in a table."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from documented import named_in_table, run_code

from mnemoscope import CalibrationError, Detector, InputError, detectors, embedded
from mnemoscope.detectors import DETECTORS, Features, Fit, Scores, find_statistic
from mnemoscope.detectors.magnitude import Magnitude
from mnemoscope_runtime import Screener

MODULES = sorted(
    path.stem for path in Path(detectors.__file__).parent.glob("*.py") if path.stem[0] != "_"
)


@pytest.mark.parametrize("name", MODULES)
def test_no_file_is_missing_in_the_table(name: str) -> None:
    module = importlib.import_module(f"mnemoscope.detectors.{name}")
    classes = {each for each in map(vars(module).get, module.__all__) if hasattr(each, "measure")}
    assert classes
    of_taps = (find_statistic("taps"), find_statistic("tap:mid"))
    assert classes <= {type(each) for each in (*DETECTORS.values(), *of_taps)}


def test_every_detector_is_found_by_its_name_and_told_of_in_the_docs() -> None:
    assert [each.name for each in DETECTORS.values()] == list(DETECTORS)
    assert all(each.reference for each in DETECTORS.values())
    assert {*DETECTORS, "taps", "tap:LAYER"} == named_in_table("detectors.md")


@pytest.mark.slow
def test_one_of_your_own(capsys: pytest.CaptureFixture[str]) -> None:
    """The example of docs/detectors.md."""
    run_code("detectors.md", "class Peak")
    lines = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    prompts = [prompt for _, prompt in lines]
    with Screener.open(embedded.BUNDLE) as screener:
        largest = screener.trajectory(prompts, steps=3).max(2).mean(1)
    assert [float(score) for score, _ in lines] == pytest.approx(largest, abs=6e-4)
    assert largest[0] > largest[1]  # the first is memorised


class Nothing(Magnitude):
    """Finds nothing in any prompt."""

    def score(self, features: Features, fit: Fit | None) -> Scores:  # noqa: ARG002
        return np.zeros(features.shape[:2])


@pytest.mark.parametrize("name", ["magnitude", "taps", "tap:mid_block"])
def test_a_name_of_the_table_is_refused(name: str) -> None:
    """Its calibrations would be taken for those of another, and zeros for clean."""
    own = Nothing()
    own.name = name
    with pytest.raises(InputError, match="calibrations would be taken for its own"):
        Detector.load(detector=own)
    own.name = "nothing"
    with pytest.raises(CalibrationError) as missing, Detector.load(detector=own) as detector:
        detector.screen(["a cat"], noises=1)
    assert "`mnemoscope.calibrate(detector, benign)` makes one" in str(missing.value)
    assert "--detector nothing" not in str(missing.value)


def test_what_is_no_detector() -> None:
    with pytest.raises(InputError, match=r"a class. Give an instance of it: Nothing\(\)"):
        find_statistic(Nothing)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="it has no name, reference"):
        find_statistic(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["attention-entropy", "bright-ending"])
def test_what_looks_at_a_unet_is_refused_of_a_flow_whatever_runs_it(name: str) -> None:
    """Not with the advice of a backend that would refuse it as well."""
    with pytest.raises(InputError, match=r"cross-attention of a UNet.*family Stable Diffusion 3"):
        Detector.load("embedded-flow", detector=name)
