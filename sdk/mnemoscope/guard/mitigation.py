"""What a guard can do about a flagged image: other embeddings for its prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnemoscope_runtime.errors import NumericsError

__all__ = ["EmbeddingOptimization", "Flagged", "GuardMitigation"]


@dataclass(frozen=True)
class Flagged:
    """The flagged images of a request, at the first step, from their own noise.

    Attributes:
        prompts: Their texts; None where the request gave embeddings.
        embeds: What the UNet was told. # [B, L, D]
        magnitude: Embeddings [B, L, D] to magnitudes [B] in eps units, fp32, with their graph; one
            UNet pass.
        benign: The calibration's benign scores, ascending. # [n]
        threshold: Its threshold.
    """

    prompts: tuple[str | None, ...]
    embeds: Tensor
    magnitude: Callable[[Tensor], Tensor]
    benign: NDArray[np.float64]
    threshold: float


class GuardMitigation(Protocol):
    """Makes other embeddings, with which the request is drawn anew and looked at again."""

    def __call__(self, flagged: Flagged) -> Tensor:
        """Embeddings for the flagged images; gradients are on. # [B, L, D]"""


@dataclass(frozen=True)
class EmbeddingOptimization:
    """Wen et al. (ICLR 2024), section 4: Adam on the embedding until the magnitude is benign.

    The start token's embedding, which no prompt changes, is left alone; every image stops at the
    target by itself. What is lowered is the score that flagged the image: that it passes the guard
    afterwards says little, see docs/guard.md for what is left of copies. Through the UNet, which
    therefore must not be offloaded layer by layer.

    Attributes:
        learning_rate: Of Adam.
        iterations: At most so many, a forward and a backward pass each.
        quantile: Of the benign scores: the target.
    """

    learning_rate: float = 0.05
    iterations: int = 10
    quantile: float = 0.25

    def __call__(self, flagged: Flagged) -> Tensor:
        """Optimise; see `GuardMitigation`.

        Raises:
            NumericsError: a magnitude or its gradient is NaN or infinite.
        """
        target = float(np.quantile(flagged.benign, self.quantile))
        start = flagged.embeds.float()
        words = start[:, 1:].clone().requires_grad_()
        optimizer = torch.optim.Adam([words], lr=self.learning_rate)
        found = start.clone()
        done = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        for turn in range(self.iterations + 1):
            embeds = torch.cat([start[:, :1], words], 1)
            values = flagged.magnitude(embeds)
            found[~done] = embeds.detach()[~done]
            done |= values.detach() <= target
            if done.all() or turn == self.iterations:
                break
            (words.grad,) = torch.autograd.grad(values.sum(), words)
            if not words.grad.isfinite().all():
                raise NumericsError(
                    f"The gradient of the magnitude is NaN or infinite for embeddings in "
                    f"{flagged.embeds.dtype}: no mitigation was found. Use float32 or bfloat16."
                )
            optimizer.step()
        return found
