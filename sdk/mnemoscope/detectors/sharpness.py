"""How fast the difference grows along itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnemoscope_runtime import Prompts, Screener
from mnemoscope_runtime.predictions import Array, Part

from ._protocol import Features, Fit, Scores
from ._walking import SAMPLING, allocate, norm

if TYPE_CHECKING:
    from mnemoscope_export import Model

__all__ = ["Sharpness"]

_STEP = 1e-2  # length of the finite difference, as a share of ||x_T||


class Sharpness:
    """|| J d || with d = eps(x_T, e_prompt) - eps(x_T, e_empty) and J its Jacobian at x_T.

    The paper's Jacobian-vector product: exact in PyTorch, elsewhere, where engines know no
    derivatives, as a finite difference

        J d = (d(x_T + h d / ||d||) - d(x_T)) ||d|| / h

    up to constants of the timestep, which all prompts share. The backend is part of what a
    calibration is for, so that scores of the two never meet.
    """

    name = "sharpness"
    reference = "Jeon et al., ICML 2025"
    only_first = True
    is_fitted = False
    needs_torch = False
    draws = False

    def passes(self, steps: int) -> int:
        """Both branches at two points, or once and once with tangents."""
        return 4

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """Those of sampling."""
        return SAMPLING

    def measure(
        self, screener: Screener, prompts: Prompts, *, steps: int, noises: int | None
    ) -> Features:
        """Norms of the Jacobian-vector product. # [prompt, noise, 1, 1]"""
        found = allocate(screener, prompts, 1, noises, 1)
        model: Model | None = getattr(screener.backend, "model", None)
        for part in screener.parts(prompts, noises=noises):
            product = (
                _difference(screener, part) if model is None else _exact(model, screener, part)
            )
            found[*part.where, 0, 0] = norm(product)
        return found

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """The norm, >= 0."""
        return features[:, :, 0, 0].astype(np.float64)


def _difference(screener: Screener, part: Part) -> Array:
    """J d, about. # [b, m, C, H, W]"""
    timestep = screener.timesteps[0]
    here = screener.predict(part.embeds, part.latents, timestep)
    d = here.cond - here.uncond
    length = norm(d)[:, :, None, None, None]
    h = _STEP * norm(part.latents)[:, :, None, None, None]
    # where the prompt changes nothing there is no direction, and no sharpness
    along = np.divide(d, length, out=np.zeros_like(d), where=length != 0)
    there = screener.predict(part.embeds, part.latents + h * along, timestep)
    return (there.cond - there.uncond - d) * (length / h)


def _exact(model: Model, screener: Screener, part: Part) -> Array:
    """J d in forward mode. # [b, m, C, H, W]"""
    import torch

    from mnemoscope_export import along_itself

    place, (b, m) = (model.network.device, model.network.dtype), part.latents.shape[:2]
    latents = torch.from_numpy(part.latents).flatten(0, 1).to(*place)
    embeds = tuple(torch.from_numpy(e).repeat_interleave(m, 0).to(*place) for e in part.embeds)
    product = along_itself(model, embeds, latents, screener.timesteps[0])
    return product.reshape(b, m, *product.shape[1:]).cpu().numpy()
