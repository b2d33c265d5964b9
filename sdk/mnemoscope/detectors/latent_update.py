"""How far the sampler moves: free while an image is drawn."""

from __future__ import annotations

import numpy as np

from mnemoscope_runtime import Prompts, Screener

from ._protocol import Features, Fit, Scores
from ._walking import SAMPLING, allocate, norm, require_fit

__all__ = ["LatentUpdate"]


class LatentUpdate:
    """max over steps of the z-score of ||x_t - x_{t+1}|| against benign prompts.

    The updates are those of DDIM with guidance; the paper's own figures are for PNDM.
    """

    name = "latent-update"
    reference = "Broken Memories, KDD 2026"
    only_first = False
    is_fitted = True
    needs_torch = False
    draws = False

    def passes(self, steps: int) -> int:
        """Both branches, as in sampling."""
        return 2 * steps

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """Those of sampling."""
        return SAMPLING

    def measure(
        self, screener: Screener, prompts: Prompts, *, steps: int, noises: int | None
    ) -> Features:
        """Lengths of the sampler's updates. # [prompt, noise, step, 1]"""
        found = allocate(screener, prompts, steps, noises, 1)
        for part in screener.parts(prompts, noises=noises):
            for k, prediction in enumerate(screener.walk(part, screener.timesteps[:steps])):
                update = screener.advance(prediction) - prediction.latents
                found[*part.where, k, 0] = norm(update)
        return found

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """The largest z-score of all steps."""
        z = require_fit(self.name, fit).standardized(features)[..., 0]
        return np.asarray(z.max(2), np.float64)
