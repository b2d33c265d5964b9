"""Models over DDIM's noise schedule, which predict the noise or the velocity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler
from torch import Tensor

from mnemoscope_runtime.manifest import PredictionType, Scheduler

from ..records import eps_per_output, prediction_type, scheduler_record

__all__ = ["DdimSchedule", "to_eps"]


def to_eps(prediction: Tensor, latents: Tensor, abar: Tensor, kind: PredictionType) -> Tensor:
    """A network's output in eps units: of a velocity sqrt(abar) v + sqrt(1 - abar) x_t.

    Salimans & Ho 2022, appendix D.

    Args:
        prediction: # [B, C, H, W]
        latents: x_t. # [B, C, H, W]
        abar: alpha-bar at t, fp32. # [] or [1]
        kind: What the network predicts.

    Returns:
        # [B, C, H, W], fp32
    """
    if kind == "epsilon":
        return prediction.float()
    return abar.sqrt() * prediction.float() + (1 - abar).sqrt() * latents.float()


class DdimSchedule:
    """What of a `Model` its schedule decides.

    Attributes:
        scheduler: The pipeline's noise schedule, sampled with DDIM whatever its sampler is.
    """

    id: str
    scheduler: DDIMScheduler

    @classmethod
    def read_scheduler(cls, folder: Path) -> DDIMScheduler:
        """See `Model.read_scheduler`."""
        return DDIMScheduler.from_pretrained(folder, subfolder="scheduler")

    @property
    def prediction_type(self) -> PredictionType:
        """What the network predicts: the noise itself or the velocity (Salimans & Ho 2022)."""
        return prediction_type(self.scheduler.config, self.id)

    @property
    def alphas_cumprod(self) -> Tensor:
        """alpha-bar, [num_train_timesteps], fp32."""
        abar: Tensor = self.scheduler.alphas_cumprod
        return abar.float()

    def scheduler_record(self, inference_steps: int = 50) -> Scheduler:
        """The schedule in the manifest's terms.

        Raises:
            ExportError: the schedule is one that the runtime does not reproduce.
        """
        return scheduler_record(self.scheduler.config, self.id, inference_steps)

    def sampler(self, schedule: Any = None) -> DDIMScheduler:
        """A fresh DDIM sampler over the model's schedule, or over that of another sampler.

        It never clips: latents are not pixels.
        """
        config = (self.scheduler if schedule is None else schedule).config
        return DDIMScheduler.from_config(config, clip_sample=False)

    def to_eps(self, prediction: Tensor, latents: Tensor, timestep: Tensor | int) -> Tensor:
        """The network's output in eps units, fp32. # [B, C, H, W]"""
        abar = self.alphas_cumprod.to(prediction.device)[timestep]
        return to_eps(prediction, latents, abar, self.prediction_type)

    def eps_per_output(self, timestep: int) -> float:
        """What the distance of two outputs for the same x_t is multiplied by to be in eps units."""
        return eps_per_output(self.prediction_type, float(self.alphas_cumprod[timestep]))
