"""What predicts in a pipeline: its networks, their layers and weights, its tokenizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from accelerate.utils import align_module_device  # type: ignore[import-untyped]
from diffusers import (
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import Tensor, nn

__all__ = ["PREDICTORS", "is_lora", "layers", "networks", "plain", "tensors", "tokenizers"]

PREDICTORS: Mapping[str, tuple[type, ...]] = {
    "unet": (UNet2DConditionModel,),
    "transformer": (
        FluxTransformer2DModel,
        PixArtTransformer2DModel,
        QwenImageTransformer2DModel,
        SanaTransformer2DModel,
        SD3Transformer2DModel,
    ),
}
"""Parts that predict, and the classes that a guard knows of each."""
_NETWORKS = ("text_encoder", "text_encoder_2", "text_encoder_3", *PREDICTORS)
_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
_DRAWS_ON_PICTURES = ("Img2Img", "Inpaint")


def networks(pipe: Any) -> dict[str, nn.Module]:
    """What predicts, by name; not what `torch.compile` made of it.

    Where a request starts from a picture, also what encodes it.
    """
    parts: tuple[str, ...] = _NETWORKS
    if any(kind in type(pipe).__name__ for kind in _DRAWS_ON_PICTURES):
        parts += ("vae",)
    found = {part: vars(pipe).get(part) for part in parts}  # itself, also while a guard is between
    return {part: plain(module) for part, module in found.items() if module is not None}


def tokenizers(pipe: Any) -> dict[str, Any]:
    """What turns prompts into tokens, by name."""
    found = {part: getattr(pipe, part, None) for part in _TOKENIZERS}
    return {part: each for part, each in found.items() if each is not None}


def plain(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or itself."""
    found: nn.Module = getattr(module, "_orig_mod", module)
    return found


def layers(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every module below and this one, by path; a layer that LoRA wraps is followed by its own.

    Copies of projections that diffusers has fused, and does not use, are left out.
    """
    yield path, module
    if is_lora(module):
        yield from layers(module.base_layer, path)  # type: ignore[arg-type]
        return
    unused = () if _is_fused(module) else ("to_qkv", "to_kv", "to_added_qkv")
    for name, child in module._modules.items():
        if child is not None and name not in unused:
            yield from layers(child, f"{path}.{name}" if path else name)


def is_lora(module: nn.Module) -> bool:
    """Whether a layer is one of peft's around another one."""
    return type(module).__module__.startswith("peft.tuners.lora") and hasattr(module, "base_layer")


def tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A layer's own tensors; those that accelerate has offloaded where they are."""
    own = {**module._parameters, **module._buffers, **vars(module)}
    found = {name: value for name, value in own.items() if isinstance(value, Tensor)}
    offloaded = any(value.is_meta for value in found.values())
    with align_module_device(module, "cpu") if offloaded else nullcontext():
        for name in found:
            yield name, getattr(module, name)


def _is_fused(module: nn.Module) -> bool:
    return "Fused" in type(getattr(module, "processor", None)).__name__
