"""Taps: from the layers of a UNet to what every backend measures of them.

Here a graph stops at the last one. Where none does, the screening graph has them:
test_export_variants.py, of a model that predicts velocities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cli_support import damaged
from cuda_kernels import lacking
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from screening_support import MANY, PROMPTS, Changed, changed

from mnemoscope import (
    BackendError,
    Detector,
    InputError,
    IntegrityError,
    NumericsError,
    ParityError,
)
from mnemoscope_export import ExportOptions, StableDiffusion, Tolerance, TorchBackend, export_bundle
from mnemoscope_export.gate import CHECKED_ON, check_parity
from mnemoscope_export.models.layers import decoder_layers
from mnemoscope_export.torch.flops import count_flops
from mnemoscope_export.torch.graphs import ScreenGraph
from mnemoscope_export.torch.oracle import measure_reference
from mnemoscope_export.torch.reference import measure
from mnemoscope_export.torch.taps import Recorder, choose
from mnemoscope_runtime import Bundle, Engine, Screener, open_backend

LAST = "up_blocks.1.resnets.0"
TAPS = ("up_blocks.0.resnets.0", "up_blocks.0.resnets.1", LAST)
SMALL = TAPS[:2]  # of models of one level; that of `open_dir` has a third resnet behind them
Hooked = Callable[[str, int, int], NDArray[np.float32]]


@pytest.fixture(scope="module")
def screener(open_dir: Path) -> Iterator[Screener]:
    with Screener.open(open_dir, threads=1) as screener:
        yield screener


@torch.no_grad()
def with_hooks(
    model: StableDiffusion,
    prompts: Sequence[str],
    latents: torch.Tensor,
    t: int,
    names: Sequence[str],
) -> NDArray[np.float32]:
    """Norms by plain hooks, one prompt and one UNet call at a time. # [prompt, K]"""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, __, out: seen.__setitem__(name, out[0] if type(out) is tuple else out)

    hooks = [model.unet.get_submodule(n).register_forward_hook(keep(n)) for n in names]
    rows = []
    for prompt in prompts:
        model.predict(latents, t, model.embed([prompt]))
        cond = dict(seen)
        model.predict(latents, t, model.embed_empty())
        rows.append([float(torch.dist(cond[name], seen[name])) for name in names])
    for hook in hooks:
        hook.remove()
    return np.array(rows, np.float32)


# layers


def test_every_operator_runs_on_cuda(open_dir: Path) -> None:
    assert lacking(open_dir) == set()


def test_layers_in_the_order_in_which_they_run(model: StableDiffusion) -> None:
    names = model.tappable()
    assert names[0] == "down_blocks.0.downsamplers.0"  # behind the first cross-attention
    ran: list[str] = []
    hooks = [
        model.unet.get_submodule(name).register_forward_hook(lambda *_, n=name: ran.append(n))
        for name in names
    ]
    with torch.no_grad():
        model.predict(torch.zeros(1, *model.latent_shape), 1, model.embed(["a"]))
    for hook in hooks:
        hook.remove()
    assert ran == names


def test_layers_that_do_not_know_the_prompt_cannot_be_tapped(model: StableDiffusion) -> None:
    latents = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    before = ["conv_in", "down_blocks.0.resnets.0"]
    norms = with_hooks(model, ["a cat"], latents, 981, [*before, *model.tappable()])
    assert (norms[:, :2] == 0).all()
    assert (norms[:, 2:] > 0).all()
    assert not set(before) & set(model.tappable())


def test_auto_takes_the_beginning_of_the_decoder(model: StableDiffusion) -> None:
    names = choose(model, "auto")
    assert names[:3] == TAPS
    assert names[-1] == "up_blocks.1.attentions.1"
    assert len(names) == 6  # no upsampler
    assert choose(model, "auto", LAST) == TAPS
    assert choose(model, "auto", "mid_block.resnets.1") == ("mid_block.resnets.1",)
    assert choose(model, None) == ()


