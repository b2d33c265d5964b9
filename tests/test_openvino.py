from __future__ import annotations

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


def test_a_precision_that_the_processor_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openvino.Core.get_property", lambda *_: ["FP32", "INT8"])
    open_backend("openvino")
    with pytest.raises(BackendUnavailable, match=r"has no bfloat16 on this.*FP32, INT8"):
        open_backend("openvino:bfloat16")


def test_agrees_with_torch(screener: Screener) -> None:
    assert screener.probe() < 1e-4
