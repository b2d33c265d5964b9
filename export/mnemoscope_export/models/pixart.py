"""PixArt-Sigma: a transformer that predicts noise, told by a T5 that reads no padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from diffusers import DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from transformers import T5EncoderModel, T5Tokenizer

from ..configs import refuse, scheduler_problems
from ..configs.flow import t5_problems
from ..configs.layout import T5_TOKENIZER, Layout, file_of
from ..configs.options import Option, flag, free, number, off, only, problems, taken, unequal, whole
from ..configs.parts import SAMPLERS
from .base import Configs, Embeds
from .cross_attending import CrossAttendingModel
from .masked_attention import AttendMasked, unread, up_to_last
from .on_bank import OnBank, for_each_noise, for_each_prompt, shared_copy
from .schedule import DdimSchedule
from .sentencepiece import read_sentencepiece
from .transformer import refuse_triggers

__all__ = ["LAYOUT", "TRANSFORMER", "PixArtSigma"]

_LENGTH = 300  # diffusers' max_sequence_length

# diffusers' PixArtTransformer2DModel, and what older versions wrote of its predecessor
TRANSFORMER: Mapping[str, Option] = {
    "activation_fn": only("gelu-approximate"),
    "attention_bias": flag(default=True),
    "attention_head_dim": whole(72),
    "attention_type": only("default"),
    "caption_channels": whole(None),
    "cross_attention_dim": whole(1152),
    "dropout": number(0.0),
    "in_channels": whole(4),
    "interpolation_scale": whole(None, nulls=True),
    "norm_elementwise_affine": flag(default=False),
    "norm_eps": number(1e-6),
    "norm_num_groups": free(32),
    "norm_type": only("ada_norm_single"),
    "num_attention_heads": whole(16),
    "num_embeds_ada_norm": whole(1000),
    "num_layers": whole(28),
    "out_channels": whole(8, nulls=True),
    "patch_size": whole(2),
    "sample_size": whole(128),
    "upcast_attention": flag(default=False),
    "use_additional_conditions": free(),  # see `_joint_problems`
}
_OF_OLD: Mapping[str, Option] = {
    "double_self_attention": off(),
    "num_vector_embeds": only(None),
    "only_cross_attention": off(),
    "use_linear_projection": off(),
}
LAYOUT = Layout(
    draws=("PixArtSigmaPipeline",),
    classes={
        "transformer": ("PixArtTransformer2DModel", "Transformer2DModel"),
        "text_encoder": ("T5EncoderModel",),
        "tokenizer": T5_TOKENIZER,
        "scheduler": tuple(sorted(SAMPLERS)),
    },
    looks={
        "transformer": lambda config: problems({**TRANSFORMER, **_OF_OLD}, config),
        "text_encoder": t5_problems,
        "scheduler": scheduler_problems,
    },
    tokenizers={},
    unused=("vae",),
)


@dataclass(frozen=True)
class PixArtSigma(DdimSchedule, CrossAttendingModel):
    """The parts of a PixArt-Sigma pipeline that predict (Chen et al. 2024).

    Attributes:
        tokenizer: Of T5, whose prompts are in lower case.
        scheduler: The pipeline's noise schedule, sampled with DDIM whatever its sampler is.
    """

    tokenizer: T5Tokenizer
    text_encoder: T5EncoderModel
    transformer: PixArtTransformer2DModel
    scheduler: DDIMScheduler

    called: ClassVar[str] = "PixArt-Sigma"
    reading: ClassVar[Mapping[str, Any]] = MappingProxyType({"lowercase": True})
    config_files: ClassVar[Mapping[str, str]] = LAYOUT.files
    networks: ClassVar[Mapping[str, Any]] = {
        "text_encoder": T5EncoderModel,
        "transformer": PixArtTransformer2DModel,
    }
    pipeline_class: ClassVar[Any] = PixArtSigmaPipeline
    patch_size: ClassVar[int] = 2

    @classmethod
    def check_configs(cls, configs: Configs, origin: str) -> None:
        """See `TransformerModel.check_configs`."""
        refuse(origin, LAYOUT.problems(configs) or _joint_problems(configs))

    @classmethod
    def read_tokenizers(cls, folder: Path, configs: Configs) -> dict[str, Any]:  # noqa: ARG003
        """See `Model.read_tokenizers`."""
        found = {"tokenizer": read_sentencepiece(T5Tokenizer, folder, "tokenizer", _LENGTH)}
        refuse_triggers(folder, found, cls.called)
        return found

    @property
    def family(self) -> str:
        """ "pixart-sigma" """
        return "pixart-sigma"

    @staticmethod
    def written_out(prompts: Sequence[str], tokenizer: Any) -> list[str]:  # noqa: ARG004
        """Prompts in lower case, without space around them."""
        return [prompt.lower().strip() for prompt in prompts]

    def encode(self, input_ids: Tensor) -> Embeds:
        """Embed token ids.

        Args:
            input_ids: # [B, 300]

        Returns:
            T5's last hidden states, and 1 where a token is the prompt's or its end.
            # ([B, 300, D], [B, 300])
        """
        # padding holds no end, whatever the prompt says
        is_end = input_ids == self.text_encoder.config.eos_token_id
        mask = up_to_last(is_end, self.text_encoder.dtype)
        # of ones and zeros transformers looks up each pair of tokens, which CUDA cannot of booleans
        bias = (1 - mask)[:, None, None] * torch.finfo(mask.dtype).min
        return self.text_encoder(input_ids, attention_mask=bias).last_hidden_state, mask

    def predict(self, latents: Tensor, timestep: Tensor | float, embeds: Embeds) -> Tensor:
        """The predicted noise; what the transformer says of its variance is left out.

        Args:
            latents: x_t. # [B, C, H, W]
            timestep: t
            embeds: Of `encode`. # ([B, 300, D], [B, 300])

        Returns:
            # [B, C, H, W]
        """
        at = timestep if isinstance(timestep, Tensor) else torch.tensor(timestep)
        output: Tensor = self.transformer(
            latents,
            encoder_hidden_states=embeds[0],
            timestep=at.to(latents.device).reshape(-1).expand(latents.shape[0]),
            encoder_attention_mask=embeds[1],
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return self.unpacked(output)

    def traceable(self) -> Self:
        """The model with attention whose masks have any batch size."""
        network = shared_copy(self.transformer)
        network.set_attn_processor(AttendMasked())
        return self.with_network(network)

    def on_bank(self, noises: Tensor, timestep: int) -> OnBank:
        """All is computed that comes before the first block is told of the prompt."""
        return _Folded(self, noises, timestep)

    def both(self, outputs: Sequence[Tensor]) -> Tensor:
        """See `Model.both`."""
        return self.unpacked(super().both(outputs))

    def unpacked(self, latents: Tensor) -> Tensor:
        """The noise, without what is said of its variance behind it. # [B, C, H, W]"""
        return latents[:, : self.transformer.config.in_channels]


