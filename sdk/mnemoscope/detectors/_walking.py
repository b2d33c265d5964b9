"""What detectors that look at predictions have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Prompts, Screener, Tokens
from mnemoscope_runtime.errors import CalibrationError

from ._protocol import Fit

__all__ = ["SAMPLING", "allocate", "norm", "require_fit"]

SAMPLING = ("text_encoder", "step")  # graphs


def allocate(
    screener: Screener,
    prompts: Prompts,
    steps: int,
    noises: int | None,
    features: int,
) -> NDArray[np.float32]:
    """An array to measure into, NaN until it is. # [prompt, noise, step, feature]"""
    count = len(prompts.ids) if isinstance(prompts, Tokens) else len(prompts)
    shape = (count, screener.noises if noises is None else noises, steps, features)
    return np.full(shape, np.nan, np.float32)


def norm(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """||x||_2 of every latent. # [b, m, C, H, W] -> [b, m]"""
    return np.asarray(np.sqrt(np.square(latents, dtype=np.float32).sum((2, 3, 4))), np.float32)


def require_fit(name: str, fit: Fit | None) -> Fit:
    """What the detector learned.

    Raises:
        CalibrationError: it was not calibrated.
    """
    if fit is None:
        raise CalibrationError(
            f"The detector {name!r} has no scores before it has seen benign prompts. Calibrate "
            f"the bundle (`mnemoscope calibrate`, with --detector {name})."
        )
    return fit
