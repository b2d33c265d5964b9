"""Stable Diffusion in PyTorch, as far as the magnitude needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.loaders import TextualInversionLoaderMixin
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.manifest import AdapterRecord, ModelRecord, PredictionType, Scheduler

from ..configs import sample_size
from ..records import check_latent_size, family, prediction_type, scheduler_record
from .checkpoint import canonical
from .masked import Masked
from .options import LoadOptions

__all__ = ["Embeds", "StableDiffusion"]

Embeds = tuple[Tensor, ...]  # what the UNet is told of prompts: one tensor for each name


@dataclass(frozen=True)
class StableDiffusion:
    """The parts of a Stable Diffusion 1.x or 2.x pipeline that predict noise.

    Attributes:
        id: Directory name or hub id.
        scheduler: The pipeline's noise schedule, sampled with DDIM whatever its sampler is.
        latent_size: (H, W) of the latents; None is what the UNet was trained on.
        variant: Of the files it was loaded from.
        adapters: What was put into the weights.
        clip_skip: How many of the text encoder's last layers are left out for prompts; the
            unconditional branch sees all, as in diffusers' pipelines.
        negative: What the unconditional branch is told instead of the empty prompt.
        source: What it was loaded from, and how; None if it was put together in memory.
        masked: What an inpainting UNet is given beside noise.
        embeddings: Names of what `embed` returns.
    """

    id: str
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler
    latent_size: tuple[int, int] | None = field(default=None, kw_only=True)
    variant: str | None = field(default=None, kw_only=True)
    adapters: tuple[AdapterRecord, ...] = field(default=(), kw_only=True)
    clip_skip: int | None = field(default=None, kw_only=True)
    negative: str | None = field(default=None, kw_only=True)
    source: tuple[str, LoadOptions] | None = field(default=None, kw_only=True, repr=False)
    masked: Masked | None = field(default=None, kw_only=True)

    embeddings: ClassVar[tuple[str, ...]] = ("prompt_embeds",)

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        options: LoadOptions | None = None,
    ) -> StableDiffusion:
        """Load any supported family from a directory in diffusers' layout, a file, or the hub.

        Only safetensors are read, and no remote code runs. `HF_HUB_OFFLINE=1` keeps it local.

        Args:
            model: Directory, hub id, or a single-file checkpoint (.safetensors) with a directory
                of its family's configs in the options.
            dtype: Of the weights.
            device: Where they go.
            options: Which files are read, what is added to the weights, what the branches are told.

        Raises:
            ExportError: there is no such model, or something in its configs is not covered: all of
                it is named, before any weights are read; or an adapter does not fit it.
            InputError: the UNet cannot halve latents of that size as often as it does, or options
                do not go together.
            BackendUnavailable: LoRA adapters are asked for, and peft is not installed.
        """
        from .loading import load  # knows the families, which know this class

        return load(str(model), dtype, device, options or LoadOptions())

    @property
    def zero_empty(self) -> bool:
        """The unconditional branch gets zeros, not the embedded empty prompt."""
        return False

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks, by the names of their fields."""
        return {"text_encoder": self.text_encoder, "unet": self.unet}

    def to(self, dtype: torch.dtype, *, copy: bool = True) -> Self:
        """The model with weights of another dtype: a copy, or itself changed in place."""
        # nn.Module's own method: diffusers' warns of modules to keep in float32, and has none
        parts: dict[str, Any] = {
            name: nn.Module.to(deepcopy(part) if copy else part, dtype)
            for name, part in self.parts.items()
        }
        return replace(self, **parts)

    def resized(self, size: tuple[int, int]) -> Self:
        """The model (weights shared) on latents of another height and width.

        Raises:
            InputError: the UNet cannot halve them as often as it does, or it inpaints: its mask has
                the size that it was loaded with.
        """
        check_latent_size(self.unet.config, self.id, size)
        if self.masked is not None and self.masked.inputs.shape[2:] != size:
            raise InputError(
                f"{self.id} inpaints, and its mask has the size it was loaded with. Load it with "
                f"LoadOptions(latent_size={size})."
            )
        return replace(self, latent_size=size)

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
        """(C, H, W) of the latents: those the UNet was trained on, unless resized."""
        height, width = self.latent_size or sample_size(self.unet.config)
        return self.unet.config.out_channels, height, width

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

    @property
    def tokenizers(self) -> dict[str, tuple[CLIPTokenizer, int]]:
        """Each tokenizer, and how many embeddings its text encoder has."""
        rows: int = self.text_encoder.get_input_embeddings().weight.shape[0]
        return {"tokenizer": (self.tokenizer, rows)}

    @staticmethod
    def written_out(prompts: Sequence[str], tokenizer: CLIPTokenizer) -> list[str]:
        """Prompts with each trigger of several vectors written out, as diffusers' pipelines do."""
        return list(TextualInversionLoaderMixin().maybe_convert_prompt(list(prompts), tokenizer))

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """What `encode` takes, as diffusers' pipeline tokenizes.

        Returns:
            The ids of each tokenizer side by side. # [B, L] for one
        """
        found = []
        for tokenizer, _ in self.tokenizers.values():
            ids = tokenizer(
                self.written_out(prompts, tokenizer),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            found.append(ids)
        return torch.cat(found, dim=1)

    def encode(self, input_ids: Tensor) -> Embeds:
        """Embed token ids.

        Args:
            input_ids: # [B, L]

        Returns:
            The text encoder's last hidden states, or those before the layers that are left out.
            # ([B, L, D],)
        """
        if self.clip_skip is None:
            return (self.text_encoder(input_ids).last_hidden_state,)
        states = self.text_encoder(input_ids, output_hidden_states=True).hidden_states
        encoder = getattr(self.text_encoder, "text_model", self.text_encoder)  # transformers 5.5
        return (encoder.final_layer_norm(states[-1 - self.clip_skip]),)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Embeds:
        """`tokenize` and `encode`."""
        return self.encode(self.tokenize(prompts).to(self.text_encoder.device))

    def embed_empty(self) -> Embeds:
        """What the unconditional branch is told: the empty or negative prompt. # ([1, L, D],)"""
        whole = self if self.clip_skip is None else replace(self, clip_skip=None)
        return whole.embed([self.negative or ""])

    @property
    def own_empty(self) -> bool:
        """What the unconditional branch is told is not what the empty prompt is embedded as."""
        return not self.zero_empty and (self.clip_skip is not None or bool(self.negative))

    def predict(self, latents: Tensor, timestep: Tensor | int, embeds: Embeds) -> Tensor:
        """The UNet's output, whatever it predicts; see `to_eps`.

        Args:
            latents: x_t. # [B, C, H, W]
            timestep: t
            embeds: Of `encode`. # ([B, L, D],)

        Returns:
            # [B, C, H, W]
        """
        output: Tensor = self.unet(self.unet_input(latents), timestep, embeds[0]).sample
        return output

    def unet_input(self, latents: Tensor) -> Tensor:
        """Latents, and behind them what an inpainting UNet is given. # [B, C or 2 C + 1, H, W]"""
        return latents if self.masked is None else self.masked.beside(latents)

    def to_eps(self, prediction: Tensor, latents: Tensor, timestep: Tensor | int) -> Tensor:
        """The UNet's output in eps units; for velocities sqrt(abar) v + sqrt(1 - abar) x_t."""
        if self.prediction_type == "epsilon":
            return prediction.float()
        abar = self.alphas_cumprod.to(prediction.device)[timestep]
        return abar.sqrt() * prediction.float() + (1 - abar).sqrt() * latents.float()

    def difference(self, record: ModelRecord, weights_sha256: str | None = None) -> str | None:
        """What a bundle's model differs in, "whose ... not those"; None if it is this one.

        Args:
            record: The bundle's.
            weights_sha256: This model's, if it is known.
        """
        if record.weights_sha256 != (weights_sha256 or self.weights_sha256()):
            return "whose weights are not those"
        if (record.clip_skip or 0) != (self.clip_skip or 0):
            return f"whose clip_skip, {record.clip_skip}, is not that"
        if record.negative != self.negative:
            return f"whose negative prompt, {record.negative!r}, is not that"
        if record.inpainting != (None if self.masked is None else self.masked.vae_sha256):
            return "whose VAE, which makes the latents of the masked picture, is not that"
        return None

    def weights_sha256(self) -> str:
        """A hash over names, types and values of all weights; the same in any transformers."""
        digest = hashlib.sha256()
        for prefix, module in self.parts.items():
            state = {canonical(name): value for name, value in module.state_dict().items()}
            for name, value in sorted(state.items()):
                digest.update(f"{prefix}.{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()
