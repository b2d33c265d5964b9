"""From an ONNX export to a bundle, or to nothing; neither torch nor diffusers are needed."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir

from mnemoscope_runtime import Bundle, Manifest
from mnemoscope_runtime.agreement import noise_norm, smallest
from mnemoscope_runtime.backends.onnxruntime import import_onnxruntime
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.errors import ExportError, InputError
from mnemoscope_runtime.manifest import ModelRecord, NoiseBank, Precision
from mnemoscope_runtime.schedulers import alphas_cumprod

from ..gate import PROMPTS, Plan, Reference, Tolerance, check_parity
from ..noise import standard_noises
from ..records import family, prediction_type, scheduler_record, screening_timestep
from ..staging import BANK, WEIGHTS, ExportOptions, file_records, published_at
from ..weights import SharedWeights
from .flops import count_flops
from .graphs import screen_graph, step_graph, text_encoder_graph
from .layout import OnnxPipeline
from .oracle import embed, measure
from .source import TEXT_ENCODER, UNET, Part, embedding_rows, prepare

__all__ = ["export_onnx"]

_TOOLS = ("mnemoscope", "numpy", "onnx", "onnx-ir")


def export_onnx(
    folder: str | Path,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Write a bundle of an ONNX export to `out` and return it, opened.

    The export's own graphs, run by ONNX Runtime with two UNet calls a step, are the oracle of the
    parity gate. As with `export_bundle`, nothing is left at `out` if anything fails.

    Args:
        folder: What Optimum's `ORTStableDiffusionPipeline.save_pretrained` wrote: text_encoder,
            unet, tokenizer and scheduler.
        out: A directory that does not exist yet, unless `options.overwrite`.
        options: What goes into the bundle; the precision is the export's.
        progress: Told the name of each stage as it begins.

    Raises:
        ExportError: the export cannot be used, or `out` cannot be written.
        InputError: another precision than the export's was asked for, taps, or a timestep or size
            of latents that it does not take.
        ParityError: a graph does not agree with the export.
        NumericsError: the export's own magnitudes are not finite.
    """
    out, options = Path(out), options or ExportOptions()
    if options.taps is not None:
        raise InputError(
            "An ONNX export does not say which of its nodes are which layers, so it has no taps. "
            "Leave them out, or export the PyTorch model."
        )
    if options.any_length:
        raise InputError(
            "The shapes of an ONNX export are evaluated for one number of tokens, so its bundle "
            "takes no other. Leave any_length out, or export the PyTorch model."
        )
    with published_at(out, options.overwrite) as bundle:
        work = bundle.parent / "work"
        work.mkdir()
        pipeline = OnnxPipeline.load(folder, options.latent_sides, options.tokenizer)
        _write(pipeline, bundle, work, options, progress)
    return Bundle.open(out)


