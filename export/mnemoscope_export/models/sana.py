"""Sana: a transformer of linear attention, told by a Gemma 2 that reads prompts as instructed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
)
from torch import Tensor
from transformers import Gemma2Model, GemmaTokenizer

from mnemoscope_runtime.errors import ExportError
from mnemoscope_runtime.schedulers import FlowDpm

from ..configs import refuse
from ..configs.flow import dpm_problems
from ..configs.layout import Layout, file_of
from ..configs.options import Option, flag, free, number, off, only, problems, taken, unequal, whole
from ..configs.pipeline import INDEX
from ..records import dpm_record
from .base import Configs, Embeds
from .cross_attending import CrossAttendingModel
from .flow import RectifiedFlow
from .masked_attention import AttendMasked, up_to_last
from .on_bank import OnBank, shared_copy
from .sana_blocks import AttendLinear, FoldedSana
from .sentencepiece import read_sentencepiece
from .transformer import refuse_triggers

__all__ = ["INSTRUCTION", "LAYOUT", "TEXT", "TRANSFORMER", "Sana"]

_LENGTH = 300  # diffusers' max_sequence_length
# the pipeline's complex_human_instruction, as it stands before a prompt
INSTRUCTION = (
    "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions "
    "suitable for image generation. Evaluate the level of detail in the user prompt:\n"
    "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, "
    "and spatial relationships to create vivid and concrete scenes.\n"
    "- If the prompt is already detailed, refine and enhance the existing details slightly without "
    "overcomplicating.\n"
    "Here are examples of how to transform or refine prompts:\n"
    "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round "
    "shape, sleeping peacefully on a warm sunny windowsill, surrounded by pots of blooming red "
    "flowers.\n"
    "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, "
    "featuring glowing street lamps, a diverse crowd of people in colorful clothing, and a "
    "double-decker bus passing by towering glass skyscrapers.\n"
    "Please generate only the enhanced description for the prompt below and avoid including any "
    "additional commentary or evaluations:\n"
    "User Prompt: "
)

# diffusers' SanaTransformer2DModel
TRANSFORMER: Mapping[str, Option] = {
    "attention_bias": flag(default=False),
    "attention_head_dim": whole(32),
    "caption_channels": whole(2304),
    "cross_attention_dim": whole(2240),
    "cross_attention_head_dim": whole(112),
    "dropout": number(0.0),
    "guidance_embeds": off(),
    "guidance_embeds_scale": free(0.1),
    "in_channels": whole(32),
    "interpolation_scale": Option(
        lambda v: v is None or (isinstance(v, int | float) and v > 0), "a number above 0, or null"
    ),
    "mlp_ratio": number(2.5),
    "norm_elementwise_affine": flag(default=False),
    "norm_eps": number(1e-6),
    "num_attention_heads": whole(70),
    "num_cross_attention_heads": whole(20),
    "num_layers": whole(20),
    "out_channels": whole(32, nulls=True),
    "patch_size": whole(1),
    "qk_norm": only(None, "rms_norm_across_heads"),
    "sample_size": whole(32),
    "timestep_scale": number(1.0),
}
# transformers' Gemma2Config, as far as it decides what is computed
TEXT: Mapping[str, Option] = {
    "attention_dropout": number(0.0),
    "attn_logit_softcapping": Option(
        lambda v: v is None or (isinstance(v, int | float) and v > 0),
        "a number above 0, or null",
        50.0,
    ),
    "hidden_activation": only("gelu_pytorch_tanh"),
    "hidden_size": whole(2304),
    "layer_types": Option(
        lambda v: v is None or set(v) <= {"full_attention", "sliding_attention"},
        "full_attention and sliding_attention alone",
    ),
    "pad_token_id": whole(0, 0),
    "sliding_window": whole(4096),
    "use_bidirectional_attention": off(default=None),
}
_OTHERS = {
    "SanaControlNetPipeline": "is told a picture too",
    "SanaPAGPipeline": "draws with perturbed attention, a third prediction beside the two",
    "SanaSprintImg2ImgPipeline": "was distilled, and predicts nothing without a prompt",
    "SanaSprintPipeline": "was distilled, and predicts nothing without a prompt",
    "SanaVideoPipeline": "draws videos",
    "SanaImageToVideoPipeline": "draws videos",
}


def _text_problems(config: Mapping[str, Any]) -> list[str]:
    """What in a Gemma 2's `config.json` is not covered."""
    found = problems(TEXT, {name: config[name] for name in TEXT if name in config})
    kind = config.get("model_type")
    return found if kind == "gemma2" else [f"model_type is {kind!r:.60}", *found]


