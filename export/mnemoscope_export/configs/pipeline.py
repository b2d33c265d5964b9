"""A pipeline as a whole: its class, its parts, and how they fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mnemoscope_runtime.errors import ExportError

from .options import problems
from .parts import TEXT_ENCODER, scheduler_problems, tokenizer_problems, vae_problems
from .unet import inpaints, unet_problems

__all__ = [
    "INDEX",
    "PARTS",
    "check_configs",
    "check_unet",
    "check_vae",
    "class_of",
    "is_there",
    "is_xl",
    "refuse",
]

Config = Mapping[str, Any]

INDEX = "model_index.json"
PARTS: Mapping[str, str] = {
    "unet": "unet/config.json",
    "text_encoder": "text_encoder/config.json",
    "text_encoder_2": "text_encoder_2/config.json",
    "tokenizer": "tokenizer/tokenizer_config.json",
    "tokenizer_2": "tokenizer_2/tokenizer_config.json",
    "scheduler": "scheduler/scheduler_config.json",
    "vae": "vae/config.json",
}
"""The file that holds each part's config."""
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
# of what is drawn afterwards, or not a part at all
_HARMLESS = {
    "add_watermarker", "feature_extractor", "force_zeros_for_empty_prompt", "image_encoder",
    "requires_safety_checker", "safety_checker", "scheduler", "vae", "vae_decoder", "vae_encoder",
    "watermark",
}  # fmt: skip
_DRAWS = {  # from a prompt alone, with no more than a UNet's prediction and guidance
    f"{kind}Pipeline"
    for kind in (
        "StableDiffusion", "StableDiffusionImg2Img", "StableDiffusionInpaint", "StableDiffusionXL",
        "StableDiffusionXLImg2Img", "StableDiffusionXLInpaint",
    )
}  # fmt: skip
_ADVICE = (
    "Stable Diffusion 1.x, 2.x, XL base and 3, FLUX.1, PixArt-Sigma, Qwen-Image, Sana and their "
    "fine-tunes can be exported; docs/families.md lists what is covered."
)


def is_xl(index: Config) -> bool:
    """Whether a `model_index.json` is that of Stable Diffusion XL."""
    return is_there(index, "text_encoder_2")


def check_configs(
    configs: Mapping[str, Config], model: str, *, is_resized: bool = False, is_onnx: bool = False
) -> None:
    """Make sure that a pipeline is what a bundle can be made of, before its weights are read.

    Args:
        configs: The contents of the config files by the names of `PARTS`, those that there are;
            that of `model_index.json` by "model_index".
        model: What errors call the model.
        is_resized: The size of the latents is given, so the UNet's config need not say it.
        is_onnx: An ONNX export, whose index names ONNX Runtime's classes if it is there at all.

    Raises:
        ExportError: all that is in the way, each option with its file and value.
    """
    index = configs.get("model_index", {})
    xl, kind = is_xl(index), index.get("_class_name")
    if isinstance(kind, str) and kind not in _DRAWS and not is_onnx and not is_there(index, "unet"):
        # of no model with a UNet: what else is missing follows from that
        refuse(model, [f"{INDEX}: its pipeline is {kind!r:.80}, of no family that is known"])
    needed = ["unet", "text_encoder", "scheduler", *(["text_encoder_2"] if xl else [])]
    found = [] if is_onnx else [f"{INDEX}: {each}" for each in _index_problems(index, xl)]
    found += [f"{PARTS[name]} is missing" for name in needed if name not in configs]
    by_part = {
        "unet": lambda config: unet_problems(
            config, is_xl=xl, is_resized=is_resized, may_inpaint=not is_onnx
        ),
        "text_encoder": lambda config: problems(TEXT_ENCODER, config),
        "text_encoder_2": lambda config: problems(TEXT_ENCODER, config),
        "tokenizer": tokenizer_problems,
        "tokenizer_2": tokenizer_problems,
        "scheduler": scheduler_problems,
    }
    for name, look in by_part.items():
        found += (
            [f"{PARTS[name]}: {each}" for each in look(configs[name])] if name in configs else []
        )
    if inpaints(configs.get("unet", {})) and not is_onnx:
        found += _inpainting_problems(configs)
    if all(name in configs for name in needed):
        found += _joint_problems(configs, xl)
    refuse(model, found)


