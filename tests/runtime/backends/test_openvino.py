from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mnemoscope_export import StableDiffusion, magnitudes, noise_bank
from mnemoscope_runtime import (
    BackendError,
    BackendUnavailable,
    Bundle,
    Screener,
    open_backend,
)

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


@pytest.mark.parametrize("what", ["folder", "file"])
def test_no_room_for_the_temporary_copy(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bundle = Bundle.open(bundle_dir)
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "mkdir") if what == "folder" else (Path, "write_bytes")), full)
        with pytest.raises(BackendError, match=r"No space left.*set TMPDIR to a directory"):
            open_backend("openvino").load(bundle, "screen")
    assert list(tmp_path.iterdir()) == []
    assert open_backend("openvino").load(bundle, "screen")
    assert list(tmp_path.iterdir()) == []


def test_agrees_with_torch(screener: Screener, model: StableDiffusion) -> None:
    noises = noise_bank(3, model.latent_shape, seed=7)  # those of `bundle_dir`
    expected = magnitudes(model, PROMPTS, noises)[..., 0]
    np.testing.assert_allclose(screener.first_step(PROMPTS), expected, rtol=1e-4, atol=1e-5)
    assert np.count_nonzero(expected > 0.01) == 9  # all but the empty prompt's
