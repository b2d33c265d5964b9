"""Stable Diffusion 3's pipeline as a whole, and its transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mnemoscope_runtime.errors import InputError

from .flow import flow_problems, t5_problems
from .layout import CLIP_TOKENIZER, T5_TOKENIZER, Layout, file_of
from .options import Option, only, problems, taken, unequal, whole
from .parts import TEXT_ENCODER, tokenizer_problems
from .pipeline import is_there, refuse

__all__ = ["LAYOUT", "TRANSFORMER", "check_configs", "check_sides", "has_t5"]

Config = Mapping[str, Any]

# diffusers' SD3Transformer2DModel
TRANSFORMER: Mapping[str, Option] = {
    "attention_head_dim": whole(64),
    "caption_projection_dim": whole(1152),
    "dual_attention_layers": Option(
        lambda v: (
            isinstance(v, list | tuple)
            and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in v)
        ),
        "a list of whole numbers",
        (),
    ),
    "in_channels": whole(16),
    "joint_attention_dim": whole(4096),
    "num_attention_heads": whole(18),
    "num_layers": whole(18),
    "out_channels": whole(16),
    "patch_size": whole(2),
    "pooled_projection_dim": whole(2048),
    "pos_embed_max_size": whole(96),
    "qk_norm": only(None, "rms_norm"),
    "sample_size": whole(128),
}


def _transformer(config: Config) -> list[str]:
    return problems(TRANSFORMER, config)


def _clip(config: Config) -> list[str]:
    return problems(TEXT_ENCODER, config)


_CLIP = ("CLIPTextModelWithProjection",)
LAYOUT = Layout(
    draws=tuple(f"StableDiffusion3{kind}Pipeline" for kind in ("", "Img2Img", "Inpaint")),
    classes={
        "transformer": ("SD3Transformer2DModel",),
        "text_encoder": _CLIP,
        "text_encoder_2": _CLIP,
        "text_encoder_3": ("T5EncoderModel",),
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": CLIP_TOKENIZER,
        "tokenizer_3": T5_TOKENIZER,
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
    },
    looks={
        "transformer": _transformer,
        "text_encoder": _clip,
        "text_encoder_2": _clip,
        "text_encoder_3": t5_problems,
        "scheduler": flow_problems,
    },
    tokenizers=dict.fromkeys(("tokenizer", "tokenizer_2"), tokenizer_problems),
    unused=("feature_extractor", "image_encoder", "vae"),
)


def has_t5(index: Config) -> bool:
    """Whether there is a third text encoder, which may be left out."""
    return is_there(index, "text_encoder_3")


def check_configs(configs: Mapping[str, Config], model: str) -> None:
    """Make sure that a pipeline is what a bundle can be made of, before its weights are read.

    Args:
        configs: The contents of the config files of `LAYOUT`, those that there are; that of
            `model_index.json` by "model_index".
        model: What errors call the model.

    Raises:
        ExportError: all that is in the way, each option with its file and value.
    """
    whole = has_t5(configs.get("model_index", {}))
    found = LAYOUT.problems(configs, () if whole else ("text_encoder_3", "tokenizer_3"))
    refuse(model, found or _joint_problems(configs, with_t5=whole))


def check_sides(config: Config, model: str, size: tuple[int, int]) -> None:
    """Make sure that a transformer takes latents of a size.

    Raises:
        InputError: they are no whole patches, or more than there are positions for.
    """
    patch = int(config.get("patch_size", 2))
    most = patch * int(config.get("pos_embed_max_size", 96))
    if any(side % patch or not patch <= side <= most for side in size):
        raise InputError(
            f"The transformer of {model} cuts its latents into patches of {patch}x{patch}, "
            f"{most // patch} a side at most, so {size[0]}x{size[1]} do not fit. Give multiples of "
            f"{patch}, up to {most}."
        )


def _joint_problems(configs: Mapping[str, Config], *, with_t5: bool) -> list[str]:
    """What does not fit together."""
    own = taken(TRANSFORMER, configs["transformer"])
    clips = configs["text_encoder"], configs["text_encoder_2"]
    widths = [each.get("hidden_size", 512) for each in clips]
    pooled = [each.get("projection_dim", 512) for each in clips]
    heads = own["num_attention_heads"] * own["attention_head_dim"]
    context = own["joint_attention_dim"]
    patches = own["sample_size"] // own["patch_size"]
    t5 = configs["text_encoder_3"].get("d_model") if with_t5 else context
    found = unequal(
        own,
        ("out_channels", "in_channels", own["in_channels"]),
        ("caption_projection_dim", "num_attention_heads x attention_head_dim", heads),
        ("pooled_projection_dim", "the sum of the CLIPs' projection_dim", sum(pooled)),
        ("joint_attention_dim", "T5's d_model", t5),
    )
    if sum(widths) > context:
        found.append(
            f"joint_attention_dim is {context} (must be at least the sum of the CLIPs' "
            f"hidden_size, {sum(widths)})"
        )
    if own["sample_size"] % own["patch_size"] or patches > own["pos_embed_max_size"]:
        found.append(
            f"sample_size is {own['sample_size']} (must be whole patches, no more of them than "
            f"pos_embed_max_size, {own['pos_embed_max_size']})"
        )
    if clips[0].get("max_position_embeddings", 77) != clips[1].get("max_position_embeddings", 77):
        return [*_placed(found), "the two CLIPs differ in max_position_embeddings"]
    return _placed(found)


def _placed(found: list[str]) -> list[str]:
    return [f"{file_of('transformer')}: {each}" for each in found]