LAYOUT = Layout(
    draws=("SanaPipeline",),
    classes={
        "transformer": ("SanaTransformer2DModel",),
        "text_encoder": ("Gemma2Model",),
        "tokenizer": ("GemmaTokenizer", "GemmaTokenizerFast"),
        "scheduler": ("DPMSolverMultistepScheduler",),
    },
    looks={
        "transformer": lambda config: problems(TRANSFORMER, config),
        "text_encoder": _text_problems,
        "scheduler": dpm_problems,
    },
    tokenizers={},
    unused=("vae",),
)


@dataclass(frozen=True)
class Sana(RectifiedFlow, CrossAttendingModel):
    """The parts of a Sana pipeline that predict (Xie et al. 2024).

    Attributes:
        tokenizer: Of Gemma 2, whose prompts are in lower case, behind an instruction.
        scheduler: The pipeline's levels, sampled with steps of first order whatever its solver is.
    """

    tokenizer: GemmaTokenizer
    text_encoder: Gemma2Model
    transformer: SanaTransformer2DModel
    scheduler: DPMSolverMultistepScheduler

    called: ClassVar[str] = "Sana"
    reading: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"lowercase": True, "template": INSTRUCTION + "{}"}
    )
    config_files: ClassVar[Mapping[str, str]] = LAYOUT.files
    networks: ClassVar[Mapping[str, Any]] = {
        "text_encoder": Gemma2Model,
        "transformer": SanaTransformer2DModel,
    }
    pipeline_class: ClassVar[Any] = SanaPipeline
    patch_size: ClassVar[int] = 1
    vae_class: ClassVar[Any] = AutoencoderDC

    @classmethod
    def check_configs(cls, configs: Configs, origin: str) -> None:
        """See `TransformerModel.check_configs`."""
        kind = str(configs.get("model_index", {}).get("_class_name"))
        others = [f"{INDEX}: {kind} {_OTHERS[kind]}"] if kind in _OTHERS else []
        refuse(origin, [*others, *LAYOUT.problems(configs)] or _joint_problems(configs))

    @classmethod
    def read_tokenizers(cls, folder: Path, configs: Configs) -> dict[str, Any]:  # noqa: ARG003
        """See `Model.read_tokenizers`."""
        tokenizer = read_sentencepiece(GemmaTokenizer, folder, "tokenizer", _LENGTH)
        if tokenizer("").input_ids != [tokenizer.convert_tokens_to_ids("<bos>")]:
            raise ExportError(
                f"{folder / 'tokenizer'} puts no <bos> before a prompt, and nothing else, as Gemma "
                "2's does. Copy the tokenizer of the model."
            )
        tokenizer.padding_side = "right"
        # as long as the instruction, and without its start and its last token as long as prompts
        tokenizer.model_max_length = len(tokenizer(INSTRUCTION).input_ids) + _LENGTH - 2
        refuse_triggers(folder, {"tokenizer": tokenizer}, cls.called)
        return {"tokenizer": tokenizer}

    @classmethod
    def read_scheduler(cls, folder: Path) -> DPMSolverMultistepScheduler:
        """See `Model.read_scheduler`."""
        return DPMSolverMultistepScheduler.from_pretrained(folder, subfolder="scheduler")

    @property
    def family(self) -> str:
        """ "sana" """
        return "sana"

    @property
    def tokens(self) -> int:
        """The start, the instruction's last one, and those of the prompt that are read."""
        return _LENGTH

    @property
    def own_empty(self) -> bool:
        """Always: nothing instructs the unconditional branch."""
        return True

    def scheduler_record(self, inference_steps: int = 50) -> FlowDpm:
        """The schedule in the manifest's terms.

        Raises:
            ExportError: the schedule is one that the runtime does not reproduce.
        """
        return dpm_record(self.scheduler.config, self.id, inference_steps)

    def sampler(self, schedule: Any = None) -> DPMSolverMultistepScheduler:
        """A fresh sampler of first order over the model's levels, or over those of another one."""
        config = (self.scheduler if schedule is None else schedule).config
        return DPMSolverMultistepScheduler.from_config(config, solver_order=1)

    @staticmethod
    def written_out(prompts: Sequence[str], tokenizer: Any) -> list[str]:  # noqa: ARG004
        """Prompts in lower case, without space around them, behind the instruction."""
        return [INSTRUCTION + prompt.lower().strip() for prompt in prompts]

    @torch.no_grad()
    def embed_empty(self) -> Embeds:
        """The empty or negative prompt, without an instruction. # ([1, 300, D], [1, 300])"""
        ids = self.tokenizer(
            [(self.negative or "").lower().strip()],
            padding="max_length",
            max_length=_LENGTH,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return self.encode(ids.to(self.network.device))

    def encode(self, input_ids: Tensor) -> Embeds:
        """Embed token ids.

        Args:
            input_ids: Of prompts behind an instruction. # [B, L], L >= 300

        Returns:
            Gemma's last hidden states, the first and the last 299, zeros where there is padding; 1
            where there is none. # ([B, 300, D], [B, 300])
        """
        # nothing reads what comes behind it, padding least of all
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        back = places[:, None] - places  # how far from the token that reads to that which is read
        encoder, least = self.text_encoder, torch.finfo(self.text_encoder.dtype).min

        def reads(how_far: int) -> Tensor:  # [1, 1, L, L]
            ahead_or_gone = (back < 0) | (back >= how_far)
            return (ahead_or_gone.to(encoder.dtype) * least)[None, None]

        states = encoder(
            input_ids,
            attention_mask={
                "full_attention": reads(input_ids.shape[1]),
                "sliding_attention": reads(encoder.config.sliding_window),
            },
            use_cache=False,
        ).last_hidden_state
        is_read = input_ids != self.tokenizer.pad_token_id
        mask = up_to_last(is_read, states.dtype)
        told, mask = (
            torch.cat([each[:, :1], each[:, 1 - _LENGTH :]], 1)
            for each in (states * mask[..., None], mask)
        )
        return told, mask

    def predict(self, latents: Tensor, timestep: Tensor | float, embeds: Embeds) -> Tensor:
        """The transformer's output, the velocity.

        Args:
            latents: x_t. # [B, C, H, W]
            timestep: t, 0 to 1000
            embeds: Of `encode`. # ([B, 300, D], [B, 300])

        Returns:
            # [B, C, H, W]
        """
        at = timestep if isinstance(timestep, Tensor) else torch.tensor(timestep)
        at = at.to(latents.device) * self.transformer.config.timestep_scale
        output: Tensor = self.transformer(
            latents,
            encoder_hidden_states=embeds[0],
            timestep=at.reshape(-1).expand(latents.shape[0]),
            encoder_attention_mask=embeds[1],
        ).sample
        return output

    def traceable(self) -> Self:
        """The model with attention that can be exported, and whose masks have any batch size."""
        network = shared_copy(self.transformer)
        for block in network.transformer_blocks:
            block.attn1.set_processor(AttendLinear())
            block.attn2.set_processor(AttendMasked())
        return self.with_network(network)

    def on_bank(self, noises: Tensor, timestep: int) -> OnBank:
        """All is computed that comes before the first block is told of the prompt."""
        return FoldedSana(self.traceable().transformer, noises, timestep)

    def told_by(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Embeds:
        """See `Model.told_by`; zeros where there is padding, which nothing reads."""
        instruction = INSTRUCTION.split("\n")
        told, mask = super().told_by(
            pipeline, prompts, complex_human_instruction=instruction, **options
        )
        return told * mask[..., None], mask


def _joint_problems(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What does not fit together."""
    own = taken(TRANSFORMER, configs["transformer"])
    width = own["num_attention_heads"] * own["attention_head_dim"]
    heads = own["num_cross_attention_heads"] * own["cross_attention_head_dim"]
    told = configs["text_encoder"].get("hidden_size", TEXT["hidden_size"].default)
    found = unequal(
        own,
        ("caption_channels", "Gemma's hidden_size", told),
        ("cross_attention_dim", "num_attention_heads x attention_head_dim", width),
    )
    if heads != width:
        found.append(
            f"num_cross_attention_heads x cross_attention_head_dim is {heads} (must be "
            f"num_attention_heads x attention_head_dim, {width})"
        )
    if own["out_channels"] not in (None, own["in_channels"]):
        found.append(f"out_channels is {own['out_channels']} (must be in_channels)")
    if own["sample_size"] % own["patch_size"]:
        found.append(f"sample_size is {own['sample_size']} (must be whole patches)")
    return [f"{file_of('transformer')}: {each}" for each in found]
