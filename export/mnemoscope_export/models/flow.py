"""Models of rectified flows, which predict a velocity from the picture to the noise."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from mnemoscope_runtime.schedulers import FlowEuler
from mnemoscope_runtime.units import PredictionType, Unit

from ..records import flow_record, flow_shift

__all__ = ["FlowSchedule", "RectifiedFlow"]


class _ToPicture(nn.Module):
    """`Model.converter` of flows."""

    def __init__(self, train_timesteps: int) -> None:
        super().__init__()
        self.train_timesteps = train_timesteps

    def forward(self, output: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        """x_t - s v, where s = t / `train_timesteps`."""
        picture: Tensor = latents.float() - timestep / self.train_timesteps * output.float()
        return picture


class RectifiedFlow:
    """What all of them have in common, whatever they are sampled with.

    Attributes:
        scheduler: The pipeline's.
    """

    id: str
    scheduler: Any
    unit: ClassVar[Unit] = "x0"

    @property
    def prediction_type(self) -> PredictionType:
        """The velocity eps - x0."""
        return "flow_prediction"

    def converter(self) -> nn.Module:
        """See `Model.converter`."""
        return _ToPicture(self.scheduler.config.num_train_timesteps)

    def in_unit(self, prediction: Tensor, latents: Tensor, timestep: Tensor | float) -> Tensor:
        """The predicted picture x_t - s v, fp32. # [B, C, H, W]"""
        level = timestep / self.scheduler.config.num_train_timesteps
        if isinstance(level, Tensor):
            level = level.to(prediction.device, torch.float32)
        picture: Tensor = latents.float() - level * prediction.float()
        return picture


class FlowSchedule(RectifiedFlow):
    """What of a `Model` its schedule decides, where it is sampled with Euler's steps.

    Attributes:
        hands_levels: The pipeline hands its sampler even levels from 1 to 1 / steps, and does not
            leave them to it.
    """

    scheduler: FlowMatchEulerDiscreteScheduler
    hands_levels: ClassVar[bool] = False

    @property
    @abstractmethod
    def image_tokens(self) -> int:
        """How many tokens a picture is for the network, which some shifts depend on."""

    @classmethod
    def read_scheduler(cls, folder: Path) -> FlowMatchEulerDiscreteScheduler:
        """See `Model.read_scheduler`."""
        return FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")

    def scheduler_record(self, inference_steps: int = 50) -> FlowEuler:
        """The schedule in the manifest's terms, for latents of the model's size.

        Raises:
            ExportError: the schedule is one that the runtime does not reproduce.
        """
        config, tokens = self.scheduler.config, self.image_tokens
        last = 1 / inference_steps if self.hands_levels else None
        return flow_record(config, self.id, inference_steps, tokens, last)

    def sampler(self, schedule: Any = None) -> FlowMatchEulerDiscreteScheduler:
        """A fresh sampler over the model's schedule, or over that of another sampler."""
        config = (self.scheduler if schedule is None else schedule).config
        return FlowMatchEulerDiscreteScheduler.from_config(config)

    def started(self, inference_steps: int) -> FlowMatchEulerDiscreteScheduler:
        """A fresh sampler with the timesteps of a whole image of the model's size."""
        sampler = self.sampler()
        config = sampler.config
        shift = flow_shift(config, self.image_tokens) if config.use_dynamic_shifting else None
        levels = np.linspace(1, 1 / inference_steps, inference_steps)
        sampler.set_timesteps(
            inference_steps, sigmas=levels if self.hands_levels else None, mu=shift
        )
        return sampler
