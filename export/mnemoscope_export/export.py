"""From a model to a bundle, or to nothing: a bundle appears whole or not at all."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mnemoscope_runtime import Bundle, Manifest, Screener, open_backend
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.errors import ExportError
from mnemoscope_runtime.manifest import ModelRecord, NoiseBank, TokenizerRecord
from mnemoscope_runtime.schedulers import timesteps

from .flops import count_flops
from .gate import Tolerance, probes
from .graphs import OPSET, Graph, ScreenGraph, StepGraph, TextEncoderGraph, to_onnx
from .models import StableDiffusion
from .noise import noise_bank
from .parity import check_parity, reference
from .staging import BANK, WEIGHTS, ExportOptions, file_records, published_at
from .weights import SharedWeights

__all__ = ["export_bundle"]

_ORACLES = {"float32": "onnxruntime", "float16": "onnxruntime", "bfloat16": "openvino"}
_TOOLS = ("mnemoscope", "torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")


def export_bundle(
    model: StableDiffusion,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Write a bundle to `out` and return it, opened.

    Everything is staged beside `out` and passes the parity gate there; then one rename publishes
    it. A crash or a full disk leaves nothing at `out`.

    Args:
        model: In float32.
        out: A directory that does not exist yet, unless `options.overwrite`.
        options: What goes into the bundle.
        progress: Told the name of each stage as it begins.

    Raises:
        ExportError: the model cannot be exported, or `out` cannot be written.
        ParityError: an engine does not agree with PyTorch.
    """
    out, options = Path(out), options or ExportOptions()
    if model.unet.dtype != torch.float32:
        raise ExportError(
            f"{model.id} is in {model.unet.dtype}, so its graphs cannot be checked. "
            "Load it in float32 and choose the precision in the options."
        )
    precision = options.precision or "float32"
    scheduler = model.scheduler_record(options.inference_steps)
    timestep = int(timesteps(scheduler)[0])
    bank = noise_bank(options.noises, model.latent_shape, options.seed)
    with published_at(out, options.overwrite) as folder:
        graphs, flops = _write_graphs(
            model if precision == "float32" else model.to(getattr(torch, precision)),
            bank, timestep, folder, progress,
        )  # fmt: skip
        np.save(folder / BANK, bank.numpy())
        progress("PyTorch's magnitudes")
        expected = reference(
            model, bank, inference_steps=options.inference_steps, guidance=options.guidance
        )
        (folder / "tokenizer").mkdir()  # tokenizer_config.json would record how it was loaded
        model.tokenizer.backend_tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
        manifest = Manifest.new(
            model=ModelRecord(
                id=model.id,
                weights_sha256=model.weights_sha256(),
                family=model.family,
                prediction_type=model.prediction_type,
            ),
            scheduler=scheduler,
            guidance=options.guidance,
            timestep=timestep,
            tokenizer=TokenizerRecord(
                length=model.tokenizer.model_max_length, pad_token=str(model.tokenizer.pad_token)
            ),
            noise_bank=NoiseBank(BANK, options.seed, (options.noises, *model.latent_shape)),
            precision=precision,
            opset=OPSET,
            graphs=graphs,
            flops=flops,
            parity={},
            budget=options.budget,
            probes=probes(expected),
            tools={"python": platform.python_version(), **{name: version(name) for name in _TOOLS}},
            files=file_records(folder),
        )
        (folder / MANIFEST).write_bytes(manifest.to_json())
        progress("parity with PyTorch")
        parity = check_parity(
            lambda: Screener(Bundle.open(folder), open_backend(_ORACLES[precision])),
            model,
            expected,
            options.tolerance or Tolerance.of(precision),
        )
        (folder / MANIFEST).write_bytes(replace(manifest, parity=parity).to_json())
    return Bundle.open(out)


def _write_graphs(
    model: StableDiffusion,
    bank: Tensor,
    timestep: int,
    folder: Path,
    progress: Callable[[str], None],
) -> tuple[dict[str, str], dict[str, int]]:
    makers: dict[str, Callable[[], Graph]] = {
        "text_encoder": lambda: TextEncoderGraph(model),
        "step": lambda: StepGraph(model),
        "screen": lambda: ScreenGraph(model, bank, timestep),
    }
    weights = SharedWeights(folder / WEIGHTS)
    files, flops = {}, {}
    for name, make in makers.items():
        progress(f"{name} graph")
        graph = make()
        files[name] = f"{name}.onnx"
        flops[name] = count_flops(graph, graph.one(model))
        weights.save(to_onnx(graph, model), folder / files[name])
    return files, flops
