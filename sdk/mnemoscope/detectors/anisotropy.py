"""Direction and length of the difference, both on pure noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Prompts, Screener

from ._protocol import Features, Fit, Scores
from ._walking import SAMPLING, allocate, require_fit

__all__ = ["Anisotropy"]

_LOW = -3  # the reference code's: the third from last of the sampler's timesteps


class Anisotropy:
    """g1 cos(d_eps, eps_uncond) at a low timestep + g2 ||d_eps|| at the first, on the same x_T.

    d_eps is the difference of the two predictions. Memorised prompts push along the unconditional
    prediction. The paper weights the two per model by hand; here both are standardised on benign
    prompts, and weighted equally or, where memorised prompts are known, by logistic regression.
    The cosine is taken over the channels of each latent pixel and averaged.
    """

    name = "anisotropy"
    reference = "Asthana and Belagiannis, ICLR 2026"
    only_first = True
    is_fitted = True
    needs_torch = False
    draws = False

    def passes(self, steps: int) -> int:
        """Both branches at two timesteps."""
        return 4

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """Those of sampling."""
        return SAMPLING

    def measure(
        self, screener: Screener, prompts: Prompts, *, steps: int, noises: int | None
    ) -> Features:
        """Cosine at the low timestep, magnitude at the first. # [prompt, noise, 1, 2]"""
        found = allocate(screener, prompts, 1, noises, 2)
        timesteps = screener.timesteps
        for part in screener.parts(prompts, noises=noises):
            low = screener.predict(part.embeds, part.latents, timesteps[_LOW:][0])
            first = screener.predict(part.embeds, part.latents, timesteps[0])
            found[*part.where, 0, 0] = _cosine(low.cond - low.uncond, low.uncond)
            found[*part.where, 0, 1] = first.magnitude
        return found

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """Weighted sum of the standardised features."""
        fit = require_fit(self.name, fit)
        return np.asarray(fit.standardized(features)[:, :, 0] @ np.array(fit.weight), np.float64)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over pixels of the cosine over channels; 0 where a has no length. # [b, m]"""
    dot = (a * b).sum(2)
    length = np.sqrt(np.square(a).sum(2) * np.square(b).sum(2))
    cosine = np.divide(dot, length, out=np.zeros_like(dot), where=length != 0)
    return np.asarray(cosine.mean((2, 3)), np.float32)
