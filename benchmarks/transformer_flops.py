"""Arithmetic of transformers at the sizes that their authors published, counted on no weights.

python -m benchmarks.transformer_flops

Networks are made on PyTorch's meta device, which holds shapes alone, so that all of them fit any
machine. Counted are the text encoders, once a prompt; one pass for one prompt on one noise; and the
same pass in `screen.onnx`, where what no prompt changes is a constant.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
)
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from mnemoscope_export.models import Model
from mnemoscope_export.models.flux import Flux
from mnemoscope_export.models.pixart import PixArtSigma
from mnemoscope_export.models.qwen_image import QwenImage
from mnemoscope_export.models.sana import Sana
from mnemoscope_export.models.sd3 import StableDiffusion3
from mnemoscope_export.torch.flops import count_flops

from .running import run_main

__all__ = ["MODELS", "Arithmetic", "count", "main"]

_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
           "num_attention_heads": 12, "projection_dim": 768}  # fmt: skip
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
           "num_attention_heads": 20, "projection_dim": 1280}  # fmt: skip
_T5_XXL = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
           "feed_forward_proj": "gated-gelu"}  # fmt: skip


def _clip(kind: Callable[..., nn.Module], config: Mapping[str, int]) -> Any:
    return kind(CLIPTextConfig(vocab_size=49408, eos_token_id=49407, **config))


def _t5() -> Any:
    return T5EncoderModel(T5Config(vocab_size=32128, **_T5_XXL))


def _reads(length: int) -> Any:
    """What stands for a tokenizer: here all that is asked of it is how much it reads."""
    return SimpleNamespace(model_max_length=length, pad_token_id=0)


def _sd3(**transformer: Any) -> Callable[[], Model]:
    def make() -> Model:
        config = {"pos_embed_max_size": 192, "joint_attention_dim": 4096, **transformer}
        width = 64 * config["num_attention_heads"]
        return StableDiffusion3(
            "",
            _reads(77),
            _clip(CLIPTextModelWithProjection, _CLIP_L),
            _reads(77),
            _clip(CLIPTextModelWithProjection, _CLIP_G),
            SD3Transformer2DModel(caption_projection_dim=width, **config),
            FlowMatchEulerDiscreteScheduler(shift=3.0),
            _reads(256),
            _t5(),
        )

    return make


def _flux(*, guided: bool) -> Callable[[], Model]:
    def make() -> Model:
        return Flux(
            "",
            _reads(77),
            _clip(CLIPTextModel, _CLIP_L),
            _reads(512 if guided else 256),
            _t5(),
            FluxTransformer2DModel(guidance_embeds=guided),
            FlowMatchEulerDiscreteScheduler(),
        )

    return make


def _pixart() -> Model:
    transformer = PixArtTransformer2DModel(
        caption_channels=4096, interpolation_scale=2, use_additional_conditions=False
    )
    return PixArtSigma("", _reads(300), _t5(), transformer, DDIMScheduler())


def _qwen() -> Model:
    text = {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=text, vision_config={"depth": 1})  # sees nothing here
    encoder = Qwen2_5_VLForConditionalGeneration(config)
    scheduler = FlowMatchEulerDiscreteScheduler()
    return QwenImage("", _reads(546), encoder, QwenImageTransformer2DModel(), scheduler)


def _sana() -> Model:
    # how many tokens its instruction has, its own tokenizer alone says: 500 are read here in all
    with torch.device("cpu"):  # it looks at its levels when it is made
        scheduler = DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True
        )
    return Sana("", _reads(500), Gemma2Model(Gemma2Config()), SanaTransformer2DModel(), scheduler)


_MEDIUM = tuple(range(13))
MODELS: Mapping[str, Callable[[], Model]] = {
    "Stable Diffusion 3 medium": _sd3(num_layers=24, num_attention_heads=24),
    "Stable Diffusion 3.5 medium": _sd3(
        num_layers=24, num_attention_heads=24, pos_embed_max_size=384, qk_norm="rms_norm",
        dual_attention_layers=_MEDIUM,
    ),
    "Stable Diffusion 3.5 large": _sd3(num_layers=38, num_attention_heads=38, qk_norm="rms_norm"),
    "FLUX.1 dev": _flux(guided=True),
    "FLUX.1 schnell": _flux(guided=False),
    "PixArt-Sigma, 1024 px": _pixart,
    "Qwen-Image": _qwen,
    "Sana 1.6B": _sana,
}  # fmt: skip


@dataclass(frozen=True)
class Arithmetic:
    """Floating-point operations of one prompt on one noise.

    Attributes:
        encoders: Of all text encoders.
        step: Of one pass.
        screen: Of the same pass on a bank of noises.
        weights: Numbers in the network that predicts.
        kept: Those of them that are no constants of `screen.onnx`.
    """

    encoders: int
    step: int
    screen: int
    weights: int
    kept: int


class _Graph(nn.Module):
    """A function as what is counted."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *inputs: Any) -> Any:
        """Run it."""
        return self.run(*inputs)


def _numbers(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def count(make: Callable[[], Model]) -> Arithmetic:
    """Count a model of `MODELS`, or one like them."""
    with torch.device("meta"), torch.no_grad():
        model = make()
        for part in model.parts.values():
            part.eval()
        lengths = [tokenizer.model_max_length for tokenizer, _ in model.tokenizers.values()]
        ids = torch.zeros(1, sum(lengths), dtype=torch.int64)
        told = model.encode(ids)
        noise, index = torch.zeros(1, *model.latent_shape), torch.zeros(1, dtype=torch.int64)
        folded = model.on_bank(noise, 999)
        return Arithmetic(
            count_flops(_Graph(model.encode), (ids,)),
            count_flops(_Graph(model.predict), (noise, 999, told)),
            count_flops(folded, (told, index)),
            _numbers(model.network),
            _numbers(folded),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, help="one of them (default: all)")
    chosen = parser.parse_args().model
    table = Table(
        "model", "weights", "kept", "text encoders", "one pass", "in screen.onnx", "folded"
    )
    for name, make in MODELS.items():
        if chosen in (None, name):
            found = count(make)
            counts = (found.encoders, found.step, found.screen)
            numbers = (f"{each / 1e12:.3f} TFLOP" for each in counts)
            folded = f"{1 - found.screen / found.step:.3%}"
            weights = (f"{each / 1e9:.2f} G" for each in (found.weights, found.kept))
            table.add_row(name, *weights, *numbers, folded)
    Console().print(table)


if __name__ == "__main__":
    run_main(main)
