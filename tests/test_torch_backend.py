from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import build_pipeline

from mnemoscope import BackendError, BackendUnavailable, Detector
from mnemoscope_export import StableDiffusion, TorchBackend
from mnemoscope_export.graphs import TextEncoderGraph
from mnemoscope_runtime import Screener

PROMPTS = ["a photo of a cat", "", "google icon of rocket"]


@pytest.fixture
def on_torch(model: StableDiffusion, bundle_dir: Path) -> Screener:
    return Screener.open(bundle_dir, backend=TorchBackend(model))


def test_same_as_onnxruntime(on_torch: Screener, bundle_dir: Path) -> None:
    with Screener.open(bundle_dir) as other:
        for one, two in zip(on_torch.embed(PROMPTS), other.embed(PROMPTS), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
        found, expected = (s.trajectory(PROMPTS, steps=3) for s in (on_torch, other))
        np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-4)
        found, expected = (s.first_step(PROMPTS) for s in (on_torch, other))
        np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-4)
    assert on_torch.probe() < 1e-4


# random weights hardly heed the prompt, so rounding weighs more than in a trained model
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-4), ("bfloat16", 0.3)])
def test_precision(model: StableDiffusion, bundle_dir: Path, precision: str, error: float) -> None:
    backend = TorchBackend(model, precision=precision)  # type: ignore[arg-type]
    with Detector.load(bundle_dir, backend=backend, uncalibrated="score") as detector:
        assert detector.screen(PROMPTS[:1])[0].backend == backend.name
        assert 0 < detector.screener.probe() < error
    assert backend.name == ("torch" if precision == "float32" else "torch:bfloat16")
    assert model.unet.dtype.is_floating_point
    assert str(model.unet.dtype) == "torch.float32"  # left as it was


def test_compiled(model: StableDiffusion, bundle_dir: Path) -> None:
    backend = TorchBackend(model, compiler="eager")
    assert backend.name == "torch-eager"
    with Screener.open(bundle_dir, backend=backend) as screener:
        assert screener.probe() < 1e-4


def test_what_keeps_cuda_graphs_runs_on_one_thread(
    model: StableDiffusion, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch records CUDA graphs for every thread that runs what was compiled."""
    monkeypatch.setattr(TorchBackend, "_keeps_cuda_graphs", True)
    ran = []

    def spy(self: TextEncoderGraph, input_ids: torch.Tensor) -> object:
        ran.append(threading.get_ident())
        return forward(self, input_ids)

    forward = TextEncoderGraph.forward
    monkeypatch.setattr(TextEncoderGraph, "forward", spy)
    with Screener.open(bundle_dir, backend=TorchBackend(model)) as screener:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(screener.embed, [PROMPTS[:1]] * 6))
        threads = [t for t in threading.enumerate() if t.name.startswith("torch")]
        assert len(threads) == 1
        assert set(ran) == {threads[0].ident}
        assert screener.probe() < 1e-4
    assert not threads[0].is_alive()


def test_other_weights(bundle_dir: Path, model: StableDiffusion) -> None:
    other = replace(model, unet=build_pipeline("epsilon", seed=9).unet)
    with pytest.raises(BackendError, match=r"not those of .*Give the model it was exported from"):
        Screener.open(bundle_dir, backend=TorchBackend(other))


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_no_such_device(model: StableDiffusion, device: str) -> None:
    with pytest.raises(BackendUnavailable, match=f"cannot use '{device}'.*device='cpu'"):
        TorchBackend(model, device=device)
