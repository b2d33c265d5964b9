"""Qwen-Image: a transformer of joint blocks, told by a Qwen2.5-VL that reads prompts in a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from ..configs import refuse
from ..configs.flow import flow_problems
from ..configs.layout import Layout, file_of
from ..configs.options import Option, number, off, only, problems, taken, unequal, whole
from .base import Configs, Embeds
from .masked_attention import up_to_last
from .on_bank import OnBank, shared_copy
from .packed import SIDE, PackedFlow, axes_problems
from .qwen_blocks import Attend, FoldedQwenImage, Places
from .tokenizer_files import check_bpe, read
from .transformer import refuse_triggers

__all__ = ["LAYOUT", "TEXT", "TRANSFORMER", "QwenImage"]

_LENGTH = 512  # diffusers' max_sequence_length
_DROPPED = 34  # the template's first tokens, which the transformer is not told of
_TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)

# diffusers' QwenImageTransformer2DModel
TRANSFORMER: Mapping[str, Option] = {
    "attention_head_dim": whole(128),
    "axes_dims_rope": whole((16, 56, 56), lists=True),
    "guidance_embeds": off(),
    "in_channels": whole(64),
    "joint_attention_dim": whole(3584),
    "num_attention_heads": whole(24),
    "num_layers": whole(60),
    "out_channels": whole(16),
    "patch_size": only(SIDE),
    "use_additional_t_cond": off(),
    "use_layer3d_rope": off(),
    "zero_cond_t": off(),
}
# transformers' Qwen2_5_VLTextConfig, as far as it decides what is computed
TEXT: Mapping[str, Option] = {
    "attention_dropout": number(0.0),
    "hidden_act": only("silu"),
    "hidden_size": whole(8192),
    "layer_types": Option(
        lambda v: v is None or set(v) == {"full_attention"}, "full_attention alone"
    ),
    "use_sliding_window": off(),
}


def _text_problems(config: Mapping[str, Any]) -> list[str]:
    """What in a Qwen2.5-VL's `config.json` is not covered, of the part that reads text."""
    text = config.get("text_config") or config
    found = problems(TEXT, {name: text[name] for name in TEXT if name in text})
    kind = config.get("model_type")
    return found if kind == "qwen2_5_vl" else [f"model_type is {kind!r:.60}", *found]


