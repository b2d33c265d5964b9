"""Backends and calibrations for tests of detectors."""

from __future__ import annotations

from pathlib import Path

from cli_support import calibration

from mnemoscope import CalibrationFile, Setting
from mnemoscope_runtime import Bundle
from mnemoscope_runtime.testing import FakeBackend


class Closing(FakeBackend):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def constant(value: float) -> FakeBackend:
    return FakeBackend(lambda _: value)


def calibration_of(bundle: Path, *thresholds: float) -> CalibrationFile:
    """Thresholds for one noise, two noises and so on, each for one step."""
    identity = Bundle.open(bundle).id
    return CalibrationFile(
        tuple(
            calibration(Setting(identity, "fake", "magnitude", 1, noises), threshold)
            for noises, threshold in enumerate(thresholds, 1)
        )
    )
