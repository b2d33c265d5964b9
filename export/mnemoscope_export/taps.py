"""Taps: intermediate features of the UNet, and how far the prompt moves them.

    || h_l(x_t, t, e_prompt) - h_l(x_t, t, e_empty) ||_2

at layer l, where the magnitude has the UNet's output. Ours. Features have units of their own,
whatever the model predicts: norms of two layers, or of two models, do not compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from mnemoscope_runtime.errors import InputError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

__all__ = ["Recorder", "choose", "tappable"]

_AUTO_BLOCKS = ("up_blocks.0.", "up_blocks.1.")


class Recorder:
    """Keeps what some layers of a UNet return while it runs; one run at a time."""

    def __init__(self, unet: nn.Module, names: Sequence[str], *, stop: bool = False) -> None:
        """Watch layers until `close`.

        Args:
            unet: Gets a hook for each layer.
            names: Of `tappable`, in their order.
            stop: Run no further than the last of them.
        """
        self._count, self._stop = len(names), stop
        self._features: list[Tensor] = []
        self._hooks = [unet.get_submodule(name).register_forward_hook(self._keep) for name in names]

    def run(self, unet: Callable[[], Tensor]) -> tuple[Tensor | None, list[Tensor]]:
        """Run the UNet.

        Returns:
            Its output, None with `stop`, and the features of every layer. # [B, C, H, W] each
        """
        features: list[Tensor] = []
        self._features = features
        try:
            output = unet()
        except _LastTap:
            return None, features
        return None if self._stop else output, features

    def close(self) -> None:
        """Leave the UNet as it was."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, _: nn.Module, __: object, output: Tensor | tuple[Tensor]) -> None:
        self._features.append(output[0] if isinstance(output, tuple) else output)
        is_last = self._stop and len(self._features) == self._count
        # whoever traces leaves out what nothing depends on, but cannot follow an exception
        if is_last and not torch.compiler.is_compiling():
            raise _LastTap


class _LastTap(Exception):
    """All that was asked for is there."""


def tappable(unet: UNet2DConditionModel) -> list[str]:
    """Layers whose features depend on the prompt, in the order in which they run.

    Resnets, attentions and resamplers behind the first cross-attention. What comes before it does
    not know the prompt, and the screening graph folds it into constants up to the attention itself.
    """
    blocks: list[tuple[str, nn.Module]] = [
        *((f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)),
        *([("mid_block", unet.mid_block)] if unet.mid_block is not None else []),
        *((f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)),
    ]
    found: list[str] = []
    knows = False  # of the prompt
    for name, block in blocks:
        attends = bool(getattr(block, "has_cross_attention", False))
        for layer in _layers(block):
            if knows:
                found.append(f"{name}.{layer}")
            knows = knows or (attends and layer.startswith("attentions."))
    return found


def choose(
    unet: UNet2DConditionModel,
    taps: Sequence[str] | Literal["auto"] | None,
    until: str | None = None,
) -> tuple[str, ...]:
    """The layers that are tapped, in the order in which they run.

    "auto" takes every resnet and attention of the first two up blocks: in the embedded model the
    encoder half of the UNet hardly tells memorised prompts from others, and the first layers of the
    decoder do best.

    Args:
        unet: Whose layers.
        taps: Names of `tappable`, "auto", or None for no taps.
        until: The last layer that is tapped; "auto" takes it and what comes before it.

    Raises:
        InputError: a layer cannot be tapped, or comes after the last one.
    """
    if taps is None:
        return ()
    known = tappable(unet)
    named = [] if until is None else [until]
    if taps != "auto":
        named += taps
    if unknown := [name for name in named if name not in known]:
        raise InputError(
            f"{unknown[0]} is no layer of this UNet that can be tapped. Choose from: "
            f"{', '.join(known)}."
        )
    end = len(known) if until is None else known.index(until) + 1
    if taps == "auto":
        return tuple(n for n in known[:end] if _is_auto(n) or n == until)
    if late := [name for name in taps if name not in known[:end]]:
        raise InputError(f"{late[0]} comes after {until}. Leave it out, or go on until there.")
    if until is not None and until not in taps:
        raise InputError(f"{until} is not among the taps. Name it there too.")
    return tuple(name for name in known if name in taps)


def _is_auto(name: str) -> bool:
    return name.startswith(_AUTO_BLOCKS) and (".resnets." in name or ".attentions." in name)


def _layers(block: nn.Module) -> list[str]:
    """Names of a block's layers in the order in which they run: resnets and attentions by turns."""

    def names(kind: str) -> list[str]:
        return [f"{kind}.{i}" for i in range(len(getattr(block, kind, None) or ()))]

    turns = zip_longest(names("resnets"), names("attentions"))
    inner = [name for pair in turns for name in pair if name is not None]
    return [*inner, *names("downsamplers"), *names("upsamplers")]