def test_auto_of_stable_diffusion_1() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    resnets = [f"up_blocks.{i}.resnets.{j}" for i in (0, 1) for j in range(3)]
    attentions = [f"up_blocks.1.attentions.{j}" for j in range(3)]
    assert set(decoder_layers(unet)) == {*resnets, *attentions}


def test_names_in_any_order(model: StableDiffusion) -> None:
    assert choose(model, TAPS[::-1]) == TAPS
    assert choose(model, list(TAPS), LAST) == TAPS


@pytest.mark.parametrize(
    ("taps", "until", "words"),
    [
        (["up_blocks.9.resnets.0"], None, "no layer of this model that can be tapped. Choose from"),
        (["conv_in"], None, "conv_in is no layer"),
        ("auto", "nowhere", "nowhere is no layer"),
        (
            ["up_blocks.1.resnets.1"],
            LAST,
            "up_blocks.1.resnets.1 comes after up_blocks.1.resnets.0",
        ),
        ([TAPS[0]], LAST, "is not among the taps"),
    ],
)
def test_layers_that_cannot_be_chosen(
    model: StableDiffusion, taps: list[str], until: str | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        choose(model, taps, until)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"taps": []}, "list of taps is empty"),
        ({"taps": ["a", "b", "a"]}, "The tap a is named twice"),
        ({"taps": "up_blocks.0.resnets.1"}, "not a list of layers"),
        ({"taps": [1]}, "not text"),
        ({"until": "a"}, "there are no taps"),
        ({"taps": "auto", "until": 3}, "not text"),
    ],
)
def test_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ExportOptions(**options)  # type: ignore[arg-type]


def test_an_unknown_layer_is_refused_before_any_work(
    model: StableDiffusion, tmp_path: Path
) -> None:
    stages: list[str] = []
    with pytest.raises(InputError, match="no layer of this model"):
        export_bundle(model, tmp_path / "out", ExportOptions(taps=["x"]), progress=stages.append)
    assert (stages, list(tmp_path.iterdir())) == ([], [])


def test_a_recorder_leaves_the_unet_as_it_was(model: StableDiffusion) -> None:
    recorder = Recorder(model, model.unet, TAPS[:2], stop=True)
    latents = torch.zeros(1, *model.latent_shape)

    def run() -> torch.Tensor:
        return model.predict(latents, 1, model.embed(["a"]))

    output, features = recorder.run(run)
    assert (output, len(features)) == (None, 2)
    recorder.close()
    assert recorder.run(run) == (None, [])
    assert not any(module._forward_hooks for module in model.unet.modules())


# what engines measure


def test_the_first_step_is_that_of_pytorch(screener: Screener, open_model: StableDiffusion) -> None:
    assert screener.taps == SMALL
    found = screener.first_step_taps(PROMPTS)
    for column, noise in enumerate(torch.from_numpy(screener.bundle.noise_bank())):
        expected = with_hooks(open_model, PROMPTS, noise[None], 981, SMALL)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-4, atol=1e-4)


def test_the_sampler_is_that_of_pytorch(screener: Screener, open_model: StableDiffusion) -> None:
    [part] = screener.parts(PROMPTS[:2], noises=2)
    walked = list(screener.walk(part, screener.timesteps[:3]))
    assert [seen.timestep for seen in walked] == list(screener.timesteps[:3])
    for seen in walked:
        for row, column in np.ndindex(2, 2):
            latents = torch.from_numpy(seen.latents[row, column][None])
            expected = with_hooks(open_model, PROMPTS[row : row + 1], latents, seen.timestep, SMALL)
            np.testing.assert_allclose(seen.taps[row, column], expected[0], rtol=1e-4)


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_other_backends(
    open_dir: Path, screener: Screener, open_model: StableDiffusion, backend: str
) -> None:
    runs = TorchBackend(open_model) if backend == "torch" else backend
    with Screener.open(open_dir, backend=runs) as other:
        expected = screener.first_step_taps(PROMPTS)
        np.testing.assert_allclose(other.first_step_taps(PROMPTS), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            other.first_step(PROMPTS), screener.first_step(PROMPTS), rtol=1e-4, atol=1e-4
        )
        [part] = other.parts(PROMPTS[:2], noises=1)
        [seen] = other.walk(part, other.timesteps[:1])
        np.testing.assert_allclose(seen.taps, expected[:2, :1], rtol=1e-4)


