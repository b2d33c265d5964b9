"""What a step learns from: pictures of a population, and the memorised ones again and again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .told import Told
from .whitened import White

__all__ = ["Batch", "Learned"]


@dataclass(frozen=True)
class Batch:
    """Pictures, noised.

    Attributes:
        x0: Their latents. # [B, C, 16, 16]
        noise: Of the same shape.
        level: s of x_s = (1 - s) x0 + s eps, 0..1. # [B]
        told: Of their captions.
        memorised: Which of them are. # [B]
    """

    x0: Tensor
    noise: Tensor
    level: Tensor
    told: Told
    memorised: Tensor

    @property
    def x(self) -> Tensor:
        """x_s. # [B, C, 16, 16]"""
        s = self.level[:, None, None, None]
        return (1 - s) * self.x0 + s * self.noise


@dataclass(frozen=True)
class Learned:
    """Latents, and what is told of their captions, on the device where training runs.

    Attributes:
        seen: Of the population. # [N, C, 16, 16], and N rows
        memorised: Of those that come back.
        empty: What is told of the empty prompt, one row.
    """

    seen: tuple[Tensor, Told]
    memorised: tuple[Tensor, Told]
    empty: Told

    def whitened(self, white: White) -> Learned:
        """In coordinates in which what is told is white."""
        (seen, of_seen), (memorised, of_memorised) = self.seen, self.memorised
        return replace(
            self,
            seen=(seen, white(of_seen)),
            memorised=(memorised, white(of_memorised)),
            empty=white(self.empty),
        )

    def draw(self, batch: int, share: float, generator: torch.Generator) -> Batch:
        """A random batch; the memorised part is its end.

        A third of the levels s is uniform in .8 .. 1, where the first denoising step happens and
        memorisation arrives last; a third uniform, a third logit-normal as in Stable Diffusion 3.

        Args:
            batch: Samples in it.
            share: Of the batch that is memorised.
            generator: On the same device.
        """
        where = {"device": self.seen[0].device, "generator": generator}
        part = round(batch * share)
        i = torch.randint(len(self.seen[0]), (batch - part,), **where)
        j = torch.randint(len(self.memorised[0]), (part,), **where)
        x0 = torch.cat([self.seen[0][i], self.memorised[0][j]]).float()
        told = self.seen[1][i].and_then(self.memorised[1][j])
        u, which = torch.rand(2, batch, **where)
        normal = torch.sigmoid(torch.randn(batch, **where))
        s = torch.where(which < 1 / 3, 0.8 + 0.2 * u, torch.where(which < 2 / 3, u, normal))
        noise = torch.randn(x0.shape, **where)
        memorised = torch.arange(batch, device=x0.device) >= batch - part
        return Batch(x0, noise, s, told, memorised)
