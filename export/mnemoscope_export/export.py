"""From a model to a bundle, or to nothing: a bundle appears whole or not at all."""

from __future__ import annotations

import gc
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mnemoscope_runtime import Backend, Bundle, Manifest, Screener, open_backend
from mnemoscope_runtime.backends.onnxruntime import OnnxRuntime
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.errors import BackendUnavailable, ExportError, InputError
from mnemoscope_runtime.manifest import (
    FileRecord,
    ModelRecord,
    NoiseBank,
    Precision,
    TokenizerRecord,
)
from mnemoscope_runtime.options import check_options
from mnemoscope_runtime.schedulers import timesteps

from .flops import count_flops
from .graphs import OPSET, Graph, ScreenGraph, StepGraph, TextEncoderGraph, to_onnx
from .models import StableDiffusion
from .noise import noise_bank
from .parity import Reference, Tolerance, check_parity
from .weights import SharedWeights

__all__ = ["ExportOptions", "check_oracle", "check_target", "export_bundle"]

_BANK, _WEIGHTS = "noise_bank.npy", "model.weights"
_ORACLES = {"float32": "onnxruntime", "float16": "onnxruntime", "bfloat16": "openvino"}
_TOOLS = ("mnemoscope", "torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportOptions:
    """What goes into a bundle.

    Attributes:
        noises: Size of the noise bank.
        seed: Seed of the noise bank.
        guidance: Scale of classifier-free guidance while sampling.
        inference_steps: DDIM steps of a whole image; the first of them is the screening timestep.
        precision: What the graphs compute in; differences and norms are float32 in any case.
        overwrite: Replace an existing bundle.
        tolerance: What the parity gate accepts; by default what rounding in `precision` explains.
        budget: Relative error of a magnitude that a backend may have to be chosen by "auto".
    """

    noises: int = 4
    seed: int = 0
    guidance: float = 7.5
    inference_steps: int = 50
    precision: Precision = "float32"
    overwrite: bool = False
    tolerance: Tolerance | None = None
    budget: float = 1e-2

    def __post_init__(self) -> None:
        check_options(
            "a whole number",
            noises=self.noises,
            seed=self.seed,
            inference_steps=self.inference_steps,
        )
        check_options("a number", guidance=self.guidance, budget=self.budget)
        check_options("True or False", overwrite=self.overwrite)
        if self.precision not in _ORACLES:
            raise InputError(
                f"There is no precision {self.precision!r}. Choose one of: {', '.join(_ORACLES)}."
            )
        if not 1 <= self.noises <= 64:
            raise InputError(f"A noise bank holds 1 to 64 noises, not {self.noises}.")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"A seed lies between 0 and 2**63 - 1, {self.seed} does not.")
        if not 1 <= self.inference_steps <= 999:
            raise InputError(f"An image takes 1 to 999 steps, not {self.inference_steps}.")
        if not 0 < self.budget < 1:
            raise InputError(f"A budget is a relative error between 0 and 1, not {self.budget}.")
        if not np.isfinite(self.guidance):
            raise InputError(f"Guidance must be a finite number, not {self.guidance}.")


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
            written, which halves the memory that is needed.
        out: A directory that does not exist yet, unless `options.overwrite`.
        options: What goes into the bundle.
        progress: Told the name of each stage as it begins.

    Raises:
        ExportError: the model cannot be exported, or `out` cannot be written.
        ParityError: an engine does not agree with PyTorch.
        BackendUnavailable: the backend that runs the graphs for that comparison is not installed.
        InputError: `out` is not a path.
    """
    check_options("a path", out=out)
    out, options = Path(out), options or ExportOptions()
    check_oracle(options.precision)
    with _published_at(out, options.overwrite) as folder:
        manifest, reference = _stage(model, folder, options, progress)
        gc.collect()  # the exporter leaves cycles that hold the weights
        progress("parity with PyTorch")
        parity = check_parity(
            lambda: Screener(Bundle.open(folder), _oracle(options.precision, reference)),
            reference,
            options.tolerance or Tolerance.of(options.precision),
        )
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
    timestep = int(timesteps(scheduler)[0])
    bank = noise_bank(options.noises, model.latent_shape, options.seed)
    np.save(folder / _BANK, bank.numpy())
    progress("PyTorch's magnitudes")
    reference = Reference.of(
        model, bank, inference_steps=options.inference_steps, guidance=options.guidance
    )
    record = ModelRecord(
        id=model.id,
        weights_sha256=model.weights_sha256(),
        family=model.family,
        prediction_type=model.prediction_type,
    )
    if options.precision != "float32":
        model = model.to(getattr(torch, options.precision), copy=given)
    graphs, flops = _write_graphs(model, bank, timestep, folder, progress)
    (folder / "tokenizer").mkdir()  # tokenizer_config.json would record how it was loaded
    tokenizer = model.tokenizer.backend_tokenizer.to_str(pretty=True)
    (folder / "tokenizer" / "tokenizer.json").write_bytes(tokenizer.encode())
    manifest = Manifest.new(
        model=record,
        scheduler=scheduler,
        guidance=options.guidance,
        timestep=timestep,
        tokenizer=TokenizerRecord(
            length=model.tokenizer.model_max_length, pad_token=str(model.tokenizer.pad_token)
        ),
        noise_bank=NoiseBank(_BANK, options.seed, (options.noises, *model.latent_shape)),
        precision=options.precision,
        opset=OPSET,
        graphs=graphs,
        flops=flops,
        parity={},
        budget=options.budget,
        probes=reference.probes(),
        tools={"python": platform.python_version(), **{name: version(name) for name in _TOOLS}},
        files=_records(folder),
        embeddings=model.embeddings,
        zero_empty=model.zero_empty,
    )
    (folder / MANIFEST).write_bytes(manifest.to_json())
    return manifest, reference


def _oracle(precision: Precision, reference: Reference) -> Backend:
    """What the gate runs graphs on."""
    if _ORACLES[precision] == "onnxruntime":
        return OnnxRuntime(lean=reference.plan.is_large)
    return open_backend(_ORACLES[precision])


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse to write to `out` before any work is done for it.

    Raises:
        ExportError: something is there that may not be replaced.
    """
    if out.exists() and not overwrite:
        raise ExportError(f"{out} exists already. Choose another name, or pass --overwrite.")
    if out.exists() and not (out / MANIFEST).is_file():
        raise ExportError(f"{out} is not a bundle, so it is not overwritten. Choose another name.")