LAYOUT = Layout(
    draws=("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
    classes={
        "transformer": ("QwenImageTransformer2DModel",),
        "text_encoder": ("Qwen2_5_VLForConditionalGeneration",),
        "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
    },
    looks={
        "transformer": lambda config: problems(TRANSFORMER, config),
        "text_encoder": _text_problems,
        "scheduler": flow_problems,
    },
    tokenizers={},
    unused=("vae",),
)


@dataclass(frozen=True)
class QwenImage(PackedFlow):
    """The parts of a Qwen-Image pipeline that predict (Wu et al. 2025).

    Attributes:
        tokenizer: Of Qwen2.5-VL.
        text_encoder: A model of vision and language, of which the language is asked.
        scheduler: The pipeline's, sampled with Euler's steps.
    """

    tokenizer: Qwen2Tokenizer
    text_encoder: Qwen2_5_VLForConditionalGeneration
    transformer: QwenImageTransformer2DModel
    scheduler: FlowMatchEulerDiscreteScheduler

    called: ClassVar[str] = "Qwen-Image"
    embeddings: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_mask")
    reading: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"template": _TEMPLATE, "dropped": _DROPPED}
    )
    config_files: ClassVar[Mapping[str, str]] = LAYOUT.files
    networks: ClassVar[Mapping[str, Any]] = {
        "text_encoder": Qwen2_5_VLForConditionalGeneration,
        "transformer": QwenImageTransformer2DModel,
    }
    pipeline_class: ClassVar[Any] = QwenImagePipeline
    vae_class: ClassVar[Any] = AutoencoderKLQwenImage

    @classmethod
    def check_configs(cls, configs: Configs, origin: str) -> None:
        """See `TransformerModel.check_configs`."""
        refuse(origin, LAYOUT.problems(configs) or _joint_problems(configs))

    @classmethod
    def read_tokenizers(cls, folder: Path, configs: Configs) -> dict[str, Any]:  # noqa: ARG003
        """See `Model.read_tokenizers`."""
        check_bpe(folder / "tokenizer")
        tokenizer = read(Qwen2Tokenizer, folder, "tokenizer")
        tokenizer.model_max_length = _DROPPED + _LENGTH
        refuse_triggers(folder, {"tokenizer": tokenizer}, cls.called)
        return {"tokenizer": tokenizer}

    @property
    def family(self) -> str:
        """ "qwen-image" """
        return "qwen-image"

    @property
    def tokens(self) -> int:
        """Those of the prompt, and as far as they are read those of the template behind it."""
        return _LENGTH

    @property
    def keeps_length(self) -> int:
        """See `Model.keeps_length`."""
        return SIDE

    def guide(self, uncond: Tensor, cond: Tensor, guidance: float | Tensor) -> Tensor:
        """As the pipeline does, which leaves each patch's velocity as long as the prompt's."""
        guided, own = (self.packed(each) for each in (super().guide(uncond, cond, guidance), cond))
        lengths = (torch.norm(each, dim=-1, keepdim=True) for each in (own, guided))
        return self.unpacked(guided * torch.div(*lengths))

    @staticmethod
    def written_out(prompts: Sequence[str], tokenizer: Any) -> list[str]:  # noqa: ARG004
        """Prompts in the template."""
        return [_TEMPLATE.format(prompt) for prompt in prompts]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """See `Model.tokenize`: what the pipeline reads, filled up behind. # [B, 34 + 512]"""
        ids: Tensor = self.tokenizer(
            self.written_out(prompts, self.tokenizer),
            padding="max_length",
            padding_side="right",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return ids

    def encode(self, input_ids: Tensor) -> Embeds:
        """Embed token ids.

        Args:
            input_ids: Of prompts in the template. # [B, 34 + 512]

        Returns:
            The last hidden states behind the template's first tokens, zeros where there is padding;
            1 where there is none. # ([B, 512, D], [B, 512])
        """
        # a template ends in no padding, whatever the prompt says, and nothing reads what follows
        is_read = input_ids != self.tokenizer.pad_token_id
        states = self.text_encoder.model.language_model(input_ids, use_cache=False)
        told = states.last_hidden_state[:, _DROPPED:]
        mask = up_to_last(is_read, told.dtype)[:, _DROPPED:]
        return told * mask[..., None], mask

    def predict(self, latents: Tensor, timestep: Tensor | float, embeds: Embeds) -> Tensor:
        """The transformer's output, the velocity.

        Args:
            latents: x_t. # [B, C, H, W]
            timestep: t, 0 to 1000, rounded to the dtype of the weights, as in the pipeline.
            embeds: Of `encode`. # ([B, 512, D], [B, 512])

        Returns:
            # [B, C, H, W]
        """
        output: Tensor = self.transformer(
            hidden_states=self.packed(latents),
            encoder_hidden_states=embeds[0],
            encoder_hidden_states_mask=embeds[1],
            timestep=self.told(timestep, latents) / 1000,
            img_shapes=[[(1, *self.grid)]],
        ).sample
        return self.unpacked(output)

    def traceable(self) -> Self:
        """The model with a transformer that knows the places of its tokens, in real numbers."""
        network = shared_copy(self.transformer)
        image, text = self.transformer.pos_embed(
            [[(1, *self.grid)]], max_txt_seq_len=_LENGTH, device=self.transformer.device
        )
        network.pos_embed = Places(image, text)
        network.set_attn_processor(Attend())
        return self.with_network(network)

    def on_bank(self, noises: Tensor, timestep: int) -> OnBank:
        """The patches are embedded, and all that the timestep makes of blocks is computed."""
        return FoldedQwenImage(self.traceable(), noises, timestep)

    def told_by(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Embeds:
        """See `Model.told_by`; filled up to the length of a bundle."""
        told, mask = pipeline.encode_prompt(
            list(prompts or [self.negative or ""]),
            device=self.network.device,
            max_sequence_length=_LENGTH,
            **options,
        )
        mask = told.new_ones(told.shape[:2]) if mask is None else mask.to(told.dtype)
        more = _LENGTH - told.shape[1]
        pad = nn.functional.pad
        return pad(told, (0, 0, 0, more)), pad(mask, (0, more))

    def call_options(self, told: Embeds, empty: Embeds, size: tuple[int, int]) -> dict[str, Any]:
        """See `Model.call_options`."""
        return {
            **super().call_options(told, empty, size),
            "prompt_embeds_mask": told[1],
            "negative_prompt_embeds_mask": empty[1],
        }


def _joint_problems(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What does not fit together."""
    own = taken(TRANSFORMER, configs["transformer"])
    encoder = configs["text_encoder"]
    told = (encoder.get("text_config") or encoder).get("hidden_size", TEXT["hidden_size"].default)
    found = unequal(
        own,
        ("joint_attention_dim", "Qwen2.5-VL's hidden_size", told),
        ("in_channels", f"{SIDE**2} x out_channels", own["out_channels"] * SIDE**2),
    )
    found += axes_problems(own)
    return [f"{file_of('transformer')}: {each}" for each in found]
