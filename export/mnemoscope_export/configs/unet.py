"""Options of a UNet2DConditionModel, one by one (diffusers, `unet_2d_condition.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import Option, flag, free, names, number, off, only, problems, shown, whole

__all__ = ["UNET", "inpaints", "sample_size", "unet_problems"]

_BOTH = "CrossAttnDownBlock2D", "DownBlock2D"

# What every family shares. Graphs run diffusers' own blocks, so what a block takes care of by
# itself may have any value; what the UNet does around them must be what `folding` does.
UNET: Mapping[str, Option] = {
    "act_fn": only("silu", "swish", "mish", "gelu", "relu"),
    "addition_embed_type": only(None),
    "addition_embed_type_num_heads": free(64),  # of the addition_embed_type "text"
    "addition_time_embed_dim": free(),  # of "text_time"
    "attention_head_dim": whole(8, lists=True),
    "attention_type": only("default"),
    "block_out_channels": whole((320, 640, 1280, 1280), lists=True),
    "center_input_sample": off(),
    "class_embed_type": only(None),
    "class_embeddings_concat": off(),
    "conv_in_kernel": whole(3, odd=True),
    "conv_out_kernel": whole(3, odd=True),
    "cross_attention_dim": whole(1280),
    "cross_attention_norm": only(None),
    "down_block_types": names(*_BOTH, default=(_BOTH[0],) * 3 + (_BOTH[1],)),
    "downsample_padding": only(1, 0),
    "dropout": number(0.0),
    "dual_cross_attention": off(),
    "encoder_hid_dim": only(None),
    "encoder_hid_dim_type": only(None),
    "flip_sin_to_cos": flag(default=True),
    "freq_shift": number(0),
    "in_channels": whole(4),
    "layers_per_block": whole(2, lists=True),
    "mid_block_only_cross_attention": off(default=None),
    "mid_block_scale_factor": number(1),
    "mid_block_type": only("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "norm_eps": number(1e-5),
    "norm_num_groups": whole(32),
    "num_attention_heads": only(None),
    "num_class_embeds": only(None),
    "only_cross_attention": Option(
        lambda value: value is False or (isinstance(value, list | tuple) and not any(value)),
        "false",
        default=False,
    ),
    "out_channels": whole(4),
    "projection_class_embeddings_input_dim": free(),  # of "text_time", or of a class embedding
    "requires_aesthetics_score": off(),  # Optimum's note, as is the text encoder's width
    "resnet_out_scale_factor": only(1.0),
    "resnet_skip_time_act": off(),
    "resnet_time_scale_shift": only("default"),
    "reverse_transformer_layers_per_block": whole(None, lists=True, nulls=True),
    "sample_size": free(),  # see `unet_problems`
    "text_encoder_projection_dim": free(),
    "time_cond_proj_dim": only(None),
    "time_embedding_act_fn": only(None),
    "time_embedding_dim": whole(None, nulls=True),
    "time_embedding_type": only("positional"),
    "timestep_post_act": only(None),
    "transformer_layers_per_block": whole(1, lists=True),
    "up_block_types": names(
        "UpBlock2D", "CrossAttnUpBlock2D", default=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    ),
    "upcast_attention": flag(default=False),
    "use_linear_projection": flag(default=False),
    # kept by diffusers' EMAModel beside the weights that it averaged
    **dict.fromkeys(
        ["decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step"],
        free(),
    ),
    **dict.fromkeys(["use_ema_warmup", "model_cls", "model_config"], free()),
}
_XL: Mapping[str, Option] = {
    **UNET,
    "addition_embed_type": only("text_time", default=None),
    "addition_time_embed_dim": whole(None),
    "projection_class_embeddings_input_dim": whole(None),
    # blocks of the first level may have no attention at all
    "transformer_layers_per_block": whole(1, 0, lists=True),
    "reverse_transformer_layers_per_block": whole(None, 0, lists=True, nulls=True),
}
_WHY = {
    "time_cond_proj_dim": "its guidance is an input, as in LCM: there is no unconditional branch",
    "num_class_embeds": "it is told a class or a noise level too, as upscalers are",
    "class_embed_type": "it is told a class, a noise level or an image too",
    "encoder_hid_dim_type": "it is told more than a prompt, as with IP-Adapter, IF and Kandinsky",
    "addition_embed_type": "what it is told beside the prompt is not known",
    "attention_type": "it is told of boxes too, as in GLIGEN",
}


def unet_problems(
    config: Mapping[str, Any],
    *,
    is_xl: bool,
    is_resized: bool = False,
    may_inpaint: bool = True,
) -> list[str]:
    """What in a UNet's config is not covered.

    Args:
        config: The contents of `unet/config.json`, or a model's `config`.
        is_xl: Of Stable Diffusion XL; 1.x or 2.x otherwise.
        is_resized: The size of the latents is given, so the config need not say it.
        may_inpaint: A mask and a masked picture may be among its inputs.
    """
    found = [
        f"{each}; {_WHY[name]}" if (name := each.split(" ", 1)[0]) in _WHY else each
        for each in problems(_XL if is_xl else UNET, config)
    ]
    inputs, outputs = (config.get(name, 4) for name in ("in_channels", "out_channels"))
    if inputs != outputs and not (may_inpaint and inpaints(config)):
        found.append(
            f"in_channels is {inputs} (must be out_channels, {outputs}): the UNet is given more "
            "than noise, as in upscaling and instructed editing"
        )
    if not is_xl and _first_block(config) == _BOTH[1]:
        found.append("down_block_types[0] is 'DownBlock2D' (must be 'CrossAttnDownBlock2D')")
    if not is_resized:
        try:
            sample_size(config)
        except (TypeError, ValueError):
            found.append(
                f"sample_size is {shown(config.get('sample_size'))}, so the size of its latents is "
                "not known; give it with --latent-size (latent_size): 64 for pictures of 512 pixels"
            )
    return found


def inpaints(config: Mapping[str, Any]) -> bool:
    """Whether a UNet is given a mask and the latents of a masked picture beside its own."""
    inputs, outputs = (config.get(name, 4) for name in ("in_channels", "out_channels"))
    return isinstance(outputs, int) and bool(inputs == 2 * outputs + 1)


def sample_size(config: Mapping[str, Any]) -> tuple[int, int]:
    """(H, W) of the latents that a pipeline of this UNet draws.

    Before 0.9.0 diffusers wrote 32 where it meant 64, and its pipeline still corrects that.

    Raises:
        ValueError, TypeError: the config does not say.
    """
    size: Any = config.get("sample_size")
    if isinstance(size, int) and size < 64 and _is_old(str(config.get("_diffusers_version", "1"))):
        size = 64
    height, width = (size, size) if isinstance(size, int) else size
    if not all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in (height, width)):
        raise ValueError
    return height, width


def _first_block(config: Mapping[str, Any]) -> Any:
    blocks = config.get("down_block_types", _BOTH)
    return blocks[0] if isinstance(blocks, list | tuple) and blocks else None


def _is_old(version: str) -> bool:
    """Before diffusers 0.9."""
    numbers = [int(n) if n.isdecimal() else 0 for n in version.split(".")[:2]]
    return numbers < [0, 9]
