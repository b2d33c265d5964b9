"""Stable Diffusion in PyTorch, as far as the magnitude needs it."""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from mnemoscope_runtime.errors import ExportError
from mnemoscope_runtime.manifest import PredictionType, Scheduler

from .records import family, prediction_type, scheduler_record

__all__ = ["StableDiffusion"]

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class StableDiffusion:
    """The parts of a Stable Diffusion 1.x or 2.x pipeline that predict noise.

    Attributes:
        id: Directory name or hub id.
        scheduler: The pipeline's noise schedule, sampled with DDIM whatever its sampler is.
    """

    id: str
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler

    @classmethod
    def load(
        cls, model: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> StableDiffusion:
        """Load from a directory in diffusers' layout, or from the hub.

        Only safetensors are read, and no remote code runs. `HF_HUB_OFFLINE=1` keeps it local.

        Raises:
            ExportError: there is no such model, or it is not a Stable Diffusion 1.x or 2.x.
        """
        name = str(model)
        if Path(name).exists() and not (Path(name) / "model_index.json").is_file():
            raise ExportError(
                f"{name} has no model_index.json, so it is not a diffusers pipeline. "
                "Save it with `pipeline.save_pretrained(DIR)`."
            )
        if not Path(name).exists() and not _HUB_ID.fullmatch(name):
            raise ExportError(
                f"{name} is no directory, and no hub id (OWNER/NAME) either. Give a directory in "
                "diffusers' Stable Diffusion layout, or a hub id."
            )
        try:
            tokenizer = CLIPTokenizer.from_pretrained(name, subfolder="tokenizer")
            text_encoder = CLIPTextModel.from_pretrained(
                name, subfolder="text_encoder", dtype=dtype, use_safetensors=True
            )
            unet = UNet2DConditionModel.from_pretrained(
                name, subfolder="unet", torch_dtype=dtype, use_safetensors=True
            )
            scheduler = DDIMScheduler.from_pretrained(name, subfolder="scheduler")
        except (OSError, ValueError) as error:
            raise ExportError(
                f"{name} cannot be loaded: {error} Give a directory in diffusers' Stable Diffusion "
                "layout with safetensors weights, or a hub id you have access to."
            ) from error
        return cls(
            id=Path(name).resolve().name if Path(name).exists() else name,
            tokenizer=tokenizer,
            text_encoder=text_encoder.to(device).eval().requires_grad_(False),
            unet=unet.to(device).eval().requires_grad_(False),
            scheduler=scheduler,
        )

    def to(self, dtype: torch.dtype) -> StableDiffusion:
        """A copy whose weights have another dtype."""
        # nn.Module's own method: diffusers' warns of modules to keep in float32, and has none
        text_encoder, unet = (
            nn.Module.to(copy.deepcopy(part), dtype) for part in (self.text_encoder, self.unet)
        )
        return replace(self, text_encoder=text_encoder, unet=unet)

    @property
    def prediction_type(self) -> PredictionType:
        """What the UNet predicts: the noise itself or the velocity (Salimans & Ho 2022)."""
        return prediction_type(self.scheduler.config, self.id)

    @property
    def family(self) -> str:
        """ "sd1" or "sd2", told apart by the width of the text encoder."""
        return family(self.unet.config.cross_attention_dim)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents the UNet was trained on."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

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

    def sampler(self) -> DDIMScheduler:
        """A fresh DDIM sampler over the model's schedule; never clips (latents are not pixels)."""
        return DDIMScheduler.from_config(self.scheduler.config, clip_sample=False)

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> Tensor:
        """The text encoder's last hidden states.

        Returns:
            # [B, L, D]
        """
        ids = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        embeds: Tensor = self.text_encoder(ids.to(self.text_encoder.device)).last_hidden_state
        return embeds

    def to_eps(self, prediction: Tensor, latents: Tensor, timestep: Tensor | int) -> Tensor:
        """The UNet's output in eps units; for velocities sqrt(abar) v + sqrt(1 - abar) x_t."""
        if self.prediction_type == "epsilon":
            return prediction.float()
        abar = self.alphas_cumprod.to(prediction.device)[timestep]
        return abar.sqrt() * prediction.float() + (1 - abar).sqrt() * latents.float()

    def weights_sha256(self) -> str:
        """A hash over names, types and values of all weights."""
        digest = hashlib.sha256()
        for prefix, module in (("text_encoder", self.text_encoder), ("unet", self.unet)):
            assert isinstance(module, nn.Module)
            for name, value in sorted(module.state_dict().items()):
                digest.update(f"{prefix}.{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()