def _write(
    pipeline: OnnxPipeline,
    bundle: Path,
    work: Path,
    options: ExportOptions,
    progress: Callable[[str], None],
) -> None:
    scheduler = scheduler_record(pipeline.scheduler, pipeline.id, options.inference_steps)
    kind = prediction_type(pipeline.scheduler, pipeline.id)
    timestep, abar = screening_timestep(scheduler, options.timestep), alphas_cumprod(scheduler)
    bank = standard_noises(options.noises, pipeline.latent_shape, options.seed)

    if pipeline.tokenizer.record.follows == "transformers-4" and find_spec("ftfy"):
        progress(
            "note: ftfy is installed here. A pipeline that runs beside it mends its prompts first, "
            "and this bundle does not: see docs/optimum.md."
        )
    progress("reading the graphs")
    text = _prepare_text_encoder(pipeline, work)
    tokenizer = pipeline.tokenizer.fitting(embedding_rows(text.load().graph))
    embeds = embed(pipeline, text.load().graph, [*PROMPTS, ""])
    width = (embeds.shape[1], embeds.shape[2])
    unet = _prepare_unet(pipeline, embeds[:1], work)
    precision = _precision(pipeline, unet, options)
    _check_opsets(pipeline, text, unet)

    progress("the export's own magnitudes")
    plan = Plan.of(unet.parameters)
    measured = measure(
        pipeline, unet.load().graph, embeds[: plan.prompts], embeds[-1:], bank, scheduler, kind,
        timestep, steps=plan.steps, guidance=options.guidance,
    )  # fmt: skip
    reference = Reference(
        "the export",
        plan,
        measured.screening[..., None],
        measured.sampling[..., None],
        (embeds[:-1],),
        (smallest(noise_norm(bank[0].size)),),
    )
    reference.check()
    # two velocities at the same x_t differ by 1 / sqrt(abar) times as much as the noises do
    scale = float(abar[timestep] ** 0.5) if kind == "v_prediction" else 1.0
    makers: dict[str, Callable[[], ir.Model]] = {
        "text_encoder": lambda: text_encoder_graph(text.load(), width),
        "step": lambda: step_graph(unet.load(), width, pipeline.latent_shape, kind, abar),
        "screen": lambda: screen_graph(
            text.load(), unet.load(), width, bank, measured.uncond, timestep, scale, work
        ),
    }
    weights = SharedWeights(bundle / WEIGHTS)
    graphs, flops = {}, {}
    for name, make in makers.items():
        progress(f"{name} graph")
        model = make()
        graphs[name] = f"{name}.onnx"
        flops[name] = count_flops(model, {"batch": 1, "noises": 1})
        weights.save(model, bundle / graphs[name])
    np.save(bundle / BANK, bank)
    tokenizer.write(bundle / "tokenizer")
    manifest = Manifest.new(
        model=ModelRecord(
            id=pipeline.id,
            weights_sha256=hashlib.sha256((text.sha256 + unet.sha256).encode()).hexdigest(),
            family=family(width[1]),
            prediction_type=kind,
        ),
        scheduler=scheduler,
        guidance=options.guidance,
        timestep=timestep,
        tokenizer=tokenizer.record,
        noise_bank=NoiseBank(BANK, options.seed, (len(bank), *pipeline.latent_shape)),
        precision=precision,
        opset=unet.opset,
        graphs=graphs,
        flops=flops,
        parity={},
        budget=options.budget,
        probes=reference.probes(),
        tools={
            "python": platform.python_version(),
            **{name: version(name) for name in _TOOLS},
            "onnxruntime": str(import_onnxruntime().__version__),
            "unet/model.onnx": unet.producer,
            "text_encoder/model.onnx": text.producer,
        },
        files=file_records(bundle),
    )
    (bundle / MANIFEST).write_bytes(manifest.to_json())
    progress("parity with the export")
    tolerance = options.tolerance or Tolerance.of(precision)
    parity = check_parity(bundle, precision, reference, tolerance)
    (bundle / MANIFEST).write_bytes(replace(manifest, parity=parity).to_json())


def _prepare_text_encoder(pipeline: OnnxPipeline, work: Path) -> Part:
    one = {"input_ids": pipeline.tokenizer.clip()([""])}
    return prepare(pipeline.text_encoder, TEXT_ENCODER, one, work / "text_encoder.onnx")


def _prepare_unet(pipeline: OnnxPipeline, embeds: np.ndarray, work: Path) -> Part:
    one = {
        "sample": np.zeros((1, *pipeline.latent_shape)),
        "timestep": np.asarray(1),
        "encoder_hidden_states": embeds,
    }
    return prepare(pipeline.unet, UNET, one, work / "unet.onnx")


def _precision(pipeline: OnnxPipeline, unet: Part, options: ExportOptions) -> Precision:
    found: Precision = "float32" if unet.dtype == ir.DataType.FLOAT else "float16"
    if options.precision not in (None, found):
        raise InputError(
            f"{pipeline.unet} is in {found}, and an ONNX export stays in its precision. Leave "
            f"{options.precision} out, or export the PyTorch model."
        )
    return found


def _check_opsets(pipeline: OnnxPipeline, text: Part, unet: Part) -> None:
    if text.opset != unet.opset:
        raise ExportError(
            f"{pipeline.text_encoder} has opset {text.opset} and {pipeline.unet} {unet.opset}, but "
            "one graph holds both. Export both with the same opset."
        )
