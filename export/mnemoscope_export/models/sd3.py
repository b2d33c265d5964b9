"""Stable Diffusion 3 and 3.5: a transformer of joint blocks, told by two CLIPs and perhaps a T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from mnemoscope_runtime.errors import ExportError

from ..configs.sd3 import LAYOUT, check_configs, check_sides, has_t5
from .base import Configs, Embeds
from .clip import read_tokenizers
from .flow import FlowSchedule
from .mmdit import FoldedMmdit
from .on_bank import OnBank
from .sentencepiece import read_sentencepiece
from .transformer import TransformerModel, refuse_triggers

__all__ = ["StableDiffusion3"]

_T5_LENGTH = 256  # diffusers' max_sequence_length, whatever there is a T5


@dataclass(frozen=True)
class StableDiffusion3(FlowSchedule, TransformerModel):
    """The parts of a Stable Diffusion 3 pipeline that predict (Esser et al. 2024).

    Attributes:
        tokenizer: Of CLIP ViT-L; the next one of OpenCLIP ViT-bigG.
        scheduler: The pipeline's, sampled with Euler's steps.
        tokenizer_3: Of T5.
        text_encoder_3: None where the pipeline has none: the transformer is told zeros then.
    """

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModelWithProjection
    tokenizer_2: CLIPTokenizer
    text_encoder_2: CLIPTextModelWithProjection
    transformer: SD3Transformer2DModel
    scheduler: FlowMatchEulerDiscreteScheduler
    tokenizer_3: T5Tokenizer | None = None
    text_encoder_3: T5EncoderModel | None = None

    called: ClassVar[str] = "Stable Diffusion 3"
    embeddings: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_embeds")
    config_files: ClassVar[Mapping[str, str]] = LAYOUT.files
    networks: ClassVar[Mapping[str, Any]] = {
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
        "transformer": SD3Transformer2DModel,
    }
    pipeline_class: ClassVar[Any] = StableDiffusion3Pipeline
    unused: ClassVar[tuple[str, ...]] = ("feature_extractor", "image_encoder")
    shifts_latents: ClassVar[bool] = True

    @classmethod
    def check_configs(cls, configs: Configs, origin: str) -> None:
        """See `TransformerModel.check_configs`."""
        check_configs(configs, origin)

    @classmethod
    def check_sides(cls, config: Mapping[str, Any], model: str, size: tuple[int, int]) -> None:
        """They are whole patches, and no more than there are positions for."""
        check_sides(config, model, size)

    @classmethod
    def networks_of(cls, configs: Configs) -> Mapping[str, Any]:
        """All, or all but the T5."""
        whole = has_t5(configs["model_index"])
        return {name: kind for name, kind in cls.networks.items() if whole or "_3" not in name}

    @classmethod
    def read_tokenizers(cls, folder: Path, configs: Configs) -> dict[str, Any]:
        """See `Model.read_tokenizers`."""
        encoders = {f"tokenizer{n}": configs[f"text_encoder{n}"] for n in ("", "_2")}
        found: dict[str, Any] = read_tokenizers(folder, encoders)
        lengths = [each.model_max_length for each in found.values()]
        if len(set(lengths)) > 1:
            raise ExportError(
                f"{folder} has CLIP tokenizers of {lengths[0]} and {lengths[1]} tokens, but the "
                "transformer is told both side by side. Copy the model again."
            )
        refuse_triggers(folder, found, cls.called)
        if has_t5(configs["model_index"]):
            found["tokenizer_3"] = read_sentencepiece(
                T5Tokenizer, folder, "tokenizer_3", _T5_LENGTH
            )
        return found

    @classmethod
    def assemble(cls, parts: Mapping[str, Any]) -> Any:
        """See `Model.assemble`; there may be no T5."""
        return super().assemble({"tokenizer_3": None, "text_encoder_3": None, **parts})

    @property
    def family(self) -> str:
        """ "sd3" """
        return "sd3"

    @property
    def image_tokens(self) -> int:
        """How many patches a picture is."""
        _, height, width = self.latent_shape
        return height * width // int(self.transformer.config.patch_size) ** 2

    @property
    def absent(self) -> tuple[str, ...]:
        """The T5, where it was left out."""
        return ("text_encoder_3", "tokenizer_3") if self.text_encoder_3 is None else ()

    @property
    def tokens(self) -> int:
        """CLIP's, and behind them T5's."""
        return int(self.tokenizer.model_max_length) + _T5_LENGTH

    def encode(self, input_ids: Tensor) -> Embeds:
        """Embed token ids.

        Args:
            input_ids: Of the two CLIPs, and behind them of T5. # [B, 2 L] or [B, 2 L + 256]

        Returns:
            Both CLIPs' last but one hidden states side by side, filled up with zeros to the width
            of T5's, and behind them T5's last; both projected pooled states side by side.
            # ([B, L + 256, D], [B, P1 + P2])
        """
        length, width = self.tokenizer.model_max_length, self.transformer.config.joint_attention_dim
        states, pooled = [], []
        for k, encoder in enumerate((self.text_encoder, self.text_encoder_2)):
            ids = input_ids[:, k * length : (k + 1) * length]
            found = encoder(ids, output_hidden_states=True)
            states.append(found.hidden_states[-2])
            pooled.append(found.text_embeds)
        batch, own = input_ids.shape[0], sum(each.shape[-1] for each in states)
        # joined, not padded: ONNX Runtime's CUDA provider pads no bfloat16
        clip = torch.cat([*states, states[0].new_zeros(batch, length, width - own)], -1)
        if self.text_encoder_3 is None:
            t5 = clip.new_zeros(batch, _T5_LENGTH, width)
        else:  # without a mask: it reads its padding too
            t5 = self.text_encoder_3(input_ids[:, 2 * length :]).last_hidden_state
        return torch.cat([clip, t5.to(clip.dtype)], 1), torch.cat(pooled, -1)

    def predict(self, latents: Tensor, timestep: Tensor | float, embeds: Embeds) -> Tensor:
        """The transformer's output, the velocity.

        Args:
            latents: x_t. # [B, C, H, W]
            timestep: t, 0 to 1000, not rounded whatever the dtype of the weights.
            embeds: Of `encode`. # ([B, L + 256, D], [B, P1 + P2])

        Returns:
            # [B, C, H, W]
        """
        at = timestep if isinstance(timestep, Tensor) else torch.tensor(float(timestep))
        times = at.to(latents.device, torch.float32).reshape(-1).expand(latents.shape[0])
        output: Tensor = self.transformer(latents, embeds[0], embeds[1], times).sample
        return output

    def on_bank(self, noises: Tensor, timestep: int) -> OnBank:
        """The patches are embedded, and the timestep; one zero stands for all of an absent T5's."""
        zeros = _T5_LENGTH if self.text_encoder_3 is None else 0
        return FoldedMmdit(self.transformer, noises, timestep, zeros)

    def feature(self, output: Any) -> Tensor:
        """The image stream, the second of what a block returns. # [B, N, D]"""
        found: Tensor = output[1]
        return found

    def told_by(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Embeds:
        """See `Model.told_by`."""
        if pipeline.transformer is None:  # without a T5 it is asked how wide zeros are
            pipeline.register_modules(transformer=self.transformer)
        return super().told_by(pipeline, prompts, prompt_2=None, prompt_3=None, **options)

    def call_options(self, told: Embeds, empty: Embeds, size: tuple[int, int]) -> dict[str, Any]:
        """See `Model.call_options`."""
        return {
            **super().call_options(told, empty, size),
            "pooled_prompt_embeds": told[1],
            "negative_pooled_prompt_embeds": empty[1],
        }
