"""Models over DDIM's noise schedule, which predict the noise or the velocity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler
from torch import Tensor, nn

from mnemoscope_runtime.schedulers import Ddim
from mnemoscope_runtime.units import Level, PredictionType, unit_per_output

from ..records import prediction_type, scheduler_record

__all__ = ["DdimSchedule"]


class _ToEps(nn.Module):
    """`Model.converter` of noise and velocity."""

    def __init__(self, abar: Tensor, kind: PredictionType) -> None:
        super().__init__()
        self.kind = kind
        self.abar: Tensor
        self.register_buffer("abar", abar)

    def forward(self, output: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        """See `_to_eps`."""
        if self.kind == "epsilon":
            return output.float()
        # not [timestep]: PyTorch fetches an index of no dimensions from the device
        abar = self.abar.index_select(0, timestep.reshape(1))  # [1]
        return _to_eps(output, latents, abar, self.kind)


def _to_eps(prediction: Tensor, latents: Tensor, abar: Tensor, kind: PredictionType) -> Tensor:
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

    def scheduler_record(self, inference_steps: int = 50) -> Ddim:
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

    def converter(self) -> nn.Module:
        """See `Model.converter`."""
        return _ToEps(self.alphas_cumprod, self.prediction_type)

    def in_unit(self, prediction: Tensor, latents: Tensor, timestep: Tensor | float) -> Tensor:
        """The network's output in eps units, fp32. # [B, C, H, W]"""
        # a number stays one: a tensor made of it would come from the host
        at = timestep if isinstance(timestep, Tensor) else int(timestep)
        abar = self.alphas_cumprod.to(prediction.device)[at]
        return _to_eps(prediction, latents, abar, self.prediction_type)

    def unit_per_output(self, timestep: float) -> float:
        """See `Model.unit_per_output`; of diffusers' own alpha-bar."""
        abar = float(self.alphas_cumprod[int(timestep)])
        return unit_per_output(self.prediction_type, "eps", Level(abar**0.5, (1 - abar) ** 0.5))
