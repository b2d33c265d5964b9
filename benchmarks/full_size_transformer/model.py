"""Stable Diffusion 3 medium with random weights: its arithmetic, graphs, and the paper's step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from mnemoscope import embedded
from mnemoscope_export import magnitude, noise_bank
from mnemoscope_export.models.sd3 import StableDiffusion3
from mnemoscope_export.torch.flops import count_flops
from mnemoscope_export.torch.graphs import ScreenGraph, to_onnx
from mnemoscope_export.torch.taps import Recorder
from mnemoscope_export.weights import SharedWeights

from .graphs import GRAPH, INPUTS, SCREEN, WEIGHTS, Call, timed

__all__ = ["PAPER", "PROMPT", "STOPS", "arithmetic", "call_paper", "medium", "save"]

STOPS = ("transformer_blocks.0", "transformer_blocks.2")  # the first tap, and the last of `auto`
PAPER = "PyTorch float32, the paper's step"
PROMPT = "a photo of a cat on a windowsill"
_TIMESTEP = 1000


def medium(blocks: int, **transformer: Any) -> StableDiffusion3:
    """Stable Diffusion 3 medium with so many blocks, its text encoders of one layer.

    Its weights are random, and the same every time.

    Args:
        blocks: How many.
        transformer: What else is not as it was published.
    """
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    torch.manual_seed(0)

    def clip(width: int) -> CLIPTextModelWithProjection:
        config = CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width,
            num_hidden_layers=1, num_attention_heads=width // 64, projection_dim=width,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        return CLIPTextModelWithProjection(config)

    config = {
        "num_layers": blocks, "num_attention_heads": 24, "joint_attention_dim": 4096,
        "caption_projection_dim": 1536, "pos_embed_max_size": 192, **transformer,
    }  # fmt: skip
    letters = [(letter, -1.0) for letter in f"▁{ascii_lowercase}"]
    tokenizer_3 = T5Tokenizer(
        vocab=[*((special, 0.0) for special in ("<pad>", "</s>", "<unk>")), *letters],
        extra_ids=0, model_max_length=256,
    )  # fmt: skip
    text_encoder_3 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer_3), d_model=config["joint_attention_dim"], d_ff=64,
            num_layers=1, num_heads=1,
        )
    )  # fmt: skip
    model = StableDiffusion3(
        "sd3-medium-random", tokenizer, clip(768), tokenizer, clip(1280),
        SD3Transformer2DModel(**config), FlowMatchEulerDiscreteScheduler(shift=3.0),
        tokenizer_3, text_encoder_3,
    )  # fmt: skip
    for part in model.parts.values():
        part.eval().requires_grad_(False)
    return model


def arithmetic(kinds: Sequence[str], blocks: int, **transformer: Any) -> dict[str, int]:
    """Floating-point operations of the paper's step and of each kind of graph, on no weights.

    Args:
        kinds: "screen", and layers to stop at.
        blocks: How many.
        transformer: See `medium`.
    """
    with torch.device("meta"), torch.no_grad():
        model = medium(blocks, **transformer)
        bank, told = torch.zeros(1, *model.latent_shape), model.embed_empty()
        inputs = told, torch.zeros(1, dtype=torch.int64)
        found = {PAPER: 2 * count_flops(_Pass(model, bank, told), ())}
        for kind in kinds:
            model = _model(kind, blocks, **transformer)
            found[kind] = count_flops(_graph(model, bank, kind), inputs)
        return found


class _Pass(torch.nn.Module):
    """One pass of the network as it comes."""

    def __init__(self, model: StableDiffusion3, noise: torch.Tensor, told: Any) -> None:
        super().__init__()
        self.run = lambda: model.predict(noise, _TIMESTEP, told)

    def forward(self) -> None:
        """Run it."""
        self.run()


def save(folder: Path, kind: str, blocks: int, **transformer: Any) -> None:
    """Write the graph of a kind, with its weights, and what it is asked.

    Args:
        folder: Where to; it is made.
        kind: "screen", or a layer to stop at.
        blocks: How many.
        transformer: See `medium`.
    """
    torch.set_num_threads(1)
    model = _model(kind, blocks, **transformer)
    graph = _graph(model, _bank(model), kind)
    folder.mkdir(parents=True)
    SharedWeights(folder / WEIGHTS).save(to_onnx(graph, model), folder / GRAPH)
    given = zip(model.embeddings, model.embed([PROMPT]), strict=True)
    inputs = {name: each.numpy() for name, each in given}
    np.savez(folder / INPUTS, noise_index=np.zeros(1, np.int64), **inputs)


def call_paper(blocks: int, **transformer: Any) -> Call:
    """Time the paper's step on one thread: both branches in one call, told of embeddings.

    Its weights have just been made, and its first block was run: nothing more is warmed up.

    Args:
        blocks: How many.
        transformer: See `medium`.
    """
    torch.set_num_threads(1)
    model = medium(blocks, **transformer)
    bank = _bank(model)
    told, empty = model.embed([PROMPT]), model.embed_empty()
    both = tuple(torch.cat(pair) for pair in zip(empty, told, strict=True))

    @torch.no_grad()
    def predict() -> torch.Tensor:
        return model.predict(torch.cat([bank, bank]), _TIMESTEP, both)

    def step() -> float:
        uncond, cond = (model.in_unit(part, bank, _TIMESTEP) for part in predict().chunk(2))
        return float(magnitude(cond, uncond))

    first = Recorder(model, model.network, STOPS[:1], stop=True)
    first.run(predict)
    first.close()
    return timed(step)


def _bank(model: StableDiffusion3) -> torch.Tensor:
    return noise_bank(1, model.latent_shape, seed=0)


def _model(kind: str, blocks: int, **transformer: Any) -> StableDiffusion3:
    """As far as a graph reads it: of one that stops, to the block behind, since the last differs.

    Weights are made in their order, so that these are those of the whole.
    """
    read = blocks if kind == SCREEN else min(blocks, int(kind.rpartition(".")[2]) + 2)
    return medium(read, **transformer)


def _graph(model: StableDiffusion3, bank: torch.Tensor, kind: str) -> ScreenGraph:
    if kind == SCREEN:
        return ScreenGraph(model, bank, _TIMESTEP)
    return ScreenGraph(model, bank, _TIMESTEP, [kind], stop=True)
