"""The modules that become the graphs of a bundle, and their export to ONNX.

What goes in and comes out is float32 whatever the model's dtype, and so is what is done with the
network's output: the difference of two close tensors cancels, and squares summed in half overflow.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from mnemoscope_runtime.errors import BackendError
from mnemoscope_runtime.manifest import EMPTY, Precision

from ..models import Embeds, Model
from .frames import with_room
from .lowering import drop_idle_squeezes, lower_argmax, lower_permutations
from .optimizing import optimize
from .reference import magnitude
from .taps import Recorder

__all__ = ["OPSETS", "ScreenGraph", "StepGraph", "TextEncoderGraph", "to_onnx"]

# the oldest that holds every operator in that type: before 22, Conv takes no bfloat16
OPSETS: dict[Precision, int] = {"float32": 18, "float16": 18, "bfloat16": 22}

Inputs = tuple[Any, ...]  # tensors, and tuples of tensors
Dynamic = tuple[Any, ...]  # alike: the open dimensions of each tensor


class TextEncoderGraph(nn.Module):
    """input_ids [B, L] -> prompt_embeds [B, L, D], and what else the family's network is told."""

    inputs = ("input_ids",)

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.outputs = model.embeddings
        self.model = model
        self.parts = _text_encoders(model)

    def forward(self, input_ids: Tensor) -> Embeds:
        """Embed token ids."""
        return tuple(each.float() for each in self.model.encode(input_ids))

    def example(self, model: Model) -> Inputs:
        """Inputs to trace with."""
        return (_example_ids(model),)

    def one(self, model: Model) -> Inputs:
        """Inputs for one prompt."""
        return (_example_ids(model)[:1],)

    def dynamic(self) -> Dynamic:
        """Dimensions that stay open."""
        return ({0: torch.export.Dim("batch")},)


class StepGraph(nn.Module):
    """One step of sampling: both branches in one network call, the magnitude reduced in the graph.

    prompt_embeds [B, L, D], empty_embeds [1, L, D], latents [B, C, H, W], timestep []
    -> magnitude [B], eps_cond [B, C, H, W], eps_uncond [B, C, H, W] (of flows x0_cond and
    x0_uncond), with taps also taps [B, K]

    With `any_length` L is open; else it is the tokenizer's.
    Families that tell the network more have an input, and one for the empty prompt, for each of it.
    """

    def __init__(self, model: Model, taps: Sequence[str] = (), *, any_length: bool = False) -> None:
        super().__init__()
        self.any_length = any_length
        both = f"{model.unit}_cond", f"{model.unit}_uncond"
        self.outputs = ("magnitude", *both, *(["taps"] if taps else []))
        self.inputs = (
            *model.embeddings,
            *(EMPTY[name] for name in model.embeddings),
            "latents",
            "timestep",
        )
        self.model = model.traceable()
        self.unet = self.model.network
        self.taps = Recorder(model, self.unet, taps)
        self.convert = model.converter()

    def forward(
        self, embeds: Embeds, empty: Embeds, latents: Tensor, timestep: Tensor
    ) -> tuple[Tensor, ...]:
        """Predict [uncond; cond] and measure their distance, in the model's unit."""
        batch, dtype = latents.shape[0], self.model.network.dtype
        both = tuple(
            torch.cat([none.expand(batch, *none.shape[1:]), some]).to(dtype)
            for none, some in zip(empty, embeds, strict=True)
        )
        latents_twice = torch.cat([latents, latents]).to(dtype)
        output, features = self.taps.run(lambda: self.model.predict(latents_twice, timestep, both))
        assert output is not None
        output = output.float()
        # reshape, not chunk: chunk makes the exported batch static without a word
        halves = output.reshape(2, batch, *output.shape[1:])
        uncond, cond = (self.convert(each, latents, timestep) for each in halves)
        found = magnitude(cond, uncond), cond, uncond
        if not features:
            return found
        pairs = [each.reshape(2, batch, *each.shape[1:]) for each in features]
        return *found, torch.stack([magnitude(cond, uncond) for uncond, cond in pairs], -1)

    def example(self, model: Model) -> Inputs:
        """Inputs to trace with."""
        embeds = tuple(each.float() for each in model.embed(["a", "b"]))
        empty = tuple(each.float() for each in model.embed_empty())
        timestep = model.started(2).timesteps[0].cpu()
        return embeds, empty, torch.zeros(2, *model.latent_shape), timestep

    def one(self, model: Model) -> Inputs:
        """Inputs for one prompt on one noise."""
        embeds, empty, latents, timestep = self.example(model)
        return tuple(each[:1] for each in embeds), empty, latents[:1], timestep

    def dynamic(self) -> Dynamic:
        """Dimensions that stay open."""
        batch = {0: torch.export.Dim("batch")}
        # of what the network is told only `prompt_embeds`, the first, has a dimension of tokens
        tokens = {1: torch.export.Dim("tokens")} if self.any_length else {}
        others = len(self.model.embeddings) - 1
        embeds = (batch | tokens, *(batch,) * others)
        return embeds, (tokens, *({},) * others), batch, {}


