"""Stable Diffusion 3's pipeline as a whole, and its transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mnemoscope_runtime.errors import InputError

from .flow import flow_problems, t5_problems
from .options import Option, only, problems, whole
from .parts import TEXT_ENCODER, tokenizer_problems
from .pipeline import INDEX, class_of, is_there, refuse

__all__ = ["PARTS", "TRANSFORMER", "check_configs", "check_sides", "has_t5", "is_sd3"]

Config = Mapping[str, Any]

PARTS: Mapping[str, str] = {
    "transformer": "transformer/config.json",
    "text_encoder": "text_encoder/config.json",
    "text_encoder_2": "text_encoder_2/config.json",
    "text_encoder_3": "text_encoder_3/config.json",
    "tokenizer": "tokenizer/tokenizer_config.json",
    "tokenizer_2": "tokenizer_2/tokenizer_config.json",
    "scheduler": "scheduler/scheduler_config.json",
}
_DRAWS = tuple(f"StableDiffusion3{kind}Pipeline" for kind in ("", "Img2Img", "Inpaint"))
_CLIP = ("CLIPTextModelWithProjection",)
_TOKENIZER = ("CLIPTokenizer", "CLIPTokenizerFast")
_T5_TOKENIZER = ("T5Tokenizer", "T5TokenizerFast")
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "transformer": ("SD3Transformer2DModel",),
    "text_encoder": _CLIP,
    "text_encoder_2": _CLIP,
    "text_encoder_3": ("T5EncoderModel",),
    "tokenizer": _TOKENIZER,
    "tokenizer_2": _TOKENIZER,
    "tokenizer_3": _T5_TOKENIZER,
    "scheduler": ("FlowMatchEulerDiscreteScheduler",),
}
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_UNUSED = ("feature_extractor", "image_encoder", "vae")

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


def is_sd3(index: Config) -> bool:
    """Whether a `model_index.json` is that of Stable Diffusion 3."""
    return str(index.get("_class_name")).startswith("StableDiffusion3")


def has_t5(index: Config) -> bool:
    """Whether there is a third text encoder, which may be left out."""
    return is_there(index, "text_encoder_3")


def check_configs(configs: Mapping[str, Config], model: str) -> None:
    """Make sure that a pipeline is what a bundle can be made of, before its weights are read.

    Args:
        configs: The contents of the config files by the names of `PARTS`, those that there are;
            that of `model_index.json` by "model_index".
        model: What errors call the model.

    Raises:
        ExportError: all that is in the way, each option with its file and value.
    """
    index = configs.get("model_index", {})
    left_out = () if has_t5(index) else ("text_encoder_3", "tokenizer_3")
    wanted = [name for name in _CLASSES if name not in left_out]
    found = [f"{INDEX}: {each}" for each in _index_problems(index, wanted)]
    looks = {
        "transformer": lambda config: problems(TRANSFORMER, config),
        "text_encoder": lambda config: problems(TEXT_ENCODER, config),
        "text_encoder_2": lambda config: problems(TEXT_ENCODER, config),
        "text_encoder_3": t5_problems,
        "scheduler": flow_problems,
    }
    needed = [name for name in looks if name in wanted]
    found += [f"{PARTS[name]} is missing" for name in needed if name not in configs]
    for name, look in {**looks, **dict.fromkeys(_TOKENIZERS, tokenizer_problems)}.items():
        if name in configs and name not in left_out:
            found += [f"{PARTS[name]}: {each}" for each in look(configs[name])]
    if not found:
        found += _joint_problems(configs, with_t5=not left_out)
    refuse(model, found)


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


def _index_problems(index: Config, wanted: list[str]) -> list[str]:
    found = []
    kind = index.get("_class_name")
    if kind not in _DRAWS:
        found.append(f"its pipeline is {kind!r:.80} (must be one of {', '.join(_DRAWS)})")
    for name in wanted:
        if not is_there(index, name):
            found.append(f"it has no {name}")
        elif (own := class_of(index, name)) not in _CLASSES[name]:
            known = " or ".join(_CLASSES[name])
            found.append(f"{name} is of the class {own!r:.80} (must be {known})")
    for name in sorted(index):
        known_name = name in wanted or name in _UNUSED or name.startswith("_")
        if not known_name and is_there(index, name):
            found.append(f"it has a part {name}, which is not known here")
    return found


def _joint_problems(configs: Mapping[str, Config], *, with_t5: bool) -> list[str]:
    """What does not fit together."""
    own = {name: configs["transformer"].get(name, o.default) for name, o in TRANSFORMER.items()}
    clips = configs["text_encoder"], configs["text_encoder_2"]
    widths = [each.get("hidden_size", 512) for each in clips]
    pooled = [each.get("projection_dim", 512) for each in clips]
    heads = own["num_attention_heads"] * own["attention_head_dim"]
    context = own["joint_attention_dim"]
    patches = own["sample_size"] // own["patch_size"]
    found = [
        f"{option} is {own[option]} (must be {words}, {value})"
        for option, words, value in (
            ("out_channels", "in_channels", own["in_channels"]),
            ("caption_projection_dim", "num_attention_heads x attention_head_dim", heads),
            ("pooled_projection_dim", "the sum of the CLIPs' projection_dim", sum(pooled)),
            *(
                [("joint_attention_dim", "T5's d_model", configs["text_encoder_3"].get("d_model"))]
                if with_t5
                else []
            ),
        )
        if own[option] != value
    ]
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
    return [f"{PARTS['transformer']}: {each}" for each in found]
