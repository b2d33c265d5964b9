"""How fast the difference grows along itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnemoscope_runtime import Screener, Tokens

from ._protocol import Features, Fit, Scores
from ._walking import SAMPLING, allocate, norm

__all__ = ["Sharpness"]

_STEP = 1e-2  # length of the finite difference, as a share of ||x_T||


class Sharpness:
    """|| J d || with d = eps(x_T, e_prompt) - eps(x_T, e_empty) and J its Jacobian at x_T.

    The paper's Jacobian-vector product as a finite difference, so that it runs on every backend:

        J d = (d(x_T + h d / ||d||) - d(x_T)) ||d|| / h

    up to constants of the timestep, which all prompts share.
    """

    name = "sharpness"
    reference = "Jeon et al., ICML 2025"
    only_first = True
    is_fitted = False
    needs_torch = False

    def passes(self, steps: int) -> int:
        """Both branches at two points."""
        return 4

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """Those of sampling."""
        return SAMPLING

    def measure(
        self, screener: Screener, prompts: Sequence[str] | Tokens, *, steps: int, noises: int | None
    ) -> Features:
        """Norms of the Jacobian-vector product. # [prompt, noise, 1, 1]"""
        found = allocate(screener, prompts, 1, noises, 1)
        timestep = screener.timesteps[0]
        for tile in screener.tiles(prompts, noises=noises):
            here = screener.predict(tile.embeds, tile.latents, timestep)
            d = here.eps_cond - here.eps_uncond  # [b, m, C, H, W]
            length = norm(d)[:, :, None, None, None]
            h = _STEP * norm(tile.latents)[:, :, None, None, None]
            # where the prompt changes nothing there is no direction, and no sharpness
            along = np.divide(d, length, out=np.zeros_like(d), where=length != 0)
            there = screener.predict(tile.embeds, tile.latents + h * along, timestep)
            change = (there.eps_cond - there.eps_uncond - d) * (length / h)
            found[*tile.where, 0, 0] = norm(change)
        return found

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """The norm, >= 0."""
        return features[..., 0].astype(np.float64)
