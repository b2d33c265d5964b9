"""Whether a network's two predictions of a sample differ by its caption alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mnemoscope_runtime import InputError

from ..training_mode import differing

__all__ = ["comparable"]

_REMEDY = (
    "the prediction and the one of the empty prompt would differ by that as well as by the "
    "caption. Leave it out (dropout: p = 0, a LoRA's `lora_dropout=0`; a norm over the batch: its "
    "`eval()`); or measure in eval mode: `unet.eval()`, another pass without gradients for what "
    "the filter is given as the prediction, the filter, `unet.train()`."
)


@contextmanager
def comparable(network: Callable[..., Any], device: torch.device, *, draws: bool) -> Iterator[None]:
    """Around a pass of a network: it has to compute what it computed with the caption.

    Args:
        network: What computes.
        device: Where.
        draws: Whether to look for random numbers that it draws: not in every pass, since other
            threads of a loop may draw some meanwhile.

    Raises:
        InputError: a layer computes otherwise in training mode, or, which is seen also of what is
            no module, the pass draws random numbers.
    """
    if isinstance(network, nn.Module):
        for path, what in differing(network):
            raise InputError(f"The network's {path} {what} in training mode, so that {_REMEDY}")
    before = _generators(device) if draws else []
    yield
    if draws and any(
        not torch.equal(a, b) for a, b in zip(before, _generators(device), strict=True)
    ):
        raise InputError(f"The network draws random numbers, as dropout does, so that {_REMEDY}")


def _generators(device: torch.device) -> list[Tensor]:
    """Where torch's own generators stand."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return states