class ScreenGraph(nn.Module):
    """The first step on a fixed noise bank, one network pass per prompt and noise.

    input_ids [B, L], noise_index [m] -> magnitude [B, m], with taps also taps [B, m, K]

    A family that encodes apart has, instead of ids, an input for each of what the network is told.

    What the unconditional branch says of every noise of the bank is a constant of the graph. With
    `stop` the network runs no further than the last tap, and taps are all there is.
    """

    def __init__(
        self,
        model: Model,
        noises: Tensor,
        timestep: int,
        taps: Sequence[str] = (),
        *,
        stop: bool = False,
    ) -> None:
        super().__init__()
        told = model.embeddings if model.encodes_apart else TextEncoderGraph.inputs
        self.inputs = (*told, "noise_index")
        self.outputs = (*([] if stop else ["magnitude"]), *(["taps"] if taps else []))
        noises = noises.to(model.network.device, model.network.dtype)
        self.model = model
        self.dtype = model.network.dtype
        if not model.encodes_apart:
            self.parts = _text_encoders(model)
        self.unet = model.on_bank(noises, timestep)
        self.taps = Recorder(model, self.unet.network, taps, stop=stop)
        self.unit_per_output = model.unit_per_output(timestep)
        self.uncond: Tensor
        uncond, features = _unconditional(model, noises, timestep, taps)
        self.register_buffer("uncond", uncond)
        for index, each in enumerate(features):
            self.register_buffer(f"uncond_tap_{index}", each)

    def forward(self, told: Tensor | Embeds, noise_index: Tensor) -> tuple[Tensor, ...]:
        """Measure every prompt on every chosen noise."""
        if isinstance(told, Tensor):
            embeds = self.model.encode(told)
        else:
            embeds = tuple(each.to(self.dtype) for each in told)
        batch, noises = embeds[0].shape[0], noise_index.shape[0]

        def norm(cond: Tensor, uncond: Tensor) -> Tensor:  # [B * m, ...], [n, ...] -> [B, m]
            cond = cond.float().reshape(batch, noises, -1)
            found: Tensor = (cond - uncond[noise_index].flatten(1)[None]).square().sum(-1).sqrt()
            return found

        output, features = self.taps.run(lambda: self.unet(embeds, noise_index))
        found = () if output is None else (self.unit_per_output * norm(output, self.uncond),)
        if not features:
            return found
        constants = (self.get_buffer(f"uncond_tap_{i}") for i in range(len(features)))
        return *found, torch.stack(list(map(norm, features, constants)), -1)

    def example(self, model: Model) -> Inputs:
        """Inputs to trace with."""
        return self._told(model, ["a", "a cat"]), torch.arange(len(self.uncond)).repeat(2)[:3]

    def one(self, model: Model) -> Inputs:
        """Inputs for one prompt on one noise."""
        return self._told(model, ["a"]), torch.zeros(1, dtype=torch.int64)

    def _told(self, model: Model, prompts: Sequence[str]) -> Tensor | Embeds:
        if not model.encodes_apart:
            return model.tokenize(prompts)
        return tuple(each.float() for each in model.embed(prompts))

    def dynamic(self) -> Dynamic:
        """Dimensions that stay open."""
        batch, noises = {0: torch.export.Dim("batch")}, {0: torch.export.Dim("noises")}
        count = len(self.inputs) - 1
        return ((batch,) * count if self.model.encodes_apart else batch), noises


Graph = TextEncoderGraph | StepGraph | ScreenGraph


def to_onnx(graph: Graph, model: Model, opset: int = OPSETS["float32"]) -> ir.Model:
    """Export a graph; its weights stay in memory.

    Args:
        graph: What to export.
        model: What it was made of.
        opset: Of `OPSETS`, for the model's precision.

    Raises:
        BackendError: the exporter failed, or made a dimension static that must stay open.
    """
    open_dimensions = graph.dynamic()
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = with_room(
                lambda: torch.onnx.export(
                    graph.eval(),
                    graph.example(model),
                    dynamo=True,
                    opset_version=opset,
                    input_names=list(graph.inputs),
                    output_names=list(graph.outputs),
                    dynamic_shapes=open_dimensions,
                    optimize=False,  # see `optimizing`
                    verbose=False,
                )
            )
            assert program is not None
            with_room(lambda: optimize(program.model))
    except Exception as error:  # the exporter's errors share no base class
        raise BackendError(
            f"torch {torch.__version__} cannot export {type(graph).__name__} of {model.id}: "
            f"{error} Use the versions in constraints.txt."
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    _check_open(program.model, open_dimensions, type(graph).__name__)
    lower_argmax(program.model)
    drop_idle_squeezes(program.model)
    lower_permutations(program.model)
    _strip(program.model)
    return program.model


def _strip(model: ir.Model) -> None:
    """Drop the exporter's stack traces: nine tenths of a small graph."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in [*model.graph.inputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _check_open(model: ir.Model, wanted: Dynamic, name: str) -> None:
    flat = [d for each in wanted for d in (each if isinstance(each, tuple) else (each,))]
    for value, dimensions in zip(model.graph.inputs, flat, strict=True):
        for axis in dimensions:
            assert value.shape is not None
            if isinstance(value.shape[axis], int):
                raise BackendError(
                    f"{name}: dimension {axis} of {value.name} became static "
                    f"({value.shape[axis]}). Use the versions in constraints.txt."
                )


@torch.no_grad()
def _unconditional(
    model: Model, noises: Tensor, timestep: int, taps: Sequence[str]
) -> tuple[Tensor, list[Tensor]]:
    """Output and features of every tap, told of no prompt. # [n, ...] each, fp32"""
    empty, recorder = model.embed_empty(), Recorder(model, model.network, taps)
    rows: list[list[Tensor]] = []
    for noise in noises:
        x = noise[None]
        output, features = recorder.run(lambda x=x: model.predict(x, timestep, empty))  # type: ignore[misc]
        rows.append([each.float() for each in (output, *features) if each is not None])
    recorder.close()
    output, *features = (torch.cat(each) for each in zip(*rows, strict=True))
    return output, features


def _text_encoders(model: Model) -> nn.ModuleDict:
    """What an exported graph must own to be traced through `model.encode`."""
    return nn.ModuleDict(
        {name: part for name, part in model.parts.items() if name != model.predictor}
    )


def _example_ids(model: Model) -> Tensor:
    return model.tokenize(["a", "a cat"])
