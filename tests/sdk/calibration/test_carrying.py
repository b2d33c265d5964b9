"""Thresholds carried over, against those that the other backend was really calibrated to."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import Run, failed
from numpy.typing import NDArray

from mnemoscope import (
    CalibrationError,
    CalibrationFile,
    Detector,
    First,
    Gate,
    InputError,
    carry,
    embedded,
)
from mnemoscope.calibration import Carried
from mnemoscope.detectors import find_statistic
from mnemoscope_runtime import Backend, BackendOptions, Bundle, Engine, open_backend

pytestmark = pytest.mark.slow

OWN = CalibrationFile.read(embedded.BUNDLE / "calibration.json")
MEASURED = CalibrationFile(
    tuple(
        each
        for each in OWN.calibrations
        if each.setting.backend == "onnxruntime"
        and (each.setting.steps, each.setting.noises) in ((1, 1), (1, 4))
    )
)
ONE = BackendOptions(threads=1)
PROMPTS = [row.prompt for row in embedded.read_prompts("memorized", "held_out")][::16]


class Off(Backend):
    """ONNX Runtime, a relative error off."""

    name = "off"

    def __init__(self, error: float, above: float = 0.0) -> None:
        super().__init__()
        self._backend = open_backend("onnxruntime", threads=1)
        self._error, self._above = error, above

    def make_engine(self, bundle: Bundle, graph: str) -> Engine:
        engine = self._backend.load(bundle, graph)

        def run(inputs: Any, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
            found = engine(inputs, outputs)
            return [each * off(each) for each in found]

        def off(found: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.where(found > self._above, 1 + self._error, 1).astype(np.float32)

        return run

    def close(self) -> None:
        super().close()
        self._backend.close()


def test_the_carried_threshold_is_the_one_that_measuring_gives() -> None:
    found = carry(MEASURED, embedded.BUNDLE, source="onnxruntime", target="openvino", options=ONE)
    assert len(found) == len(MEASURED.calibrations) == 4  # two detectors, two numbers of noises
    assert {each.setting.detector for each in found} == {"magnitude", "taps"}
    for each in found:
        measured = OWN.require(each.setting)
        assert measured.setting.backend == "openvino"
        assert each.carried is not None
        assert (each.carried.backend, each.carried.prompts) == ("onnxruntime", 5)
        assert 0 < each.carried.error < 1e-5 * each.threshold
        assert each.threshold == pytest.approx(measured.threshold, rel=1e-5)
    [first] = [f for f in found if (f.setting.detector, f.setting.noises) == ("magnitude", 1)]
    with Detector.load(backend="openvino", threads=1) as detector:
        own = detector.screen(PROMPTS, noises=1)
        other = Detector(detector.screener, CalibrationFile((first,))).screen(PROMPTS, noises=1)
    assert [d.memorized for d in own] == [d.memorized for d in other]
    assert 0 < sum(bool(d.memorized) for d in own) < len(own)


@pytest.mark.parametrize(
    ("error", "carried"), [(5e-6, 4), (2e-4, 0)]
)  # MARGIN is 1e-4, a tenth of it the most that may differ
def test_what_differs_too_much_is_not_carried(error: float, carried: int) -> None:
    told: list[str] = []
    options: dict[str, Any] = {"source": "onnxruntime", "target": Off(error), "options": ONE}
    if carried:
        found = carry(MEASURED, embedded.BUNDLE, tell=told.append, **options)
        assert len(found) == carried
        return
    with pytest.raises(CalibrationError, match="No calibration of onnxruntime can be carried"):
        carry(MEASURED, embedded.BUNDLE, tell=told.append, **options)
    assert len(told) == 4
    assert all("less than 10 times that" in note for note in told)


def test_prompts_tell_what_probes_do_not() -> None:
    """Off on high scores alone, which none of the probes has."""
    options: dict[str, Any] = {"source": "onnxruntime", "options": ONE, "tell": lambda _: None}
    magnitude = CalibrationFile(MEASURED.calibrations[:1])
    assert find_statistic(magnitude.calibrations[0].setting.detector).name == "magnitude"
    probes = Bundle.open(embedded.BUNDLE).manifest.probes
    spelt = [f" {probe.prompt.upper()}" for probe in probes]  # to CLIP the same
    [found] = carry(magnitude, embedded.BUNDLE, target=Off(0.0), prompts=spelt, **options)
    assert found.carried is not None
    assert found.carried.prompts == len(probes)
    backend = Off(1e-3, above=max(max(probe.magnitudes) for probe in probes))
    assert carry(magnitude, embedded.BUNDLE, target=backend, **options)
    with pytest.raises(CalibrationError, match="can be carried"):
        carry(magnitude, embedded.BUNDLE, target=backend, prompts=PROMPTS, **options)


def test_far_from_pytorch_carries_nothing() -> None:
    with pytest.raises(CalibrationError, match=r"off is 2\.0e-02 \(relative\) from PyTorch"):
        carry(MEASURED, embedded.BUNDLE, source="onnxruntime", target=Off(0.02), options=ONE)


def test_what_is_never_carried() -> None:
    first = MEASURED.calibrations[0]
    told: list[str] = []

    def carried(*calibrations: Any, target: str = "openvino") -> None:
        file = CalibrationFile(calibrations)
        carry(file, embedded.BUNDLE, source="onnxruntime", target=target, tell=told.append)

    with pytest.raises(InputError, match="from itself"):
        carried(first, target="onnxruntime")
    with pytest.raises(CalibrationError, match="nothing of onnxruntime to be"):
        carried(*(each for each in OWN.calibrations if each.setting.backend == "openvino"))
    assert told == []
    cascade = replace(
        first, setting=replace(first.setting, first=First()), gate=Gate(2.0, first.scores[1])
    )
    again = carry(
        CalibrationFile((first,)), embedded.BUNDLE, source="onnxruntime", target=Off(0.0)
    )[0]
    again = replace(again, setting=first.setting, carried=Carried("openvino", 10, 0.0))
    measured = OWN.require(replace(first.setting, backend="openvino"))
    for calibrations, words in (
        ((cascade,), "is a cascade"),
        ((again,), "was itself carried over"),
        ((first, measured), "was measured itself"),
    ):
        with pytest.raises(CalibrationError, match="nothing of onnxruntime to be carried"):
            carried(*calibrations)
        assert words in told.pop()
    with pytest.raises(CalibrationError, match="one was carried over from another backend"):
        again.merged(first)


def test_the_command(run: Run, tmp_path: Path) -> None:
    bundle = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    (bundle / "calibration.json").unlink()
    args = ("calibration", "carry", bundle, "--to", "openvino", "--threads", 1)
    failed(run(*args), 4, "has no calibration", "mnemoscope calibrate")
    magnitude = [c for c in MEASURED.calibrations if c.setting.detector == "magnitude"]
    CalibrationFile(tuple(magnitude)).write(bundle / "calibration.json")
    prompts = tmp_path / "p.txt"
    prompts.write_text("\n".join(PROMPTS[:5]))
    screen = ("screen", "a cat", "--bundle", bundle, "--backend", "openvino", "--noises", 1)
    before = run(*screen)
    assert before.code == 5
    carries = f"`mnemoscope calibration carry {bundle} --from onnxruntime --to openvino`"
    assert carries in before.err
    done = run(*args, "--prompts", prompts)
    assert done.code == 0, done
    assert "Measured on onnxruntime and carried over: on 10 prompts the two differ by" in done.out
    assert run(*screen).code == 0
    assert "carried over" in run("calibration", "inspect", bundle / "calibration.json").out