def test_prompts_do_not_depend_on_their_neighbours(screener: Screener) -> None:
    many = screener.first_step_taps(MANY, noises=2)
    for row in (0, len(MANY) // 2, len(MANY) - 1):
        alone = screener.first_step_taps([MANY[row]], noises=1)
        np.testing.assert_allclose(many[row, :1], alone[0], rtol=1e-5)


def test_the_empty_prompt_moves_nothing(screener: Screener) -> None:
    empty, cat = screener.first_step_taps(["", "a cat"])
    assert (empty < 1e-3 * cat).all()


def test_nan_is_no_verdict(open_dir: Path) -> None:
    def spoil(graph: str, outputs: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        if graph == "taps":
            outputs[0][1, 0, 1] = np.nan
        return outputs

    with (
        changed(open_dir, spoil) as screener,
        pytest.raises(NumericsError, match="A tap of prompt 1 is NaN or infinite"),
    ):
        screener.first_step_taps(PROMPTS)


def test_a_bundle_without_taps(bundle_dir: Path) -> None:
    with Screener.open(bundle_dir) as screener:
        assert screener.taps == ()
        with pytest.raises(
            InputError, match=r"has no taps\. Export .*`mnemoscope export --taps auto`"
        ):
            screener.first_step_taps(PROMPTS)
        [part] = screener.parts(PROMPTS[:2], noises=1)
        [seen] = screener.walk(part, screener.timesteps[:1])
        assert seen.taps.shape == (2, 1, 0)


def test_a_tap_that_the_bundle_lacks(screener: Screener) -> None:
    assert screener.require_taps(SMALL[-1]) == SMALL
    with pytest.raises(InputError, match=r"has no tap 'x'\. Choose one of: up_blocks.*--taps x`"):
        screener.require_taps("x")


# bundles


def outputs(folder: Path, graph: str) -> list[str]:
    found = onnx.load(folder / f"{graph}.onnx", load_external_data=False)
    return [value.name for value in found.graph.output]


def weights(folder: Path, graph: str) -> dict[str, NDArray[np.float32]]:
    """Constants, too."""
    found = onnx.load(folder / f"{graph}.onnx")
    return {each.name: onnx.numpy_helper.to_array(each) for each in found.graph.initializer}


def is_held(buffer: torch.Tensor, weights: Mapping[str, NDArray[np.float32]]) -> bool:
    same = [each for each in weights.values() if each.shape == buffer.shape]
    return any(np.allclose(each, buffer.numpy(), atol=1e-5) for each in same)


def test_who_has_no_taps_gets_none(bundle_dir: Path) -> None:
    assert b'"taps"' not in (bundle_dir / "manifest.json").read_bytes()
    assert outputs(bundle_dir, "screen") == ["magnitude"]
    assert outputs(bundle_dir, "step") == ["magnitude", "eps_cond", "eps_uncond"]


@pytest.mark.parametrize("name", ["taps", f"tap:{SMALL[-1]}"])
def test_screening_for_taps_does_not_pay_for_the_rest(open_dir: Path, name: str) -> None:
    backend = Changed(open_backend("onnxruntime", threads=1))
    with Detector.load(open_dir, backend=backend, detector=name) as detector:
        assert backend.loaded == ["taps"]
        detector.measure(PROMPTS)
        assert backend.loaded == ["taps"]


class NoTaps(Changed):
    """A backend that cannot run one graph."""

    def make_engine(self, bundle: Bundle, graph: str) -> Engine:
        if graph == "taps":
            raise BackendError("There is no engine of taps.")
        return super().make_engine(bundle, graph)


def test_what_is_missing_is_missed_when_a_detector_is_loaded(
    open_dir: Path, bundle_dir: Path
) -> None:
    backend = NoTaps(open_backend("onnxruntime", threads=1))
    with pytest.raises(BackendError, match="no engine of taps"):
        Detector.load(open_dir, backend=backend, detector="taps")
    assert (backend.loaded, backend.closed) == ([], 1)
    with Detector.load(open_dir, backend=NoTaps(open_backend("onnxruntime", threads=1))):
        pass  # the magnitude does not ask for it
    with pytest.raises(InputError, match=r"has no taps\. Export"):
        Detector.load(bundle_dir, detector="taps")
    with pytest.raises(InputError, match="has no tap 'x'"):
        Detector.load(open_dir, detector="tap:x")


def test_a_bundle_is_verified_whatever_is_loaded(open_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"screen\.onnx differs"):
        Detector.load(damaged(open_dir, tmp_path / "copy"), detector="taps")


def test_half_precision(small_model: StableDiffusion, float16_dir: Path) -> None:
    bundle = Bundle.open(float16_dir)
    assert bundle.manifest.precision == "float16"
    bank = torch.from_numpy(bundle.noise_bank())
    prompts = ["a photo of a cat", "icon of rocket"]
    expected = measure(small_model, prompts, bank, steps=1, taps=SMALL)[:, :, 0, 1:].numpy()
    with Screener.open(float16_dir, backend=CHECKED_ON["float16"], threads=1) as screener:
        assert screener.taps == SMALL
        found = screener.first_step_taps(prompts)
    assert 1e-6 < np.abs(found / expected - 1).max() < 0.02


def test_a_graph_that_stops(open_dir: Path, open_model: StableDiffusion) -> None:
    """At the last tap; the other has no taps then, and nothing of them."""
    manifest, bank = Bundle.open(open_dir).manifest, Bundle.open(open_dir).noise_bank()
    assert (outputs(open_dir, "taps"), outputs(open_dir, "screen")) == (
        ["taps"],
        ["magnitude"],
    )
    for graph, (taps, stop) in {"screen": ((), False), "taps": (SMALL, True)}.items():
        alone = ScreenGraph(open_model, torch.from_numpy(bank), 981, taps, stop=stop)
        assert manifest.flops[graph] == count_flops(alone, alone.one(open_model))
        held = weights(open_dir, graph)
        assert any("up_blocks.0.resnets.1." in name for name in held)
        assert any("up_blocks.0.resnets.2." in name for name in held) is not stop
    assert manifest.flops["taps"] < 0.85 * manifest.flops["screen"]
    for name, buffer in alone.named_buffers():
        if name.startswith("uncond"):  # what they are compared with
            assert is_held(buffer, held) is (name != "uncond")
            assert is_held(buffer, weights(open_dir, "screen")) is (name == "uncond")
    assert manifest.parity["taps"]["max_relative_error"] <= 1e-4


@pytest.mark.parametrize("tap", [0, 1])
def test_the_gate_looks_at_every_tap(open_dir: Path, open_model: StableDiffusion, tap: int) -> None:
    bank = torch.from_numpy(Bundle.open(open_dir).noise_bank())
    reference = measure_reference(
        open_model, bank, timestep=981, inference_steps=50, guidance=7.5, taps=SMALL
    )
    check_parity(open_dir, "float32", reference, Tolerance(1e-4))
    wrong = reference.screening.copy()
    wrong[0, 0, 1 + tap] *= 1.001
    with pytest.raises(ParityError, match=f"The taps graph differs .* in the tap {SMALL[tap]}"):
        check_parity(open_dir, "float32", replace(reference, screening=wrong), Tolerance(1e-4))
    wrong = reference.sampling.copy()
    wrong[1, 2, 1, 1 + tap] = np.nan
    with pytest.raises(ParityError, match=f"The step graph differs .* in the tap {SMALL[tap]}"):
        check_parity(open_dir, "float32", replace(reference, sampling=wrong), Tolerance(1e-4))