def check_unet(config: Config, model: str, *, xl: bool) -> None:
    """Make sure that graphs can be made of a UNet, whichever way it came into memory.

    Raises:
        ExportError: all options that are in the way.
    """
    refuse(model, [f"UNet: {each}" for each in unet_problems(config, is_xl=xl, is_resized=True)])


def check_vae(config: Config, model: str, kind: str, *, shifts: bool) -> None:
    """Make sure that a VAE's latents are what its decoder takes but for what a pipeline makes even.

    Args:
        config: The contents of its config.
        model: Its model, for messages.
        kind: Name of the class that the family's pipeline has.
        shifts: Whether that pipeline shifts latents beside scaling them.

    Raises:
        ExportError: all options that are in the way.
    """
    found = vae_problems(config, kind, shifts=shifts)
    refuse(f"The VAE of {model}", [f"{PARTS['vae']}: {each}" for each in found])


def refuse(model: str, found: list[str]) -> None:
    """Raise what is in the way, if anything is."""
    if found:
        lines = ";".join(f"\n  {each}" for each in found)
        raise ExportError(f"{model} cannot be used:{lines}.\n{_ADVICE}")


def _index_problems(index: Config, xl: bool) -> list[str]:
    found = []
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in _DRAWS:
        found.append(
            f"its pipeline is {kind!r:.80}, whose pictures come of more than a prompt, or of "
            f"another kind of model (must be one of {', '.join(sorted(_DRAWS))})"
        )
    for name, classes in _CLASSES.items():
        if name.endswith("_2") and not xl:
            continue
        if not is_there(index, name):
            hint = " (as in XL's refiner)" if xl and "_2" not in name and name != "unet" else ""
            found.append(f"it has no {name}{hint}")
        elif class_of(index, name) not in classes:
            kind = class_of(index, name)
            found.append(f"{name} is of the class {kind!r:.80} (must be {' or '.join(classes)})")
    if index.get("requires_aesthetics_score"):
        found.append("requires_aesthetics_score is true (as in XL's refiner)")
    known = {*_CLASSES, *_HARMLESS, "requires_aesthetics_score"}
    for name in sorted(index):
        if name not in known and not name.startswith("_") and is_there(index, name):
            found.append(f"it has a part {name}, which is not known here")
    return found


def _inpainting_problems(configs: Mapping[str, Config]) -> list[str]:
    """Of what makes the latents of a masked picture."""
    channels = configs["unet"].get("out_channels", 4)
    if "vae" not in configs:
        return [f"{PARTS['vae']} is missing: inpainting takes the latents of a masked picture"]
    if (found := configs["vae"].get("latent_channels", 4)) != channels:
        return [f"{PARTS['vae']}: latent_channels is {found} (must be out_channels, {channels})"]
    return []


def _joint_problems(configs: Mapping[str, Config], xl: bool) -> list[str]:
    """What does not fit together."""
    unet, first = configs["unet"], configs["text_encoder"]
    second = configs["text_encoder_2"] if xl else {}
    widths = [first.get("hidden_size", 512), *([second.get("hidden_size", 512)] if xl else [])]
    context = unet.get("cross_attention_dim", 1280)
    found = []
    if all(isinstance(width, int) for width in [*widths, context]) and sum(widths) != context:
        found.append(
            f"{PARTS['unet']}: cross_attention_dim is {context} (must be the hidden_size of what "
            f"embeds prompts, {' + '.join(map(str, widths))})"
        )
    if xl:
        size, times = (
            unet.get(name)
            for name in ("projection_class_embeddings_input_dim", "addition_time_embed_dim")
        )
        pooled = second.get("projection_dim", 512)
        numbers = all(isinstance(each, int) for each in (size, times, pooled))
        if numbers and size != 6 * times + pooled:  # type: ignore[operator]
            found.append(
                f"{PARTS['unet']}: projection_class_embeddings_input_dim is {size} (must be 6 x "
                f"addition_time_embed_dim + text_encoder_2's projection_dim, {6 * times + pooled}; "  # type: ignore[operator]
                "XL's refiner is told five numbers, not six)"
            )
        if first.get("max_position_embeddings", 77) != second.get("max_position_embeddings", 77):
            found.append("the two text encoders differ in max_position_embeddings")
    return found


def is_there(index: Config, name: str) -> bool:
    """[null, null] is a part that was left out."""
    value = index.get(name)
    return value not in (None, False, [None, None], (None, None))


def class_of(index: Config, name: str) -> Any:
    """The class of a part."""
    value = index[name]
    return value[1] if isinstance(value, list | tuple) and len(value) == 2 else value
