"""What a bundle of an ONNX export holds; neither torch nor diffusers are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir

from mnemoscope_runtime.backends.onnxruntime import import_onnxruntime
from mnemoscope_runtime.errors import ExportError, InputError
from mnemoscope_runtime.families import FAMILIES
from mnemoscope_runtime.manifest import ModelRecord, Precision
from mnemoscope_runtime.schedulers import alphas_cumprod, level
from mnemoscope_runtime.units import unit_per_output

from ..noise import standard_noises
from ..options import ExportOptions
from ..oracle import PROMPTS, Coverage
from ..records import family, prediction_type, scheduler_record, screening_timestep
from ..writing import Contents, Maker, Progress
from .flops import count_flops
from .graphs import screen_graph, step_graph, text_encoder_graph
from .layout import OnnxPipeline
from .oracle import embed, measure_reference
from .source import TEXT_ENCODER, UNET, Component, embedding_rows, prepare_component

__all__ = ["prepare"]

_TOOLS = ("mnemoscope", "numpy", "onnx", "onnx-ir")
_USUAL = FAMILIES["sd1"]  # as of "sd2"; there are no others


def prepare(folder: str | Path, work: Path, options: ExportOptions, progress: Progress) -> Contents:
    """Measure an export, and say what its bundle holds.

    Args:
        folder: The export, in Optimum's layout.
        work: A directory for graphs in the making.
        options: What goes into the bundle.
        progress: Told the name of each stage as it begins.

    Raises:
        ExportError: the export cannot be used.
        InputError: another precision than the export's was asked for, or a timestep or size of
            latents that it does not take.
        NumericsError: the export's own magnitudes are not finite.
    """
    progress(f"loading {folder}")
    pipeline = OnnxPipeline.load(folder, options.latent_sides, options.tokenizer)
    steps = options.inference_steps or _USUAL.steps
    scheduler = scheduler_record(pipeline.scheduler, pipeline.id, steps)
    kind = prediction_type(pipeline.scheduler, pipeline.id)
    guidance = _USUAL.guidance if options.guidance is None else options.guidance
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
    reference, uncond = measure_reference(
        pipeline, unet.load().graph, embeds[:-1], embeds[-1:], bank, scheduler, kind, timestep,
        coverage=Coverage.of(unet.parameters), guidance=guidance,
    )  # fmt: skip
    reference.check()
    scale = unit_per_output(kind, "eps", level(scheduler, timestep))

    def counted(make: Callable[[], ir.Model]) -> Maker:
        def made() -> tuple[ir.Model, int]:
            model = make()
            return model, count_flops(model, {"batch": 1, "noises": 1})

        return made

    return Contents(
        model=ModelRecord(
            id=pipeline.id,
            weights_sha256=hashlib.sha256((text.sha256 + unet.sha256).encode()).hexdigest(),
            family=family(width[1]),
            prediction_type=kind,
        ),
        scheduler=scheduler,
        guidance=guidance,
        timestep=timestep,
        tokenizers={"tokenizer": tokenizer},
        bank=bank,
        precision=precision,
        opset=unet.opset,
        makers={
            "text_encoder": counted(lambda: text_encoder_graph(text.load(), width)),
            "step": counted(
                lambda: step_graph(unet.load(), width, pipeline.latent_shape, kind, abar)
            ),
            "screen": counted(
                lambda: screen_graph(
                    text.load(), unet.load(), width, bank, uncond, timestep, scale, work
                )
            ),
        },
        reference=reference,
        tools={
            **{name: version(name) for name in _TOOLS},
            "onnxruntime": str(import_onnxruntime().__version__),
            "unet/model.onnx": unet.producer,
            "text_encoder/model.onnx": text.producer,
        },
    )


def _prepare_text_encoder(pipeline: OnnxPipeline, work: Path) -> Component:
    one = {"input_ids": pipeline.tokenizer.reader()([""])}
    return prepare_component(pipeline.text_encoder, TEXT_ENCODER, one, work / "text_encoder.onnx")


def _prepare_unet(pipeline: OnnxPipeline, embeds: np.ndarray, work: Path) -> Component:
    one = {
        "sample": np.zeros((1, *pipeline.latent_shape)),
        "timestep": np.asarray(1),
        "encoder_hidden_states": embeds,
    }
    return prepare_component(pipeline.unet, UNET, one, work / "unet.onnx")


def _precision(pipeline: OnnxPipeline, unet: Component, options: ExportOptions) -> Precision:
    found: Precision = "float32" if unet.dtype == ir.DataType.FLOAT else "float16"
    if options.precision not in (None, found):
        raise InputError(
            f"{pipeline.unet} is in {found}, and an ONNX export stays in its precision. Leave "
            f"{options.precision} out, or export the PyTorch model."
        )
    return found


def _check_opsets(pipeline: OnnxPipeline, text: Component, unet: Component) -> None:
    if text.opset != unet.opset:
        raise ExportError(
            f"{pipeline.text_encoder} has opset {text.opset} and {pipeline.unet} {unet.opset}, but "
            "one graph holds both. Export both with the same opset."
        )
