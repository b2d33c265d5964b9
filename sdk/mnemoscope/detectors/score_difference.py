"""Where in the picture: the squared difference of the predictions, pixel by pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Prompts, Screener

from ._protocol import Features, Fit, Scores
from ._walking import SAMPLING, allocate

__all__ = ["ScoreDifference", "score_difference_maps"]


class ScoreDifference:
    """Mean over pixels of (s_cond - s_uncond)^2 at step k alone; the paper takes the last step.

    The difference of two scores s = -eps / sqrt(1 - abar_t) is that of the noise predictions, up to
    a constant of the timestep. `score_difference_maps` gives the pixels.
    """

    name = "score-difference-map"
    reference = "Kim and Lee, ICML 2026"
    only_first = False
    is_fitted = False
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
        """Mean squared differences. # [prompt, noise, step, 1]"""
        magnitudes = screener.trajectory(prompts, steps=steps, noises=noises)
        return np.asarray(np.square(magnitudes) / screener.latent_elements)[..., None]

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """That of the last step, in squared eps units, >= 0."""
        return features[:, :, -1, 0].astype(np.float64)


def score_difference_maps(
    screener: Screener, prompts: Prompts, *, noises: int | None = None
) -> NDArray[np.float32]:
    """(eps_cond - eps_uncond)^2 at the last step, averaged over channels.

    Large where the prompt decides the pixels: for a memorised picture the parts that are copied.

    Returns:
        # [prompt, noise, H, W], in squared eps units, >= 0
    """
    shape = screener.bundle.manifest.noise_bank.shape
    blank = allocate(screener, prompts, 1, noises, 1)
    maps = np.full((*blank.shape[:2], *shape[2:]), np.nan, np.float32)
    for part in screener.parts(prompts, noises=noises):
        for prediction in screener.walk(part, screener.timesteps):
            difference = prediction.cond - prediction.uncond
        maps[*part.where] = np.square(difference).mean(2)
    return maps
