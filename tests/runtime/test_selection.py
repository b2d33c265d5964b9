from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cli_support import calibrate, copied

from mnemoscope import Detector
from mnemoscope_runtime import BackendOptions, BackendUnavailable, SchemaError
from mnemoscope_runtime.selection import CANDIDATES, Trial, fastest, try_backends

SLOW = Trial("slow", error=1e-6, seconds=2.0)
FAST = Trial("fast", error=1e-6, seconds=1.0)
ROUGH = Trial("rough", error=0.02, seconds=0.1)
WRONG = Trial("wrong", error=float("nan"), seconds=0.1)
BROKEN = Trial("broken", problem="not installed")


def test_the_fastest_within_the_budget() -> None:
    assert fastest([SLOW, FAST, ROUGH, WRONG, BROKEN], 0.01) == FAST
    assert fastest([SLOW, ROUGH], 0.05) == ROUGH


def test_none_will_do() -> None:
    with pytest.raises(BackendUnavailable, match=r"rough: relative error 2\.0e-02; broken: not"):
        fastest([ROUGH, BROKEN], 0.01)


def test_every_candidate_is_tried(bundle_dir: Path) -> None:
    trials = list(try_backends(bundle_dir, options=BackendOptions(threads=1)))
    assert tuple(trial.backend for trial in trials) == CANDIDATES
    for trial in trials:
        assert (trial.problem is None) == (trial.error is not None) == (trial.seconds is not None)
    first = trials[0]
    assert first.error is not None
    assert first.error < 1e-4


def test_a_backend_that_is_not_installed(bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    by_name = {trial.backend: trial for trial in try_backends(bundle_dir)}
    assert "'.[openvino]" in str(by_name["openvino"].problem)
    with Detector.load(bundle_dir, backend="auto", threads=1) as detector:
        assert detector.screener.backend.name == "onnxruntime"


def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SchemaError):
        list(try_backends(tmp_path))


def test_auto_prefers_what_is_calibrated(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fastest backend of all is of no use if it has no verdict, and the next one does."""
    bundle = copied(bundle_dir, tmp_path / "bundle")
    broken: set[str] = set()
    tried: list[str] = []

    def trials(_: Path, names: Sequence[str], *__: object) -> Iterator[Trial]:
        for name in names:
            tried.append(name)
            seconds = 1.0 if name == "onnxruntime" else 0.5
            bad = name in broken or name not in ("onnxruntime", "openvino")
            yield Trial(name, problem="no") if bad else Trial(name, error=0.0, seconds=seconds)

    monkeypatch.setattr("mnemoscope.screening.opening.try_backends", trials)

    def chosen() -> str:
        tried.clear()
        with Detector.load(bundle, backend="auto", threads=1) as detector:
            return detector.screener.backend.name

    assert chosen() == "openvino"
    assert set(tried) == set(CANDIDATES)
    calibrate(bundle, 0.0, bundle / "calibration.json")  # on onnxruntime
    assert (chosen(), tried) == ("onnxruntime", ["onnxruntime"])
    broken.add("onnxruntime")
    assert chosen() == "openvino"
    assert sorted(tried) == sorted(CANDIDATES)  # each once
