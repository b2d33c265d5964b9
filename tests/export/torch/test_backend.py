from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipelines import build_pipeline, build_xl
from predictions import both_models
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from mnemoscope import BackendUnavailable, BundleError, Detector
from mnemoscope_export import StableDiffusion, TorchBackend
from mnemoscope_export.torch.graphs import ScreenGraph, StepGraph, TextEncoderGraph
from mnemoscope_runtime import Bundle, Screener
from mnemoscope_runtime.user_cache import cache_folder

PROMPTS = ["a photo of a cat", "", "google icon of rocket"]


@pytest.fixture
def on_torch(model: StableDiffusion, bundle_dir: Path) -> Screener:
    return Screener.open(bundle_dir, backend=TorchBackend(model))


@both_models
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


@pytest.mark.parametrize("own", [False, True])
def test_what_inductor_compiles_is_kept_where_nobody_else_writes(
    model: StableDiffusion, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    if not own:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    TorchBackend(model, compiler="inductor").load(Bundle.open(bundle_dir), "screen")
    found = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    assert found == ("/mine" if own else str(cache_folder("inductor")))
    assert own or cache_folder("inductor").stat().st_mode & 0o777 == 0o700


def test_other_weights(bundle_dir: Path, model: StableDiffusion) -> None:
    other = replace(model, unet=build_pipeline("epsilon", seed=9).unet)
    with pytest.raises(
        BundleError, match=r"not those of .*Give the model that it was exported from"
    ):
        Screener.open(bundle_dir, backend=TorchBackend(other))


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_no_such_device(model: StableDiffusion, device: str) -> None:
    with pytest.raises(BackendUnavailable, match=f"cannot use '{device}'.*device='cpu'"):
        TorchBackend(model, device=device)


@pytest.fixture
def on_fixed_sizes(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> TorchBackend:
    """As if it were compiled on a GPU."""
    monkeypatch.setattr(TorchBackend, "_fixes_sizes", True)
    backend = TorchBackend(model, batches=(1, 2), cuda_graphs=False)
    backend.cuts_calls = True
    return backend


def test_what_is_compiled_on_a_gpu_sees_few_sizes(
    on_fixed_sizes: TorchBackend, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch compiles anew for every size that it meets, or once for all of them and slower."""
    prompts, seen = [f"cat {index}" for index in range(5)], set()

    def spy(self: ScreenGraph | StepGraph | TextEncoderGraph, *inputs: Any) -> object:
        seen.add((type(self).__name__, *(tuple(each.shape) for each in tree_leaves(inputs))))
        return forwards[type(self)](self, *inputs)

    forwards = {graph: graph.forward for graph in (ScreenGraph, StepGraph, TextEncoderGraph)}
    for graph in forwards:
        monkeypatch.setattr(graph, "forward", spy)
    with (
        Screener.open(bundle_dir, backend=on_fixed_sizes) as cut,
        Screener.open(bundle_dir) as other,
    ):
        np.testing.assert_allclose(
            cut.first_step(prompts), other.first_step(prompts), rtol=1e-4, atol=1e-6
        )
        found, expected = (each.trajectory(prompts, steps=2, noises=1) for each in (cut, other))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    sizes = {(name, shape[0]) for name, shape, *_ in seen}
    assert sizes == {
        (g, n) for g in ("ScreenGraph", "StepGraph", "TextEncoderGraph") for n in (1, 2)
    }
    assert len(seen) == len(sizes)  # one shape of all inputs for each


def test_any_length_is_no_matter_of_sizes(on_fixed_sizes: TorchBackend, bundle_dir: Path) -> None:
    screener = Screener.open(bundle_dir, backend=on_fixed_sizes, graphs=())
    longer = replace(screener.bundle.manifest, any_length=True)
    screener.bundle = replace(screener.bundle, manifest=longer)
    screener.prepare("step")


class _OnTheDevice(TorchFunctionMode):
    """Refuses what begins on the host in the middle of a network on another device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor), func
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves((args, kwargs, found)):
            assert not isinstance(each, torch.Tensor) or each.device.type == "meta", func
        return found


@pytest.mark.parametrize("build", [partial(build_pipeline, "v_prediction"), build_xl])
def test_nothing_comes_from_the_host_on_the_way(build: Callable[[], Any], tmp_path: Path) -> None:
    """A tensor that is made of numbers, a timestep say, would keep PyTorch from CUDA graphs."""
    build().save_pretrained(tmp_path)
    model = StableDiffusion.load(tmp_path)
    bank = torch.zeros(1, *model.latent_shape)
    graphs = (ScreenGraph(model, bank, 981), StepGraph(model), TextEncoderGraph(model))
    given = [tree_map(lambda each: each.to("meta"), graph.one(model)) for graph in graphs]
    for part in model.parts.values():
        part.to("meta")
    for graph, inputs in zip(graphs, given, strict=True):
        graph.to("meta").eval()
        with torch.no_grad(), _OnTheDevice():
            graph(*inputs)
