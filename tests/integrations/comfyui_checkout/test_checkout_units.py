"""In a real checkout of ComfyUI: models of other families, in the units that theirs are.

The witnesses are diffusers' own networks, with the weights that ComfyUI was given.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checkout_support import DOG, TOWER, needs_checkout, noise_of, reporting, sample, seen

from benchmarks.comfyui.checkout import comfy_flow, comfy_model

pytestmark = needs_checkout


def test_velocities_and_flows_are_read_in_their_units(pipe: Any, comfy: tuple[Any, Any]) -> None:
    _, clip = comfy
    for kind in ("V_PREDICTION", "FLOW"):
        model = comfy_model(pipe.unet, kind)
        scheduler = "simple" if kind == "FLOW" else "normal"
        guard = reporting((model, clip))
        found = seen((model, clip), [TOWER], guard, scheduler=scheduler)
        sampling = model.model.model_sampling
        if kind == "FLOW":
            sigma, t, x, scale = 1.0, 1000.0, noise_of(1), 1.0  # sigma
        else:
            sigma, t, x = float(sampling.sigma_max), 999.0, noise_of(1)
            scale = 1 / (1 + sigma**2) ** 0.5  # sqrt(abar)
        with torch.no_grad():
            embeds = pipe.encode_prompt(TOWER, "cpu", 1, True)
            both = pipe.unet(
                x.repeat(2, 1, 1, 1), t, encoder_hidden_states=torch.cat(embeds)
            ).sample
        wanted = scale * float((both[0] - both[1]).norm())
        assert found.score == pytest.approx(wanted, rel=1e-4), kind


class Drawn:
    """A CLIP whose embeddings are drawn at random: a text's are always the same."""

    def __init__(self, like: Any, tokens: int, wide: int, pooled: int) -> None:
        self.patcher, self.tokenizer, self.layer_idx = like.patcher, like.tokenizer, None
        self.tokenizer_options: dict[str, Any] = {}
        self._shapes = (1, tokens, wide), (1, pooled)

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> Any:
        generator = torch.Generator().manual_seed(len(text))
        embeds, pooled = (torch.randn(shape, generator=generator) for shape in self._shapes)
        return [[embeds, {"pooled_output": pooled}]]


def test_xl_is_told_pooled_embeddings_and_sizes(comfy: tuple[Any, Any]) -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(32, 64), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2), cross_attention_dim=64, attention_head_dim=(2, 4),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + 24,
    ).eval()  # fmt: skip
    model, clip = comfy_model(unet, "EPS"), Drawn(comfy[1], 77, 64, 24)
    told = [clip.encode_from_tokens_scheduled(text)[0] for text in (DOG, "")]
    embeds = torch.cat([each[0] for each in told])
    pooled = torch.cat([each[1]["pooled_output"] for each in told])
    noise = noise_of(1)[:, :4]
    watch = reporting((model, clip))
    conds = [[[embeds, {"pooled_output": pooled}]] for embeds, pooled in zip(
        embeds.split(1), pooled.split(1), strict=True
    )]  # fmt: skip
    found = watch.sampled(sample(watch.attach(model), noise, *conds))
    with torch.no_grad():
        both = unet(
            noise.repeat(2, 1, 1, 1), 999.0, encoder_hidden_states=embeds,
            added_cond_kwargs={
                "text_embeds": pooled, "time_ids": torch.tensor([[64, 64, 0, 0, 64, 64.0]] * 2)
            },
        ).sample  # fmt: skip
    assert found.score == pytest.approx(float((both[0] - both[1]).norm()), rel=1e-3)
    other = [[told[1][0], {"pooled_output": told[0][1]["pooled_output"]}]]
    unmeasured = watch.sampled(sample(watch.attach(model), noise, conds[0], other))
    assert "not the guard's" in unmeasured.reason


def test_stable_diffusion_3_is_read_in_units_of_the_picture(comfy: tuple[Any, Any]) -> None:
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=2,
        attention_head_dim=64, num_attention_heads=2, joint_attention_dim=72,
        caption_projection_dim=128, pooled_projection_dim=48, pos_embed_max_size=6,
    ).eval()  # fmt: skip
    model, clip = comfy_flow(transformer), Drawn(comfy[1], 77, 72, 48)
    told = [clip.encode_from_tokens_scheduled(text) for text in (DOG, "")]
    watch = reporting((model, clip), steps=2)
    seen: list[tuple[float, torch.Tensor]] = []
    guarded_model = watch.attach(model)

    def keep(args: Any) -> Any:
        seen.append((float(args["sigma"][0]), args["input"].clone()))
        return args["denoised"]

    found = watch.sampled(sample(guarded_model, noise_of(1), *told, scheduler="simple"))
    model = model.clone()
    model.set_model_sampler_post_cfg_function(keep)
    sample(model, noise_of(1), *told, scheduler="simple")
    wanted = []
    for sigma, x in seen[:2]:
        with torch.no_grad():
            both = transformer(
                x.repeat(2, 1, 1, 1), torch.cat([each[0][0] for each in told]),
                torch.cat([each[0][1]["pooled_output"] for each in told]),
                torch.tensor([sigma * 1000] * 2),
            ).sample  # fmt: skip
        wanted.append(sigma * float((both[0] - both[1]).norm()))
    assert seen[0][0] == 1.0
    assert found.score == pytest.approx(sum(wanted) / 2, rel=1e-3)
