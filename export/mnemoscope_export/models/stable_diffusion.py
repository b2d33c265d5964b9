"""Stable Diffusion 1.x and 2.x: one text encoder, and a UNet told what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.manifest import ModelRecord

from ..configs import check_configs, inpaints, sample_size
from ..records import check_clip_skip, check_latent_size, family
from .base import Configs, Embeds, Model
from .clip import read_tokenizers
from .folding import FoldedUNet, without_batch_limit
from .layers import decoder_layers, prompted_layers
from .loading import load, load_vae
from .masked import Masked, mask_all
from .on_bank import OnBank
from .options import LoadOptions
from .schedule import DdimSchedule

__all__ = ["StableDiffusion"]


@dataclass(frozen=True)
class StableDiffusion(DdimSchedule, Model):
    """The parts of a Stable Diffusion 1.x or 2.x pipeline that predict noise.

    Attributes:
        scheduler: The pipeline's noise schedule, sampled with DDIM whatever its sampler is.
        clip_skip: How many of the text encoder's last layers are left out for prompts; the
            unconditional branch sees all, as in diffusers' pipelines.
        masked: What an inpainting UNet is given beside noise.
    """

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler
    clip_skip: int | None = field(default=None, kw_only=True)
    masked: Masked | None = field(default=None, kw_only=True)

    networks: ClassVar[Mapping[str, Any]] = {
        "text_encoder": CLIPTextModel,
        "unet": UNet2DConditionModel,
    }
    pipeline_class: ClassVar[Any] = StableDiffusionPipeline
    unused: ClassVar[tuple[str, ...]] = ("safety_checker", "feature_extractor", "image_encoder")

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        options: LoadOptions | None = None,
    ) -> Self:
        """Load a Stable Diffusion, XL included; `load_model` takes every family, just so.

        Raises:
            ExportError: there is no such model, it is of another family, or something in its
                configs is not covered: all of it is named, before any weights are read; or an
                adapter does not fit it.
            InputError: the UNet cannot halve latents of that size as often as it does, or options
                do not go together.
            BackendUnavailable: LoRA adapters are asked for, and peft is not installed.
        """
        return load(cls, str(model), dtype, device, options or LoadOptions())

    @classmethod
    def check(cls, configs: Configs, model: str, origin: str, options: LoadOptions) -> None:
        """See `Model.check`."""
        size = options.latent_size
        check_configs(configs, origin, is_resized=size is not None)
        if size is not None:
            check_latent_size(configs["unet"], model, size)
        check_clip_skip(configs, options.clip_skip)

    @classmethod
    def read_tokenizers(cls, folder: Path, configs: Configs) -> dict[str, CLIPTokenizer]:
        """See `Model.read_tokenizers`."""
        return read_tokenizers(folder, {"tokenizer": configs["text_encoder"]})

    @classmethod
    def read_scheduler(cls, folder: Path) -> DDIMScheduler:
        """With the offset that diffusers' pipeline sets, whatever is there."""
        return DDIMScheduler.from_pretrained(folder, subfolder="scheduler", steps_offset=1)

    @classmethod
    def other_fields(cls, configs: Configs, model: str, options: LoadOptions) -> dict[str, Any]:
        """See `Model.other_fields`."""
        masked = None
        if inpaints(configs["unet"]):
            size = options.latent_size or sample_size(configs["unet"])
            masked = mask_all(load_vae(model, options), size)
        return {"clip_skip": options.clip_skip, "masked": masked}

    @classmethod
    def assemble(cls, parts: Mapping[str, Any]) -> Any:
        """See `Model.assemble`; the scheduler is a copy, since a pipeline corrects it."""
        scheduler = DDIMScheduler.from_config(parts["scheduler"].config)
        given = {"vae": None, **parts, "scheduler": scheduler}
        return StableDiffusionPipeline(
            **given, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )

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
    def tokenizers(self) -> dict[str, tuple[CLIPTokenizer, int]]:
        """Each tokenizer by its field, and how many embeddings its text encoder has."""
        return {"tokenizer": (self.tokenizer, _rows(self.text_encoder))}

    def record(self) -> ModelRecord:
        """See `Model.record`."""
        return replace(super().record(), clip_skip=self.clip_skip, inpainting=self._masked_by)

    def difference(self, record: ModelRecord, weights_sha256: str | None = None) -> str | None:
        """See `Model.difference`."""
        if found := super().difference(record, weights_sha256):
            return found
        if (record.clip_skip or 0) != (self.clip_skip or 0):
            return f"whose clip_skip, {record.clip_skip}, is not that"
        if record.inpainting != self._masked_by:
            return "whose VAE, which makes the latents of the masked picture, is not that"
        return None

    @property
    def _masked_by(self) -> str | None:
        return None if self.masked is None else self.masked.vae_sha256

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
        return super().resized(size)

    def traceable(self) -> Self:
        """The model (weights shared) with upsampling that does not look at the batch size."""
        return self.with_network(without_batch_limit(self.unet))

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

    def embed_empty(self) -> Embeds:
        """What the unconditional branch is told: the empty or negative prompt. # ([1, L, D],)"""
        whole = self if self.clip_skip is None else replace(self, clip_skip=None)
        return whole.embed([self.negative or ""])

    @property
    def own_empty(self) -> bool:
        """What the unconditional branch is told is not what the empty prompt is embedded as."""
        return super().own_empty or (self.clip_skip is not None and not self.zero_empty)

    def predict(self, latents: Tensor, timestep: Tensor | float, embeds: Embeds) -> Tensor:
        """The UNet's output, whatever it predicts; see `in_unit`.

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

    def on_bank(self, noises: Tensor, timestep: int) -> OnBank:
        """All up to the first cross-attention is computed, and the time embedding."""
        return FoldedUNet(self.unet, self.unet_input(noises), timestep)

    def tappable(self) -> list[str]:
        """Resnets, attentions and resamplers behind the UNet's first cross-attention."""
        return prompted_layers(self.unet)

    def auto_taps(self) -> list[str]:
        """Resnets and attentions of the first two blocks of the decoder."""
        return decoder_layers(self.unet)

    @property
    def draws_alike(self) -> bool:
        """Not where it inpaints: the pipeline samples what is behind the mask."""
        return self.masked is None

    def told_by(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Embeds:
        """See `Model.told_by`."""
        encoder = pipeline.text_encoder
        if self.clip_skip is not None and not hasattr(encoder, "text_model"):
            encoder.__dict__["text_model"] = encoder  # where diffusers looks: transformers < 5.6
        return super().told_by(pipeline, prompts, clip_skip=self.clip_skip, **options)


def _rows(text_encoder: Any) -> int:
    rows: int = text_encoder.get_input_embeddings().weight.shape[0]
    return rows
