from __future__ import annotations

import pytest
import torch
from pipelines import build_pipeline
from predictions import both_models

from mnemoscope import ExportError
from mnemoscope_export import StableDiffusion, noise_bank
from mnemoscope_export.models.folding import FoldedUNet, without_batch_limit

pytestmark = pytest.mark.numeric


@both_models
@torch.no_grad()
@pytest.mark.parametrize("timestep", [981, 1])
def test_folded_equals_whole(model: StableDiffusion, timestep: int) -> None:
    noises = noise_bank(3, model.latent_shape, seed=0)
    (context,) = model.embed(["a cat", "google icon of rocket"])
    folded = FoldedUNet(model.unet, noises, timestep)
    found = folded((context,), torch.tensor([2, 0])).unflatten(0, (2, 2))
    for row in range(2):
        for column, noise in enumerate((2, 0)):
            whole = model.unet(noises[noise : noise + 1], timestep, context[row : row + 1]).sample
            torch.testing.assert_close(found[row, column][None], whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_model_is_left_as_it_was(model: StableDiffusion) -> None:
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    FoldedUNet(model.unet, noise_bank(1, model.latent_shape, seed=0), 981)
    after = model.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def test_weights_are_shared_not_copied(model: StableDiffusion) -> None:
    folded = FoldedUNet(model.unet, noise_bank(1, model.latent_shape, seed=0), 981)
    own = {p.data_ptr() for p in model.unet.parameters()}
    new = [p for p in folded.unet.parameters() if p.data_ptr() not in own]
    assert 0 < sum(p.numel() for p in new) < 0.02 * sum(p.numel() for p in model.unet.parameters())


@torch.no_grad()
def test_no_batch_limit(model: StableDiffusion) -> None:
    """diffusers takes another path from 64 samples on; ours gives the same for all of them."""
    x = noise_bank(65, model.latent_shape, seed=0)
    context = model.embed(["a"])[0].expand(65, -1, -1)
    plain = without_batch_limit(model.unet)
    torch.testing.assert_close(
        plain(x, 981, context).sample, model.unet(x, 981, context).sample, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("down_block_types", ("DownBlock2D", "CrossAttnDownBlock2D")),
        ("addition_embed_type", "text_time"),
        ("resnet_time_scale_shift", "scale_shift"),
    ],
)
def test_other_layouts_are_refused(option: str, value: object) -> None:
    unet = build_pipeline("epsilon").unet
    unet.register_to_config(**{option: value})
    with pytest.raises(ExportError, match=option.split("[")[0]):
        FoldedUNet(unet, noise_bank(1, (4, 8, 8), seed=0), 981)
