from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mnemoscope_runtime import BackendUnavailable, Screener, open_backend

PROMPTS = ["a photo of a cat", "icon of rocket", "", "日本"]


@pytest.fixture(scope="module")
def screener(bundle_dir: Path) -> Iterator[Screener]:
    with Screener.open(bundle_dir, backend="openvino", threads=1) as screener:
        yield screener


def test_agrees_with_onnxruntime(screener: Screener, bundle_dir: Path) -> None:
    with Screener.open(bundle_dir, threads=1) as other:
        for noises in (1, 3):
            np.testing.assert_allclose(
                screener.first_step(PROMPTS, noises=noises),
                other.first_step(PROMPTS, noises=noises),
                rtol=1e-4,
                atol=1e-5,
            )
        np.testing.assert_allclose(
            screener.trajectory(PROMPTS, steps=3),
            other.trajectory(PROMPTS, steps=3),
            rtol=1e-4,
            atol=1e-5,
        )


def test_nothing_is_reported_to_anyone(tmp_path: Path) -> None:
    """`import openvino` alone would write an id to the home and send a usage report."""
    code = "import sys\nfrom mnemoscope_runtime import open_backend\nopen_backend('openvino')\n"
    code += "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | home
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_the_processor_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openvino.Core.get_property", lambda *_: ["FP32", "INT8"])
    open_backend("openvino")
    with pytest.raises(BackendUnavailable, match=r"has no bfloat16 on this.*FP32, INT8"):
        open_backend("openvino:bfloat16")


def test_agrees_with_torch(screener: Screener) -> None:
    assert screener.probe() < 1e-4