class _Rest(nn.Module):
    """A block from where it is told of the prompt: attention to it, and the two layers behind."""

    def __init__(self, block: BasicTransformerBlock, time: Tensor) -> None:
        super().__init__()
        self.attn2, self.norm2, self.ff = block.attn2, block.norm2, block.ff
        self.modulation: Tensor
        self.register_buffer("modulation", _modulation(block, time))

    def forward(self, x: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        """See diffusers' BasicTransformerBlock, "ada_norm_single". # [B, N, D]"""
        _, _, _, shift, scale, gate = self.modulation.chunk(6, dim=1)
        x = self.attn2(x, encoder_hidden_states=text, attention_mask=bias) + x
        out: Tensor = gate * self.ff(self.norm2(x) * (1 + scale) + shift) + x
        return out


class _Folded(OnBank):
    """A transformer at one timestep, on a bank of noises.

    No prompt changes the timestep's embedding, so of the first block no prompt changes what comes
    before its attention to the text: the patches' attention to each other.
    """

    def __init__(self, model: PixArtSigma, noises: Tensor, timestep: int) -> None:
        super().__init__()
        self.transformer = own = model.traceable().transformer
        self.size, self.unpacked = noises.shape[2:], model.unpacked
        first = own.transformer_blocks[0]
        with torch.no_grad():
            at = torch.tensor([timestep], device=noises.device)
            time, embedded = own.adaln_single(at, batch_size=1, hidden_dtype=noises.dtype)
            shift, scale, gate, *_ = _modulation(first, time).chunk(6, dim=1)
            rows = []
            for noise in noises:
                x = own.pos_embed(noise[None])
                attended = first.attn1(first.norm1(x) * (1 + scale) + shift)
                rows.append(x + gate * attended)
        self.attended: Tensor
        self.register_buffer("attended", torch.cat(rows))
        self.time: Tensor
        self.register_buffer("time", time)
        self.embedded: Tensor
        self.register_buffer("embedded", embedded)
        own.transformer_blocks[0] = _Rest(first, time)

    @property
    def network(self) -> PixArtTransformer2DModel:
        """The transformer."""
        return self.transformer

    def forward(self, embeds: Embeds, noise_index: Tensor) -> Tensor:
        """See `OnBank`; of what it is told. # ([B, L, D], [B, L])"""
        (told, mask), count, own = embeds, noise_index.shape[0], self.transformer
        x = for_each_prompt(self.attended[noise_index], told.shape[0])
        text = for_each_noise(own.caption_projection(told), count)
        bias = for_each_noise(unread(mask), count)
        first, *others = own.transformer_blocks
        x = first(x, text, bias)
        time = self.time.expand(x.shape[0], -1)
        for block in others:
            x = block(x, encoder_hidden_states=text, encoder_attention_mask=bias, timestep=time)
        shift, scale = (own.scale_shift_table[None] + self.embedded[:, None]).chunk(2, dim=1)
        x = own.proj_out(own.norm_out(x) * (1 + scale) + shift)
        side, channels, (height, width) = own.config.patch_size, own.out_channels, self.size
        x = x.reshape(-1, height // side, width // side, side, side, channels)
        return self.unpacked(x.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, height, width))


def _modulation(block: BasicTransformerBlock, time: Tensor) -> Tensor:
    """What shifts, scales and gates a block's layers. # [1, 6, D]"""
    found: Tensor = block.scale_shift_table[None] + time.reshape(1, 6, -1)
    return found.detach()


def _joint_problems(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What does not fit together."""
    own = taken(TRANSFORMER, configs["transformer"])
    width = own["num_attention_heads"] * own["attention_head_dim"]
    told = configs["text_encoder"].get("d_model", 512)
    found = unequal(
        own,
        ("caption_channels", "T5's d_model", told),
        ("cross_attention_dim", "num_attention_heads x attention_head_dim", width),
    )
    channels = own["in_channels"]
    if own["out_channels"] not in (None, channels, 2 * channels):
        found.append(
            f"out_channels is {own['out_channels']} (must be in_channels, {channels}, or twice as "
            "many, with a variance)"
        )
    if own["sample_size"] % own["patch_size"]:
        found.append(f"sample_size is {own['sample_size']} (must be whole patches)")
    resolutions = own["use_additional_conditions"]
    if resolutions or (resolutions is None and own["sample_size"] == 128):
        found.append(
            "use_additional_conditions is not false: it is told a resolution too, as PixArt-Alpha"
        )
    return [f"{file_of('transformer')}: {each}" for each in found]
