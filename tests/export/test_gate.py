"""The gate judges as verdicts do: prompts that hardly matter are measured as well as can be."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from one_block import one_block
from pipelines import build_pipeline
from shared import Shared

from mnemoscope_export import ExportOptions, StableDiffusion, export_bundle, noise_bank
from mnemoscope_export.gate import check_parity
from mnemoscope_export.oracle import PROMPTS, Reference, Tolerance
from mnemoscope_export.torch.oracle import measure_reference
from mnemoscope_runtime import Bundle, ExportError, ParityError, Screener
from mnemoscope_runtime.agreement import UNIT, noise_norm
from mnemoscope_runtime.selection import fastest, try_backends

OPTIONS = ExportOptions(noises=2, seed=7, taps=["up_blocks.0.resnets.1"])
STRICT = Tolerance.of("float32")


def scaled(model: StableDiffusion, part: str, factor: float) -> StableDiffusion:
    """The model with the weights of a part of its UNet scaled."""
    unet = deepcopy(model.unet)
    for name, weight in unet.named_parameters():
        if part in name:
            weight.mul_(factor)
    return replace(model, unet=unet)


def reference(model: StableDiffusion) -> Reference:
    bank = noise_bank(2, model.latent_shape, 7)
    taps = list(OPTIONS.taps or ())
    return measure_reference(model, bank, timestep=981, inference_steps=50, guidance=7.5, taps=taps)


@pytest.fixture(scope="module")
def faint(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    """Its cross-attention is scaled to a thousandth: prompts hardly matter."""
    folder = tmp_path_factory.mktemp("faint")
    build_pipeline("epsilon", unet=one_block(), text_layers=1).save_pretrained(folder)
    return scaled(StableDiffusion.load(folder), "attn2.to_out", 1e-3)


@pytest.fixture(scope="module")
def bundle(faint: StableDiffusion, shared: Shared) -> Path:
    return shared("faint", lambda out: export_bundle(faint, out, OPTIONS))


def test_a_model_whose_prompts_hardly_matter(faint: StableDiffusion, bundle: Path) -> None:
    """The rounding of its predictions is more than 1e-4 of its magnitudes, in any library."""
    wanted = reference(faint).screening[..., 0]
    with Screener.open(bundle) as screener:
        found = screener.first_step(PROMPTS)
        off = np.abs(found - wanted)
        assert (off / wanted).max() > 2e-4
        assert off.max() < UNIT * noise_norm(4 * 8 * 8)
        assert screener.probe() < 1e-4
    figures = Bundle.open(bundle).manifest.parity
    assert max(each["max_relative_error"] for each in figures.values()) < 1e-4
    assert fastest(list(try_backends(bundle)), 1e-4).error is not None


@pytest.mark.parametrize(
    ("part", "factor"),
    [
        ("attn2.to_out", 1.02),  # a magnitude is wrong by a fiftieth
        ("attn2.to_v", 0.0),  # the prompt does nothing
        ("conv_out.weight", 1.02),
        ("up_blocks.0.resnets.0", 1.1),
    ],
)
def test_wrong_graphs_of_such_a_model_are_refused(
    faint: StableDiffusion, bundle: Path, part: str, factor: float
) -> None:
    other = reference(scaled(faint, part, factor))
    with pytest.raises(ParityError, match=r"differs from PyTorch by .*constraints\.txt.*--tole"):
        check_parity(bundle, "float32", other, STRICT)


def test_the_strict_bound_holds_where_prompts_matter(
    model: StableDiffusion, bundle_dir: Path
) -> None:
    """A graph 2e-4 off is refused: its prompts are above what float32 measures to 1e-4."""
    bank = noise_bank(3, model.latent_shape, 7)
    right = measure_reference(model, bank, timestep=981, inference_steps=50, guidance=7.5)
    assert right.screening.min() > right.floors[0]
    check_parity(bundle_dir, "float32", right, STRICT)
    off = replace(right, screening=right.screening * np.float32(1.0002))
    with pytest.raises(ParityError, match="The screen graph differs"):
        check_parity(bundle_dir, "float32", off, STRICT)


def test_taps_are_judged_by_their_own_size(faint: StableDiffusion) -> None:
    found = reference(faint)
    features: list[torch.Tensor] = []
    hook = faint.unet.get_submodule("up_blocks.0.resnets.1").register_forward_hook(
        lambda *args: features.append(args[2])
    )
    with torch.no_grad():
        bank = noise_bank(2, faint.latent_shape, 7)
        faint.predict(bank[:1], torch.tensor(981), faint.embed_empty())
    hook.remove()
    assert found.floors[1] == pytest.approx(UNIT * float(features[0].norm()) / 1e-4, rel=1e-5)


@pytest.mark.parametrize("factor", [0.0, 1e-4])
def test_prompts_that_move_nothing_are_nothing_to_screen(
    model: StableDiffusion, tmp_path: Path, factor: float
) -> None:
    dead = scaled(model, "attn2.to_out", factor)
    with pytest.raises(ExportError, match=r"Prompts hardly move .*cross-attention"):
        export_bundle(dead, tmp_path / "out", OPTIONS)
    assert list(tmp_path.iterdir()) == []
