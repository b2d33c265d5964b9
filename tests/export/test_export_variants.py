"""Bundles that screen at another timestep, on latents of another size.

Those of a model that predicts velocities; the other family's are in test_sdxl.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from predictions import SIZE, TAPS, T, of_velocities
from screening_support import PROMPTS, Changed

from mnemoscope import Detector, InputError
from mnemoscope_export import (
    ExportOptions,
    StableDiffusion,
    TorchBackend,
    export_bundle,
    magnitudes,
    noise_bank,
)
from mnemoscope_export.torch.flops import count_flops
from mnemoscope_export.torch.graphs import ScreenGraph
from mnemoscope_export.torch.reference import measure, measure_at
from mnemoscope_runtime import Screener, open_backend


@torch.no_grad()
def written_out(model: StableDiffusion, prompt: str, noise: torch.Tensor) -> list[float]:
    """The magnitude at T in eps units, then the taps: one UNet call at a time, plain hooks."""
    seen: list[torch.Tensor] = []

    def keep(found: torch.Tensor | tuple[torch.Tensor]) -> None:
        seen.append(found[0] if isinstance(found, tuple) else found)

    hooks = [
        model.unet.get_submodule(name).register_forward_hook(lambda *args: keep(args[2]))
        for name in TAPS
    ]
    velocities = [model.unet(noise, T, model.embed([p])[0]).sample for p in (prompt, "")]
    for hook in hooks:
        hook.remove()
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[T]
    outputs = [abar.sqrt() * v + (1 - abar).sqrt() * noise for v in velocities]
    return [float(torch.dist(a, b)) for a, b in (outputs, seen[::2], seen[1::2])]


@of_velocities
def test_what_is_measured_is_what_pytorch_says(screener: Screener, model: StableDiffusion) -> None:
    bank = noise_bank(3, (4, *SIZE), seed=7)
    np.testing.assert_array_equal(screener.bundle.noise_bank(), bank.numpy())
    found = np.dstack([screener.first_step(PROMPTS), screener.first_step_taps(PROMPTS)])
    expected = [[written_out(model, p, noise[None]) for noise in bank] for p in PROMPTS]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@of_velocities
def test_sampling_still_begins_at_its_first_timestep(
    screener: Screener, model: StableDiffusion
) -> None:
    assert (screener.timestep, screener.timesteps[0]) == (T, 981)
    bank = noise_bank(3, (4, *SIZE), seed=7)
    expected = magnitudes(model, PROMPTS, bank, steps=3).numpy()
    found = screener.trajectory(PROMPTS, steps=3)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    first = screener.first_step(["a photo of a cat"])
    assert (np.abs(first / found[:1, :, 0] - 1) > 0.01).all()  # another question


@of_velocities
def test_probes_are_of_the_screening_timestep(screener: Screener) -> None:
    manifest = screener.bundle.manifest
    assert (manifest.timestep, manifest.noise_bank.shape) == (T, (3, 4, *SIZE))
    assert manifest.parity["screen"]["max_relative_error"] <= 1e-4
    assert screener.probe() < 1e-4


@of_velocities
def test_smaller_latents_cost_less(screener: Screener, model: StableDiffusion) -> None:
    own = ScreenGraph(model, noise_bank(1, model.latent_shape, seed=7), T, TAPS)
    before, after = count_flops(own, own.one(model)), screener.bundle.manifest.flops
    text = after["text_encoder"]
    assert 0.3 < (after["screen"] - text) / (before - text) < 0.5  # 24 of 64 positions


@of_velocities
def test_rms_knows_the_size(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir, threads=1, uncalibrated="score") as detector:
        [found] = detector.screen(["a cat"])
        [scale] = detector.screener.x0_per_unit()
    assert found.rms == pytest.approx(scale * found.score / math.sqrt(4 * SIZE[0] * SIZE[1]))


@of_velocities
def test_its_taps_need_no_other_graph(bundle_dir: Path) -> None:
    backend = Changed(open_backend("onnxruntime", threads=1))
    with Detector.load(bundle_dir, backend=backend, detector="taps"):
        assert backend.loaded == ["screen"]


@of_velocities
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_other_backends_agree(
    bundle_dir: Path, model: StableDiffusion, screener: Screener, backend: str
) -> None:
    runs = TorchBackend(model) if backend == "torch" else backend
    with Screener.open(bundle_dir, backend=runs) as other:
        for look in (Screener.first_step, Screener.first_step_taps):
            np.testing.assert_allclose(
                look(other, PROMPTS), look(screener, PROMPTS), rtol=1e-4, atol=1e-4
            )
        np.testing.assert_allclose(
            other.trajectory(PROMPTS, steps=2),
            screener.trajectory(PROMPTS, steps=2),
            rtol=1e-4,
            atol=1e-4,
        )


def test_at_the_first_timestep_both_measures_are_one(model: StableDiffusion) -> None:
    bank = noise_bank(2, model.latent_shape, seed=1)
    expected = measure(model, PROMPTS[:2], bank, steps=1, taps=TAPS)[:, :, 0]
    found = measure_at(model, PROMPTS[:2], bank, 981, taps=TAPS)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("timestep", [1000, -1])
def test_timesteps_that_were_not_trained_on(
    model: StableDiffusion, tmp_path: Path, timestep: int
) -> None:
    stages: list[str] = []
    with pytest.raises(InputError, match=f"trained on timesteps 0 to 999, not {timestep}"):
        export_bundle(
            model, tmp_path / "out", ExportOptions(timestep=timestep), progress=stages.append
        )
    assert (stages, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize("size", [1, 5, (4, 7)])
def test_sizes_that_cannot_be_halved(
    model: StableDiffusion, tmp_path: Path, size: int | tuple[int, int]
) -> None:
    with pytest.raises(InputError, match=r"halves its latents to 1/2, so .*multiples of 2"):
        export_bundle(model, tmp_path / "out", ExportOptions(latent_size=size))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timestep": 1.5}, "timestep is 1.5"),
        ({"timestep": True}, "timestep is True"),
        ({"latent_size": 0}, "1 to 1024 positions a side, not 0"),
        ({"latent_size": 2048}, "1 to 1024 positions"),
        ({"latent_size": (8, -8)}, "not -8"),
        ({"latent_size": (8, 8.0)}, "latent_size is 8.0"),
        ({"latent_size": True}, "latent_size is True"),
        ({"latent_size": "8x8"}, r"is '8x8', neither .*\(height, width\)"),
        ({"latent_size": (4, 8, 8)}, "neither a whole number nor two"),
    ],
)
def test_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ExportOptions(**options)


def test_numpy_numbers_will_do() -> None:
    assert ExportOptions(latent_size=np.int64(6)).latent_sides == (6, 6)  # type: ignore[arg-type]
