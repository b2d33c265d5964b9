"""How far the prompt moves intermediate features of the network, instead of its output."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Prompts, Screener
from mnemoscope_runtime.screener import checked_norms

from ._protocol import Features, Fit, Scores
from ._walking import allocate, require_fit

__all__ = ["Tap", "Taps"]

_OURS = "Mnemoscope"
_TINY = np.finfo(np.float32).tiny  # the empty prompt moves nothing, which has no logarithm


class Tap:
    """|| h_l(x_t, t, e_prompt) - h_l(x_t, t, e_empty) ||_2 of one layer, averaged over steps."""

    reference = _OURS
    only_first = False
    is_fitted = False
    needs_torch = False
    draws = False

    def __init__(self, layer: str) -> None:
        self.name, self.layer = f"tap:{layer}", layer

    def passes(self, steps: int) -> int:
        """As of the magnitude: at the first step the other branch is known."""
        return 1 if steps == 1 else 2 * steps

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """The one that stops at the last tap, or the screening graph."""
        screener.require_taps(self.layer)
        return (screener.taps_graph,)

    def measure(
        self, screener: Screener, prompts: Prompts, *, steps: int, noises: int | None
    ) -> Features:
        """Norms. # [prompt, noise, step, 1]"""
        index = screener.require_taps(self.layer).index(self.layer)
        return _norms(screener, prompts, steps, noises)[..., index : index + 1]

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """Mean over steps, in units of the layer, >= 0."""
        return np.asarray(features[..., 0].mean(2, dtype=np.float64))


class Taps:
    """Weighted sum over layers of the z-score of log || dh_l || against benign prompts.

    Layers have units of their own, which logarithms and benign prompts take away. Weights are
    equal or, where memorised prompts are known, learned by logistic regression.
    """

    name = "taps"
    reference = _OURS
    only_first = False
    is_fitted = True
    needs_torch = False
    draws = False

    def passes(self, steps: int) -> int:
        """As of one tap."""
        return 1 if steps == 1 else 2 * steps

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """As of one tap."""
        screener.require_taps()
        return (screener.taps_graph,)

    def measure(
        self, screener: Screener, prompts: Prompts, *, steps: int, noises: int | None
    ) -> Features:
        """Logarithms of the norms of the bundle's taps. # [prompt, noise, step, K]"""
        screener.require_taps()
        return np.log(np.maximum(_norms(screener, prompts, steps, noises), _TINY))

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """Mean over steps of the weighted sums."""
        fit = require_fit(self.name, fit)
        sums = fit.standardized(features) @ np.array(fit.weight)
        return np.asarray(sums.mean(2), np.float64)


def _norms(
    screener: Screener, prompts: Prompts, steps: int, noises: int | None
) -> NDArray[np.float32]:
    """Norms of all taps. # [prompt, noise, step, K]"""
    if steps == 1:  # the engine of the first step: half the work of a sampling step
        return screener.first_step_taps(prompts, noises=noises)[:, :, None]
    found = allocate(screener, prompts, steps, noises, len(screener.taps))
    for part in screener.parts(prompts, noises=noises):
        for k, prediction in enumerate(screener.walk(part, screener.timesteps[:steps])):
            found[*part.where, k] = prediction.taps
    return checked_norms(found, "A tap")
