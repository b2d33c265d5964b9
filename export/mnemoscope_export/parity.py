"""The gate between a staged bundle and the world: every graph must agree with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mnemoscope_runtime import Screener
from mnemoscope_runtime.errors import ParityError

from .models import StableDiffusion
from .reference import magnitudes

__all__ = ["PROMPTS", "Tolerance", "check_parity"]

PROMPTS = (
    "a photo of a cat on a windowsill",
    "The quick brown fox, oil painting, 1889",
    "icon of rocket",
    "portrait of a woman with a red hat in the style of an old master, highly detailed, canvas",
    "x",
)
_BATCHES = (1, 2, 3, 5)
_STEPS = 3


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted relative error of a magnitude, |engine - torch| / torch."""

    magnitude: float = 1e-4


def check_parity(
    screener: Screener, model: StableDiffusion, tolerance: Tolerance
) -> dict[str, dict[str, float]]:
    """Compare every graph of a staged bundle with the reference, on several batch sizes.

    Returns:
        The largest relative error of each graph and what it was measured on.

    Raises:
        ParityError: a graph differs by more than the tolerance.
    """
    bank = torch.from_numpy(screener.bundle.noise_bank())
    manifest = screener.bundle.manifest
    expected = magnitudes(
        model,
        PROMPTS,
        bank,
        steps=_STEPS,
        inference_steps=manifest.scheduler.inference_steps,
        guidance=manifest.guidance,
    ).numpy()  # [prompt, noise, step]

    def first_step(prompts: list[str], noises: int) -> np.ndarray:
        return screener.first_step(prompts, noises=noises)[..., None]

    def trajectory(prompts: list[str], noises: int) -> np.ndarray:
        return screener.trajectory(prompts, steps=_STEPS, noises=noises)

    report = {
        "screen": _worst("screen", first_step, expected[..., :1], tolerance),
        "step": _worst("step", trajectory, expected, tolerance),
    }
    embeds = model.embed(list(PROMPTS)).float().numpy()
    report["text_encoder"] = _embedding_error(screener, embeds, tolerance)
    return report


def _worst(
    graph: str,
    measure: Callable[[list[str], int], np.ndarray],
    expected: np.ndarray,  # [prompt, noise, step]
    tolerance: Tolerance,
) -> dict[str, float]:
    worst = 0.0
    for batch in _BATCHES:
        for noises in {1, expected.shape[1]}:
            wanted = expected[:batch, :noises]
            found = measure(list(PROMPTS[:batch]), noises)
            error = float((np.abs(found - wanted) / wanted).max())
            if not error <= tolerance.magnitude:
                raise ParityError(
                    f"The {graph} graph differs from PyTorch by {error:.1e} (relative, batch "
                    f"{batch}, {noises} noises); {tolerance.magnitude:.0e} is allowed. Nothing was "
                    "written. Export in float32 with the versions in constraints.txt."
                )
            worst = max(worst, error)
    return {"max_relative_error": worst, "prompts": len(PROMPTS), "batches": len(_BATCHES)}


def _embedding_error(
    screener: Screener, expected: np.ndarray, tolerance: Tolerance
) -> dict[str, float]:
    error = float(np.abs(screener.embed(PROMPTS) - expected).max() / np.abs(expected).max())
    if not error <= tolerance.magnitude:
        raise ParityError(
            f"The text_encoder graph differs from PyTorch by {error:.1e} (relative to the largest "
            f"value); {tolerance.magnitude:.0e} is allowed. Nothing was written."
        )
    return {"max_relative_error": error, "prompts": len(PROMPTS)}
