"""What every bundle goes through, whatever its graphs are made of: staged, compared, published."""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mnemoscope_runtime import Bundle, Manifest
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.manifest import ModelRecord, NoiseBank, Precision
from mnemoscope_runtime.options import check_options
from mnemoscope_runtime.schedulers import Scheduler

from .bundle_tokenizer import BundleTokenizer
from .gate import check_backend, check_parity
from .options import ExportOptions
from .oracle import Reference, Tolerance
from .publish import file_records, published_at
from .weights import SharedWeights

__all__ = ["Contents", "Maker", "Progress", "write_bundle"]

Maker = Callable[[], tuple[ir.Model, int]]  # a graph, and its arithmetic for one prompt and noise
Progress = Callable[[str], None]

_BANK, _EMPTY, _WEIGHTS = "noise_bank.npy", "empty_embeds.npz", "model.weights"


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle beside the options.

    Attributes:
        model: What the manifest says of the model.
        scheduler: Its sampler, which also says what is measured.
        guidance: Scale of classifier-free guidance.
        timestep: What screening tells the network of its pure noise.
        tokenizers: By the manifest's names.
        bank: Initial noises x_T. # [n, C, H, W], fp32
        precision: What the graphs compute in.
        opset: Of the graphs.
        makers: What makes each graph, in this order.
        reference: What the oracle measured.
        tools: Versions of what took part.
        embeddings: What `text_encoder` returns and `step` takes.
        zero_empty: The unconditional branch gets zeros.
        empty: What it gets by the names of `embeddings`, where that is neither zeros nor the
            embedded empty prompt. # [1, ...] each, fp32
        taps: Layers whose features are compared too.
        tokens: How many the network is told of, where that is not the tokenizer's length.
        encodes_apart: The screening graph takes what `text_encoder` returns.
        keeps_length: See `Manifest`.
    """

    model: ModelRecord
    scheduler: Scheduler
    guidance: float
    timestep: int
    tokenizers: Mapping[str, BundleTokenizer]
    bank: NDArray[np.float32]
    precision: Precision
    opset: int
    makers: Mapping[str, Maker]
    reference: Reference
    tools: Mapping[str, str]
    embeddings: tuple[str, ...] = ("prompt_embeds",)
    zero_empty: bool = False
    empty: Mapping[str, NDArray[np.float32]] | None = None
    taps: tuple[str, ...] = ()
    tokens: int | None = None
    encodes_apart: bool = False
    keeps_length: int | None = None


def write_bundle(
    prepare: Callable[[Path], Contents],
    out: str | Path,
    options: ExportOptions,
    progress: Progress,
) -> Bundle:
    """Write a bundle to `out` and return it, opened; if anything fails, nothing is left there.

    Args:
        prepare: Makes the contents; it is given a directory for work, which vanishes. What they
            hold is let go when the graphs are written, before any of them is run.
        out: A directory that does not exist yet, unless `options.overwrite`.
        options: What goes into the bundle.
        progress: Told the name of each stage as it begins.

    Raises:
        ExportError: `out` cannot be written.
        ParityError: a graph does not agree with the oracle.
        BackendUnavailable: the backend that runs the graphs for that comparison is not installed.
        InputError: `out` is not a path.
    """
    check_options("a path", out=out)
    check_backend(options.precision or "float32")
    with published_at(Path(out), options.overwrite) as folder:
        work = folder.parent / "work"
        work.mkdir()
        manifest, reference = _stage(prepare, folder, work, options, progress)
        gc.collect()  # an exporter may leave cycles that hold the weights
        progress(f"parity with {reference.oracle}")
        tolerance = options.tolerance or Tolerance.of(manifest.precision)
        parity = check_parity(folder, manifest.precision, reference, tolerance)
        (folder / MANIFEST).write_bytes(replace(manifest, parity=parity).to_json())
    return Bundle.open(Path(out))


def _stage(
    prepare: Callable[[Path], Contents],
    folder: Path,
    work: Path,
    options: ExportOptions,
    progress: Progress,
) -> tuple[Manifest, Reference]:
    """Write everything of a bundle but its parity figures."""
    contents = prepare(work)
    graphs, flops = _write_graphs(contents.makers, folder, progress)
    np.save(folder / _BANK, contents.bank)
    for name, tokenizer in contents.tokenizers.items():
        tokenizer.write(folder / name)
    if contents.empty is not None:
        np.savez(folder / _EMPTY, allow_pickle=False, **contents.empty)
    manifest = Manifest.new(
        model=contents.model,
        scheduler=contents.scheduler,
        guidance=contents.guidance,
        timestep=contents.timestep,
        **{name: tokenizer.record for name, tokenizer in contents.tokenizers.items()},
        noise_bank=NoiseBank(_BANK, options.seed, contents.bank.shape),
        precision=contents.precision,
        opset=contents.opset,
        graphs=graphs,
        flops=flops,
        parity={},
        budget=options.budget,
        probes=contents.reference.probes(),
        tools={"python": platform.python_version(), **contents.tools},
        files=file_records(folder),
        embeddings=contents.embeddings,
        zero_empty=contents.zero_empty,
        empty=None if contents.empty is None else _EMPTY,
        taps=contents.taps,
        any_length=options.any_length,
        unit=contents.scheduler.unit,
        tokens=contents.tokens,
        encodes_apart=contents.encodes_apart,
        keeps_length=contents.keeps_length,
    )
    (folder / MANIFEST).write_bytes(manifest.to_json())
    return manifest, contents.reference


def _write_graphs(
    makers: Mapping[str, Maker], folder: Path, progress: Progress
) -> tuple[dict[str, str], dict[str, int]]:
    """File and arithmetic of each graph; all weights go into one file."""
    weights = SharedWeights(folder / _WEIGHTS)
    files, flops = {}, {}
    for name, make in makers.items():
        progress(f"{name} graph")
        graph, flops[name] = make()
        files[name] = f"{name}.onnx"
        weights.save(graph, folder / files[name])
        del graph  # before the next is made
    return files, flops
