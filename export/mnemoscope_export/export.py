"""From a model to a bundle, or to nothing: a bundle appears whole or not at all."""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mnemoscope_runtime import Bundle, Manifest
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.errors import ExportError
from mnemoscope_runtime.manifest import ModelRecord, NoiseBank
from mnemoscope_runtime.options import check_options

from .flops import count_flops
from .gate import Reference, Tolerance, check_backend, check_parity
from .graphs import OPSETS, Graph, ScreenGraph, StepGraph, TextEncoderGraph, to_onnx
from .models import StableDiffusion
from .noise import noise_bank
from .parity import measure_reference
from .records import screening_timestep
from .staging import BANK, EMPTY, WEIGHTS, ExportOptions, file_records, published_at
from .taps import choose
from .tokens import BundleTokenizer
from .weights import SharedWeights
from .witness import check_against_pipeline

__all__ = ["export_bundle"]

_TOOLS = ("mnemoscope", "torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")


def export_bundle(
    model: StableDiffusion | Callable[[], StableDiffusion],
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Write a bundle to `out` and return it, opened.

    Everything is staged beside `out` and passes the parity gate there; then one rename publishes
    it. A crash or a full disk leaves nothing at `out`.

    Args:
        model: In float32; or what loads it, and then it is let go as soon as its graphs are
            written, so that it is not in memory beside the engines that are compared with it.
        out: A directory that does not exist yet, unless `options.overwrite`.
        options: What goes into the bundle.
        progress: Told the name of each stage as it begins.

    Raises:
        ExportError: the model cannot be exported, or `out` cannot be written.
        ParityError: an engine does not agree with PyTorch.
        BackendUnavailable: the backend that runs the graphs for that comparison is not installed.
        InputError: `out` is not a path, a layer cannot be tapped, or the model does not take the
            timestep or the size of the latents.
    """
    check_options("a path", out=out)
    out, options = Path(out), options or ExportOptions()
    check_backend(options.precision or "float32")
    with published_at(out, options.overwrite) as folder:
        manifest, reference = _stage(model, folder, options, progress)
        gc.collect()  # the exporter leaves cycles that hold the weights
        progress("parity with PyTorch")
        tolerance = options.tolerance or Tolerance.of(manifest.precision)
        parity = check_parity(folder, manifest.precision, reference, tolerance)
        (folder / MANIFEST).write_bytes(replace(manifest, parity=parity).to_json())
    return Bundle.open(out)


def _stage(
    model: StableDiffusion | Callable[[], StableDiffusion],
    folder: Path,
    options: ExportOptions,
    progress: Callable[[str], None],
) -> tuple[Manifest, Reference]:
    """Write everything of a bundle but its parity figures, and let go of the model."""
    given = isinstance(model, StableDiffusion)
    model = model if isinstance(model, StableDiffusion) else model()
    if model.unet.dtype != torch.float32:
        raise ExportError(
            f"{model.id} is in {model.unet.dtype}, so its graphs cannot be checked. "
            "Load it in float32 and choose the precision in the options."
        )
    scheduler = model.scheduler_record(options.inference_steps)
    timestep = screening_timestep(scheduler, options.timestep)
    if options.latent_sides is not None:
        model = model.resized(options.latent_sides)
    taps = choose(model.unet, options.taps, options.until)
    tokenizers = {
        name: BundleTokenizer.from_transformers(tokenizer, rows, options.tokenizer)
        for name, (tokenizer, rows) in model.tokenizers.items()
    }
    bank = noise_bank(options.noises, model.latent_shape, options.seed)
    np.save(folder / BANK, bank.numpy())
    progress("diffusers' own pipeline")
    # one that is handed over may have been changed since it was loaded: its modules are what it is
    check_against_pipeline(
        replace(model, source=None) if given else model, options.guidance, options.inference_steps
    )
    progress("PyTorch's magnitudes")
    reference = measure_reference(
        model,
        bank,
        timestep=timestep,
        inference_steps=options.inference_steps,
        guidance=options.guidance,
        taps=taps,
    )
    reference.check()
    record = ModelRecord(
        id=model.id,
        weights_sha256=model.weights_sha256(),
        family=model.family,
        prediction_type=model.prediction_type,
        variant=model.variant,
        adapters=model.adapters,
        clip_skip=model.clip_skip,
        negative=model.negative,
        inpainting=None if model.masked is None else model.masked.vae_sha256,
    )
    precision = options.precision or "float32"
    if precision != "float32":
        model = model.to(getattr(torch, precision), copy=given)
    makers = _makers(model, bank, timestep, taps, options)
    opset = OPSETS[precision]
    graphs, flops = _write_graphs(model, makers, opset, folder, progress)
    for name, tokenizer in tokenizers.items():
        tokenizer.write(folder / name)
    if model.own_empty:
        told = (each.float().numpy() for each in model.embed_empty())
        held: dict[str, Any] = dict(zip(model.embeddings, told, strict=True))
        np.savez(folder / EMPTY, **held)
    manifest = Manifest.new(
        model=record,
        scheduler=scheduler,
        guidance=options.guidance,
        timestep=timestep,
        **{name: tokenizer.record for name, tokenizer in tokenizers.items()},
        noise_bank=NoiseBank(BANK, options.seed, (options.noises, *model.latent_shape)),
        precision=precision,
        opset=opset,
        graphs=graphs,
        flops=flops,
        parity={},
        budget=options.budget,
        probes=reference.probes(),
        tools={"python": platform.python_version(), **{name: version(name) for name in _TOOLS}},
        files=file_records(folder),
        embeddings=model.embeddings,
        zero_empty=model.zero_empty,
        empty=EMPTY if model.own_empty else None,
        taps=taps,
        any_length=options.any_length,
    )
    (folder / MANIFEST).write_bytes(manifest.to_json())
    return manifest, reference


def _makers(
    model: StableDiffusion,
    bank: Tensor,
    timestep: int,
    taps: tuple[str, ...],
    options: ExportOptions,
) -> dict[str, Callable[[], Graph]]:
    """What makes each graph: the largest first, as the exporter's rewriter keeps the last it saw.

    Where a graph stops at the last tap, the taps of the first step are its business alone.
    """
    stops = options.until is not None
    makers: dict[str, Callable[[], Graph]] = {
        "screen": lambda: ScreenGraph(model, bank, timestep, () if stops else taps)
    }
    if stops:
        makers["taps"] = lambda: ScreenGraph(model, bank, timestep, taps, stop=True)
    makers["step"] = lambda: StepGraph(model, taps, any_length=options.any_length)
    makers["text_encoder"] = lambda: TextEncoderGraph(model)
    return makers


def _write_graphs(
    model: StableDiffusion,
    makers: Mapping[str, Callable[[], Graph]],
    opset: int,
    folder: Path,
    progress: Callable[[str], None],
) -> tuple[dict[str, str], dict[str, int]]:
    weights = SharedWeights(folder / WEIGHTS)
    files, flops = {}, {}
    for name, make in makers.items():
        progress(f"{name} graph")
        graph = make()
        files[name] = f"{name}.onnx"
        flops[name] = count_flops(graph, graph.one(model))
        weights.save(to_onnx(graph, model, opset), folder / files[name])
    return files, flops
