"""Taps: intermediate features of the network, and how far the prompt moves them.

    || h_l(x_t, t, e_prompt) - h_l(x_t, t, e_empty) ||_2

at layer l, where the magnitude has the network's output. Ours. Features have units of their own,
whatever the model predicts: norms of two layers, or of two models, do not compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.families import family_named

if TYPE_CHECKING:
    from ..models import Model

__all__ = ["Recorder", "choose"]


class Recorder:
    """Keeps what some layers of a network return while it runs; one run at a time."""

    def __init__(
        self, model: Model, network: nn.Module, names: Sequence[str], *, stop: bool = False
    ) -> None:
        """Watch layers until `close`.

        Args:
            model: Says what is compared of their outputs.
            network: Gets a hook for each layer.
            names: Of `Model.tappable`, in their order.
            stop: Run no further than the last of them.
        """
        self._feature = model.feature
        self._count, self._stop = len(names), stop
        self._features: list[Tensor] = []
        layers = map(network.get_submodule, names)
        self._hooks = [layer.register_forward_hook(self._keep) for layer in layers]

    def run(self, predict: Callable[[], Tensor]) -> tuple[Tensor | None, list[Tensor]]:
        """Run the network.

        Returns:
            Its output, None with `stop`, and the features of every layer. # [B, C, ...] each
        """
        features: list[Tensor] = []
        self._features = features
        try:
            output = predict()
        except _LastTap:
            return None, features
        return None if self._stop else output, features

    def close(self) -> None:
        """Leave the network as it was."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, _: nn.Module, __: object, output: object) -> None:
        self._features.append(self._feature(output))
        is_last = self._stop and len(self._features) == self._count
        # whoever traces leaves out what nothing depends on, but cannot follow an exception
        if is_last and not torch.compiler.is_compiling():
            raise _LastTap


class _LastTap(Exception):
    """All that was asked for is there."""


def choose(
    model: Model,
    taps: Sequence[str] | Literal["auto"] | None,
    until: str | None = None,
) -> tuple[str, ...]:
    """The layers that are tapped, in the order in which they run.

    What "auto" takes of a UNet is every resnet and attention of the first two up blocks: in the
    embedded model the encoder half hardly tells memorised prompts from others, and the first layers
    of the decoder do best.

    Args:
        model: Whose layers.
        taps: Names of `Model.tappable`, "auto", or None for no taps.
        until: The last layer that is tapped; "auto" takes it and what comes before it.

    Raises:
        InputError: a layer cannot be tapped, or comes after the last one.
    """
    if taps is None:
        return ()
    known = model.tappable()
    named = [] if until is None else [until]
    if taps != "auto":
        named += taps
    if unknown := [name for name in named if name not in known]:
        raise InputError(
            f"{unknown[0]} is no layer of this model that can be tapped. Choose from: "
            f"{', '.join(known)}."
        )
    end = len(known) if until is None else known.index(until) + 1
    if taps == "auto":
        auto = {*model.auto_taps(), until}
        found = tuple(name for name in known[:end] if name in auto)
        if not found:
            others = f", or name some of {', '.join(known)}" if known else ""
            raise InputError(
                f"{model.id} is of the family {family_named(model.family).name}, of which nobody "
                f"knows in which layers most shows. Leave taps out{others}."
            )
        return found
    if late := [name for name in taps if name not in known[:end]]:
        raise InputError(f"{late[0]} comes after {until}. Leave it out, or go on until there.")
    if until is not None and until not in taps:
        raise InputError(f"{until} is not among the taps. Name it there too.")
    return tuple(name for name in known if name in taps)
