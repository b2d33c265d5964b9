"""What is asked of ComfyUI itself, which only runs where these nodes do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = ["empty_latent", "given", "progress", "sample", "samplers", "written"]


def given() -> Path:
    """The folder for what a user gives to graphs."""
    import folder_paths

    return Path(folder_paths.get_input_directory())


def written() -> Path:
    """The folder of calibrations, among what graphs write."""
    import folder_paths

    return Path(folder_paths.get_output_directory()) / "mnemoscope"


def samplers() -> tuple[list[str], list[str]]:
    """Names of samplers and of schedulers."""
    import comfy.samplers

    return list(comfy.samplers.KSampler.SAMPLERS), list(comfy.samplers.KSampler.SCHEDULERS)


def empty_latent(model: Any, latent: Tensor) -> Tensor:
    """One empty latent of the model's channels and a latent's size. # [1, C, H, W]"""
    import comfy.sample

    found: Tensor = comfy.sample.fix_empty_latent_channels(model, latent[:1] * 0)
    return found


def sample(
    model: Any,
    noise: Tensor,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Any,
    negative: Any,
    latent: Tensor,
    seed: int,
) -> object:
    """What a KSampler draws, without its progress bar; the seed is of what some samplers add."""
    import comfy.sample

    return comfy.sample.sample(
        model,
        noise,
        steps,
        cfg,
        sampler_name,
        scheduler,
        positive,
        negative,
        latent,
        disable_pbar=True,
        seed=seed,
    )


def progress() -> Callable[[int, int], None]:
    """Tells the page how far a node is."""
    import comfy.utils

    bars: list[Any] = []

    def tell(done: int, of: int) -> None:
        if not bars:
            bars.append(comfy.utils.ProgressBar(of))
        bars[0].update_absolute(done, of)

    return tell
