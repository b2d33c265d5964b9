"""What a bundle of a PyTorch model holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import onnx_ir as ir
import torch
from torch import Tensor

from mnemoscope_runtime.errors import ExportError, InputError

from ..bundle_tokenizer import bundle_tokenizer
from ..models import Model
from ..noise import noise_bank
from ..options import ExportOptions
from ..records import screening_timestep
from ..writing import Contents, Maker, Progress
from .flops import count_flops
from .graphs import OPSETS, Graph, ScreenGraph, StepGraph, TextEncoderGraph, to_onnx
from .oracle import measure_reference
from .taps import choose
from .witness import check_against_pipeline

__all__ = ["prepare"]

_TOOLS = ("mnemoscope", "torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")


def prepare(
    model: Model, options: ExportOptions, progress: Progress, *, may_change: bool
) -> Contents:
    """Measure a model, and say what its bundle holds.

    Args:
        model: In float32.
        options: What goes into the bundle.
        progress: Told the name of each stage as it begins.
        may_change: Whether the model is of no use to anyone else, and as its source says.

    Raises:
        ExportError: the model cannot be exported.
        InputError: a layer cannot be tapped, or the model does not take the timestep or the size of
            the latents.
    """
    if model.network.dtype != torch.float32:
        raise ExportError(
            f"{model.id} is in {model.network.dtype}, so its graphs cannot be checked. "
            "Load it in float32 and choose the precision in the options."
        )
    if options.latent_sides is not None:
        model = model.resized(options.latent_sides)
    steps = options.inference_steps or model.usual_steps
    scheduler = model.scheduler_record(steps)  # some depend on the size
    timestep = screening_timestep(scheduler, options.timestep)
    model, guidance = model.guided(options.guidance)
    if options.any_length and not model.takes_any_length:
        raise InputError(
            f"{model.id} is told of {model.tokens} tokens, whatever is embedded, and of no other "
            "number. Leave any_length (--any-length) out."
        )
    taps = choose(model, options.taps, options.until)
    tokenizers = {
        name: bundle_tokenizer(tokenizer, rows, options.tokenizer, model.reading)
        for name, (tokenizer, rows) in model.tokenizers.items()
    }
    bank = noise_bank(options.noises, model.latent_shape, options.seed)
    progress("diffusers' own pipeline")
    # one that is handed over may have been changed since it was loaded: its modules are what it is
    check_against_pipeline(
        model if may_change else replace(model, source=None),
        guidance,
        steps,
    )
    progress("PyTorch's magnitudes")
    reference = measure_reference(
        model,
        bank,
        timestep=timestep,
        inference_steps=steps,
        guidance=guidance,
        taps=taps,
    )
    reference.check()
    record = model.record()
    precision = options.precision or "float32"
    if precision != "float32":
        model = model.to(getattr(torch, precision), copy=not may_change)
    empty = None
    if model.own_empty:
        told = (each.float().numpy() for each in model.embed_empty())
        empty = dict(zip(model.embeddings, told, strict=True))
    return Contents(
        model=record,
        scheduler=scheduler,
        guidance=guidance,
        timestep=timestep,
        tokenizers=tokenizers,
        bank=bank.numpy(),
        precision=precision,
        opset=OPSETS[precision],
        makers=_makers(model, _graphs(model, bank, timestep, taps, options), OPSETS[precision]),
        reference=reference,
        tools={name: version(name) for name in _TOOLS},
        embeddings=model.embeddings,
        zero_empty=model.zero_empty,
        empty=empty,
        taps=taps,
        tokens=model.tokens,
        encodes_apart=model.encodes_apart,
        keeps_length=model.keeps_length,
    )


def _graphs(
    model: Model,
    bank: Tensor,
    timestep: int,
    taps: tuple[str, ...],
    options: ExportOptions,
) -> dict[str, Callable[[], Graph]]:
    """What makes each graph: the largest first, as the exporter's rewriter keeps the last it saw.

    Where a graph stops at the last tap, the taps of the first step are its business alone.
    """
    stops = options.until is not None
    found: dict[str, Callable[[], Graph]] = {
        "screen": lambda: ScreenGraph(model, bank, timestep, () if stops else taps)
    }
    if stops:
        found["taps"] = lambda: ScreenGraph(model, bank, timestep, taps, stop=True)
    found["step"] = lambda: StepGraph(model, taps, any_length=options.any_length)
    found["text_encoder"] = lambda: TextEncoderGraph(model)
    return found


def _makers(model: Model, graphs: dict[str, Callable[[], Graph]], opset: int) -> dict[str, Maker]:
    def make(graph: Graph) -> tuple[ir.Model, int]:
        flops = count_flops(graph, graph.one(model))
        return to_onnx(graph, model, opset), flops

    return {name: lambda graph=graph: make(graph()) for name, graph in graphs.items()}  # type: ignore[misc]
