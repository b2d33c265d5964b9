"""FLUX.1 dev and schnell: transformers without an unconditional branch, told by a CLIP and a T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.families import FAMILIES
from mnemoscope_runtime.manifest import ModelRecord

from ..configs import refuse
from ..configs.flow import flow_problems, t5_problems
from ..configs.layout import CLIP_TOKENIZER, T5_TOKENIZER, Layout, file_of
from ..configs.options import Option, flag, only, problems, taken, unequal, whole
from ..configs.parts import TEXT_ENCODER, tokenizer_problems
from ..options import ExportOptions
from .base import Configs, Embeds
from .clip import read_tokenizers
from .on_bank import OnBank, for_each_noise, for_each_prompt, shared_copy
from .options import LoadOptions
from .packed import SIDE, PackedFlow, axes_problems
from .sentencepiece import read_sentencepiece
from .transformer import refuse_triggers

__all__ = ["LAYOUT", "TRANSFORMER", "Flux"]

_T5_LENGTH = {True: 512, False: 256}  # by whether guidance is an input: dev's, and schnell's

# diffusers' FluxTransformer2DModel
TRANSFORMER: Mapping[str, Option] = {
    "attention_head_dim": whole(128),
    "axes_dims_rope": whole((16, 56, 56), lists=True),
    "guidance_embeds": flag(default=False),
    "in_channels": whole(64),
    "joint_attention_dim": whole(4096),
    "num_attention_heads": whole(24),
    "num_layers": whole(19, 0),
    "num_single_layers": whole(38, 0),
    "out_channels": whole(None, nulls=True),
    "patch_size": only(1),
    "pooled_projection_dim": whole(768),
}
LAYOUT = Layout(
    draws=("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
    classes={
        "transformer": ("FluxTransformer2DModel",),
        "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("T5EncoderModel",),
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": T5_TOKENIZER,
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
    },
    looks={
        "transformer": lambda config: problems(TRANSFORMER, config),
        "text_encoder": lambda config: problems(TEXT_ENCODER, config),
        "text_encoder_2": t5_problems,
        "scheduler": flow_problems,
    },
    tokenizers={"tokenizer": tokenizer_problems},
    unused=("feature_extractor", "image_encoder", "vae"),
)


def _unguided(model: str) -> str:
    """Why a schnell takes no guidance."""
    return (
        f"{model} is a schnell, whose transformer is told no guidance, and which draws without "
        "any. Leave --guidance out; in Python `guidance` is None."
    )


@dataclass(frozen=True)
class Flux(PackedFlow):
    """The parts of a FLUX.1 pipeline that predict.

    Guidance was distilled into it. What a prompt is compared with is the empty prompt at the same
    guidance, which the pipeline itself never runs.

    Attributes:
        tokenizer: Of CLIP ViT-L, whose pooled state is told; the next one of T5.
        scheduler: The pipeline's, sampled with Euler's steps.
        guidance: What dev's transformer is told; schnell's is not told any.
    """

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    tokenizer_2: T5Tokenizer
    text_encoder_2: T5EncoderModel
    transformer: FluxTransformer2DModel
    scheduler: FlowMatchEulerDiscreteScheduler
    guidance: float = field(default=FAMILIES["flux-dev"].guidance, kw_only=True)

    called: ClassVar[str] = "FLUX.1"
    embeddings: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_embeds")
    config_files: ClassVar[Mapping[str, str]] = LAYOUT.files
    networks: ClassVar[Mapping[str, Any]] = {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
        "transformer": FluxTransformer2DModel,
    }
    pipeline_class: ClassVar[Any] = FluxPipeline
    unused: ClassVar[tuple[str, ...]] = ("feature_extractor", "image_encoder")
    shifts_latents: ClassVar[bool] = True

    @classmethod
    def check(cls, configs: Configs, model: str, origin: str, options: LoadOptions) -> None:
        """See `Model.check`."""
        super().check(configs, model, origin, options)
        if options.negative is not None:
            raise InputError(
                f"{model} is of the family {cls.called}, which draws without an unconditional "
                "branch, so there is nothing that a negative prompt would be told to. Leave it out."
            )

    @classmethod
    def check_configs(cls, configs: Configs, origin: str) -> None:
        """See `TransformerModel.check_configs`."""
        refuse(origin, LAYOUT.problems(configs) or _joint_problems(configs))

    @classmethod
    def read_tokenizers(cls, folder: Path, configs: Configs) -> dict[str, Any]:
        """See `Model.read_tokenizers`."""
        found: dict[str, Any] = read_tokenizers(folder, {"tokenizer": configs["text_encoder"]})
        length = _T5_LENGTH[bool(configs["transformer"].get("guidance_embeds"))]
        found["tokenizer_2"] = read_sentencepiece(T5Tokenizer, folder, "tokenizer_2", length)
        refuse_triggers(folder, found, cls.called)
        return found

    @property
    def family(self) -> str:
        """ "flux-dev", whose guidance is an input, or "flux-schnell" """
        return "flux-dev" if self.is_guided else "flux-schnell"

    @property
    def is_guided(self) -> bool:
        """Whether the transformer is told a guidance."""
        return bool(self.transformer.config.guidance_embeds)

    @property
    def tokens(self) -> int:
        """T5's: of CLIP the pooled state alone is told."""
        return int(self.tokenizer_2.model_max_length)

    def record(self) -> ModelRecord:
        """What the manifest says of it: also the guidance that is told."""
        return replace(super().record(), told_guidance=self.usual_guidance)

    def difference(self, record: ModelRecord, weights_sha256: str | None = None) -> str | None:
        """See `Model.difference`."""
        if found := super().difference(record, weights_sha256):
            return found
        if record.told_guidance != self.usual_guidance:
            return f"which is told a guidance of {record.told_guidance}, not that"
        return None

    @property
    def usual_guidance(self) -> float | None:
        """What dev's transformer is told; none for schnell."""
        return self.guidance if self.is_guided else None

    def told_as(self, record: ModelRecord) -> Self:
        """See `Model.told_as`: a guidance, if it is a dev."""
        if not self.is_guided or record.told_guidance is None:
            return self
        return replace(self, guidance=record.told_guidance)

    @classmethod
    def refused(cls, configs: Configs, model: str, options: ExportOptions) -> list[str]:
        """See `Model.refused`; schnell is told no guidance."""
        found = super().refused(configs, model, options)
        if options.guidance is not None and not configs["transformer"].get("guidance_embeds"):
            found.append(_unguided(model))
        return found

    def guided(self, guidance: float | None) -> tuple[Self, float]:
        """The model told a guidance. Its prediction is taken as it is.

        Raises:
            InputError: it is not told any.
        """
        if guidance is None:
            return self, 1.0
        if not self.is_guided:
            raise InputError(_unguided(self.id))
        return replace(self, guidance=float(guidance)), 1.0

    def traceable(self) -> Self:
        """The model with a transformer that knows the places of its tokens."""
        network = shared_copy(self.transformer)
        network.pos_embed = _Places(self)
        return self.with_network(network)

    def encode(self, input_ids: Tensor) -> Embeds:
        """Embed token ids.

        Args:
            input_ids: Of CLIP, and behind them of T5. # [B, L + 512], of schnell [B, L + 256]

        Returns:
            T5's last hidden states, without a mask; CLIP's pooled state. # ([B, 512, D], [B, P])
        """
        length = self.tokenizer.model_max_length
        pooled = self.text_encoder(input_ids[:, :length]).pooler_output
        return self.text_encoder_2(input_ids[:, length:]).last_hidden_state, pooled

    def predict(self, latents: Tensor, timestep: Tensor | float, embeds: Embeds) -> Tensor:
        """The transformer's output, the velocity.

        Args:
            latents: x_t. # [B, C, H, W]
            timestep: t, 0 to 1000, rounded to the dtype of the weights, as in the pipeline.
            embeds: Of `encode`. # ([B, 512, D], [B, P])

        Returns:
            # [B, C, H, W]
        """
        text, image = self.places()
        output: Tensor = self.transformer(
            hidden_states=self.packed(latents),
            encoder_hidden_states=embeds[0],
            pooled_projections=embeds[1],
            timestep=self.told(timestep, latents) / 1000,
            guidance=self.told(self.guidance, latents) if self.is_guided else None,
            txt_ids=text,
            img_ids=image,
        ).sample
        return self.unpacked(output)

    def places(self) -> tuple[Tensor, Tensor]:
        """Places of the text's tokens, all alike, and of the patches. # [512, 3], [N, 3]"""
        own = self.transformer
        image = FluxPipeline._prepare_latent_image_ids(1, *self.grid, own.device, own.dtype)
        return image.new_zeros(self.tokens, 3), image

    def on_bank(self, noises: Tensor, timestep: int) -> OnBank:
        """The patches are embedded, and the timestep and the guidance."""
        return _Folded(self, noises, timestep)

    def tappable(self) -> list[str]:
        """The blocks: what is compared is their image stream."""
        config = self.transformer.config
        return [
            *(f"transformer_blocks.{i}" for i in range(config.num_layers)),
            *(f"single_transformer_blocks.{i}" for i in range(config.num_single_layers)),
        ]

    def told_by(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Embeds:
        """See `Model.told_by`."""
        found = pipeline.encode_prompt(
            prompt=list(prompts or [""]),
            device=self.network.device,
            max_sequence_length=self.tokens,
            **options,
        )
        return tuple(found[:2])

    def call_options(self, told: Embeds, empty: Embeds, size: tuple[int, int]) -> dict[str, Any]:
        """See `Model.call_options`; guidance of two branches is what the pipeline calls true."""
        return {
            **super().call_options(told, empty, size),
            "pooled_prompt_embeds": told[1],
            "negative_pooled_prompt_embeds": empty[1],
            "guidance_scale": self.guidance,
        }


class _Places(nn.Module):
    """What tells attention where a token is, worked out once: in a graph places never change."""

    def __init__(self, model: Flux) -> None:
        super().__init__()
        cosine, sine = model.transformer.pos_embed(torch.cat(model.places()))
        self.cosine: Tensor
        self.register_buffer("cosine", cosine)
        self.sine: Tensor
        self.register_buffer("sine", sine)

    def forward(self, _: Tensor) -> tuple[Tensor, Tensor]:
        """The same whatever is asked. # [512 + N, D], [512 + N, D]"""
        return self.cosine, self.sine


class _Folded(OnBank):
    """A transformer at one timestep and guidance, on a bank of noises.

    What folds is little: embedded patches, and what the timestep and the guidance are embedded as.
    Everything else is scaled and shifted by what the pooled embedding says.
    """

    def __init__(self, model: Flux, noises: Tensor, timestep: float) -> None:
        super().__init__()
        self.transformer = model.traceable().transformer
        self.unpacked = model.unpacked
        embedder, zeros = self.transformer.time_text_embed, noises.new_zeros
        with torch.no_grad():
            at = [model.told(timestep, noises[:1]) / 1000 * 1000]
            at += [model.told(model.guidance, noises[:1]) * 1000] if model.is_guided else []
            pooled = zeros(1, model.transformer.config.pooled_projection_dim)
            # the embedder adds up what it is told
            told = embedder(*at, pooled) - embedder.text_embedder(pooled)
            self.patches: Tensor
            self.register_buffer("patches", self.transformer.x_embedder(model.packed(noises)))
            self.told: Tensor
            self.register_buffer("told", told)

    @property
    def network(self) -> FluxTransformer2DModel:
        """The transformer."""
        return self.transformer

    def forward(self, embeds: Embeds, noise_index: Tensor) -> Tensor:
        """See `OnBank`; of what it is told. # ([B, 512, D], [B, P])"""
        (told, pooled), count, own = embeds, noise_index.shape[0], self.transformer
        x = for_each_prompt(self.patches[noise_index], told.shape[0])
        text = for_each_noise(own.context_embedder(told), count)
        temb = for_each_noise(self.told + own.time_text_embed.text_embedder(pooled), count)
        places = own.pos_embed(text)
        for block in (*own.transformer_blocks, *own.single_transformer_blocks):
            text, x = block(
                hidden_states=x, encoder_hidden_states=text, temb=temb, image_rotary_emb=places
            )
        out: Tensor = self.unpacked(own.proj_out(own.norm_out(x, temb)))
        return out


def _joint_problems(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What does not fit together."""
    own = taken(TRANSFORMER, configs["transformer"])
    clip, t5 = configs["text_encoder"], configs["text_encoder_2"]
    found = unequal(
        own,
        ("joint_attention_dim", "T5's d_model", t5.get("d_model", 512)),
        ("pooled_projection_dim", "CLIP's hidden_size", clip.get("hidden_size", 512)),
    )
    if own["out_channels"] is not None:
        found += unequal(own, ("out_channels", "in_channels, or null", own["in_channels"]))
    found += axes_problems(own)
    if own["in_channels"] % SIDE**2:
        found.append(f"in_channels is {own['in_channels']} (must be a multiple of {SIDE**2})")
    return [f"{file_of('transformer')}: {each}" for each in found]
