"""The paper's own: how far the prompt moves the noise prediction."""

from __future__ import annotations

import numpy as np

from mnemoscope_runtime import Prompts, Screener

from ._protocol import Features, Fit, Scores

__all__ = ["Magnitude"]


class Magnitude:
    """m_t = || eps(x_t, t, e_prompt) - eps(x_t, t, e_empty) ||_2, averaged over steps."""

    name = "magnitude"
    reference = "Wen et al., ICLR 2024"
    only_first = False
    is_fitted = False
    needs_torch = False
    draws = False

    def passes(self, steps: int) -> int:
        """The screening graph knows the other branch of the first step."""
        return 1 if steps == 1 else 2 * steps

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """The screening graph."""
        return ("screen",)

    def measure(
        self, screener: Screener, prompts: Prompts, *, steps: int, noises: int | None
    ) -> Features:
        """Magnitudes. # [prompt, noise, step, 1]"""
        if steps == 1:  # the screening graph: half the work of a sampling step
            return screener.first_step(prompts, noises=noises)[..., None, None]
        return screener.trajectory(prompts, steps=steps, noises=noises)[..., None]

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """Mean over steps, in the bundle's unit, >= 0."""
        return np.asarray(features[..., 0].mean(2, dtype=np.float64))
