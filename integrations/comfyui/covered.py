"""What a guard can tell the effect of in a request to ComfyUI; all else is refused by its name.

ComfyUI's objects are looked at by the names of their attributes, and nothing of it is imported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

__all__ = [
    "FAMILIES",
    "Own",
    "check_conds",
    "check_model",
    "check_options",
    "named",
    "one_sigma",
]

# classes of ComfyUI's models: Stable Diffusion 1.x and 2.x, XL base, 3 and 3.5
FAMILIES = ("BaseModel", "SDXL", "SD3")
_KEEPERS = ("ModelPatcher", "ModelPatcherDynamic")  # weights are as in the file, LoRA beside them
# what a conditioning may hold: embeddings, what follows from them, and sizes
_CONDITIONS = {
    "cross_attn",
    "pooled_output",
    "model_conds",
    "uuid",
    "prompt_type",
    "attention_mask",
    "width",
    "height",
    "crop_w",
    "crop_h",
    "target_width",
    "target_height",
}
_OPTIONS = {"transformer_options", "disable_cfg1_optimization", "to_load_options"}
_COMBINING = ("sampler_cfg_function", "sampler_post_cfg_function")  # come after what is read
_PASSED_ON = {"sample_sigmas", "wrappers", "callbacks"}
_PATCHES = ("model_sampling", "manual_cast_dtype")  # both are in the setting

Own = Callable[..., Any]


def named(thing: Any) -> str:
    """What to call a function or an object in a message."""
    if isinstance(thing, functools.partial):
        thing = thing.func
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    return name.replace(".<locals>", "")


def check_model(patcher: Any) -> None:
    """Refuse a model whose predictions a guard cannot tell.

    Args:
        patcher: ComfyUI's MODEL.

    Raises:
        InputError: it is of another family, quantised or patched in a way that no table knows.
    """
    found = next(_strange_model(patcher), None)
    if found is not None:
        raise InputError(
            f"The guard cannot tell what this model predicts: {found}. No calibration covers that. "
            "Take it out, or screen the prompt with a bundle before it is drawn."
        )


def _strange_model(patcher: Any) -> Iterator[str]:
    model = patcher.model
    family = type(model).__name__
    if type(patcher).__name__ not in _KEEPERS:
        yield f"its weights are kept by {type(patcher).__name__}"
    if family not in FAMILIES:
        yield f"it is of the family {family}, and known are {', '.join(FAMILIES)}"
    if getattr(model, "concat_keys", ()):
        yield f"it is told a picture beside the noise ({', '.join(model.concat_keys)})"
    others = [name for name in patcher.object_patches if name not in _PATCHES]
    if others:
        yield f"parts of it were replaced ({', '.join(others)})"
    for name in ("weight_wrapper_patches", "hook_patches", "injections", "additional_models"):
        if held := getattr(patcher, name, None):
            yield f"it has {name.replace('_', ' ')} ({', '.join(map(str, held))})"


def check_options(options: Mapping[str, Any], own: Sequence[Own], steps: int) -> None:
    """Refuse what changes predictions, or where later steps go if they are looked at.

    Args:
        options: ComfyUI's `model_options`, as of sampling.
        own: Functions of the guard itself.
        steps: That the guard looks at.

    Raises:
        InputError: there is something.
    """
    found = next(_strange_options(options, own, steps), None)
    if found is not None:
        raise InputError(
            f"The guard cannot tell what this model predicts: {found}. No calibration covers that. "
            "Take the node out that does it, or screen the prompt with a bundle before it is drawn."
        )


def _strange_options(options: Mapping[str, Any], own: Sequence[Own], steps: int) -> Iterator[str]:
    for name, held in options.items():
        if name == "sampler_pre_cfg_function":
            for each in held:
                if each not in own:
                    yield f"{named(each)} changes predictions before guidance ({name})"
        elif name in _COMBINING:
            if held and steps > 1:
                each = held[0] if isinstance(held, list) else held
                yield (
                    f"{named(each)} changes where the sampler goes ({name}), and the guard looks "
                    f"at {steps} steps (looking at the first alone it would not matter)"
                )
        elif name not in _OPTIONS and held:
            yield f"{name} is set ({named(held)})"
    passed: Mapping[str, Any] = options.get("transformer_options", {})
    for name, held in passed.items():
        if name not in _PASSED_ON and held:
            yield f"transformer_options holds {name} ({named(_first(held))})"
    for kind in ("wrappers", "callbacks"):
        for place, by_key in passed.get(kind, {}).items():
            for each in (each for some in by_key.values() for each in some):
                if each not in own:
                    yield f"{named(each)} is one of its {kind} ({place})"


def _first(held: Any) -> Any:
    """What stands first in lists within dictionaries."""
    while isinstance(held, Mapping | list | tuple) and held:
        held = next(iter(held.values() if isinstance(held, Mapping) else held))
    return held


def check_conds(conds: Sequence[Any], found: Sequence[Any]) -> tuple[Any, Any]:
    """The one conditioning of either side of guidance.

    Args:
        conds: What ComfyUI calls `conds`: [positive, negative], each a list of conditionings.
        found: Its `conds_out`, a prediction for each.

    Returns:
        Positive and negative.

    Raises:
        InputError: there are others, one has been left out, or it holds what no table knows.
    """
    if len(conds) != 2 or len(found) != 2:
        raise InputError(
            f"This guider combines {counted(len(conds), 'prediction')}, and the guard compares "
            "two: one with the prompt and one without. Use a KSampler or CFGGuider."
        )
    if conds[1] is None:
        raise InputError(
            "At cfg 1.0 ComfyUI leaves the prediction without the prompt out, so that there is "
            "nothing to compare with. Draw with a higher cfg, or set extra_pass in the guard, "
            "which has it computed all the same and takes twice the time."
        )
    sides = {"positive": conds[0], "negative": conds[1]}
    for side, some in sides.items():
        if not some or len(some) != 1:
            raise InputError(
                f"The {side} conditioning is made of {counted(len(some or ()), 'part')}, and the "
                "guard knows what one is worth. Do without Conditioning (Combine), areas and "
                "schedules."
            )
        others = sorted(
            name for name, held in some[0].items() if name not in _CONDITIONS and held is not None
        )
        if others:
            raise InputError(
                f"The {side} conditioning holds {', '.join(others)}, so that predictions depend on "
                "more than the prompt, and no calibration covers that. Leave out the node that "
                "adds it (ControlNet, masks, areas, timestep ranges, GLIGEN, hooks)."
            )
    return conds[0][0], conds[1][0]


def one_sigma(sigma: torch.Tensor) -> float:
    """The noise level of all images of a step.

    Raises:
        InputError: they differ, so that they are not of one step.
    """
    values = sigma.flatten().tolist()
    if not values or any(each != values[0] for each in values):
        raise InputError(
            "The sampler asks for several noise levels at once, so that the guard does not know "
            "which step this is. Use another sampler."
        )
    return float(values[0])