def check_oracle(precision: Precision) -> None:
    """Make sure that the graphs can be run and compared before any work is done for them.

    Raises:
        BackendUnavailable: the backend of the parity gate is not installed, or does not work.
    """
    try:
        open_backend(_ORACLES[precision]).close()
    except BackendUnavailable as error:
        raise BackendUnavailable(
            f"Graphs in {precision} are checked on the backend {_ORACLES[precision]!r}. {error}"
        ) from None


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
    weights = SharedWeights(folder / _WEIGHTS)
    files, flops = {}, {}
    for name, make in makers.items():
        progress(f"{name} graph")
        graph = make()
        files[name] = f"{name}.onnx"
        flops[name] = count_flops(graph, graph.one(model))
        weights.save(to_onnx(graph, model), folder / files[name])
    return files, flops


def _records(folder: Path) -> dict[str, FileRecord]:
    records = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        records[path.relative_to(folder).as_posix()] = FileRecord(digest, path.stat().st_size)
    return records


@contextmanager
def _published_at(out: Path, overwrite: bool) -> Iterator[Path]:
    """A staging directory that becomes `out` if the block succeeds, and vanishes if not."""
    check_target(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error}.") from error
    try:
        bundle = staging / "bundle"
        bundle.mkdir()
        yield bundle
        for path in bundle.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if out.exists():
            out.rename(staging / "replaced")
        bundle.rename(out)
    except OSError as error:
        raise ExportError(
            f"{out} could not be written: {error}. Nothing was left there; free some space or "
            "choose another directory."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
