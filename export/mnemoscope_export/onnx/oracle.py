"""The export as it is, run by ONNX Runtime the plain way: the oracle of the graphs made from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mnemoscope_runtime.agreement import noise_norm, smallest
from mnemoscope_runtime.errors import ExportError, NumericsError
from mnemoscope_runtime.schedulers import Ddim, alphas_cumprod, ddim_step, guide, timesteps
from mnemoscope_runtime.units import PredictionType

from ..oracle import Coverage, Reference
from .evaluate import Session, fit
from .layout import OnnxPipeline
from .source import TEXT_ENCODER, UNET

__all__ = ["embed", "measure_reference", "to_eps"]

Array = NDArray[Any]


def to_eps(output: Array, latents: Array, abar: float, kind: PredictionType) -> Array:
    """A UNet's output in eps units; for velocities sqrt(abar) v + sqrt(1 - abar) x_t.

    The oracle's own on purpose, written anew: what graphs compute is compared with it.
    """
    if kind == "epsilon":
        return output
    return np.asarray(abar**0.5 * output + (1 - abar) ** 0.5 * latents, np.float32)


def embed(pipeline: OnnxPipeline, graph: ir.Graph, prompts: list[str]) -> NDArray[np.float32]:
    """The text encoder's last hidden states.

    Returns:
        # [B, L, D]
    """
    session = Session(pipeline.text_encoder, str(pipeline.text_encoder))
    ids = fit(graph, {"input_ids": pipeline.tokenizer.reader()(prompts)})
    return np.asarray(session(ids, TEXT_ENCODER.output)[0], np.float32)


def measure_reference(
    pipeline: OnnxPipeline,
    graph: ir.Graph,
    embeds: NDArray[np.float32],
    empty: NDArray[np.float32],
    bank: NDArray[np.float32],
    scheduler: Ddim,
    kind: PredictionType,
    timestep: int,
    *,
    coverage: Coverage,
    guidance: float,
) -> tuple[Reference, NDArray[np.float32]]:
    """Two UNet calls a step, one with the prompt and one without, one noise at a time.

    Args:
        pipeline: The export.
        graph: Its UNet; only the types of its inputs are looked at.
        embeds: Those of PROMPTS. # [5, L, D]
        empty: That of the empty prompt. # [1, L, D]
        bank: Initial noises x_T. # [noise, C, H, W]
        scheduler: The noise schedule.
        kind: What the UNet predicts.
        timestep: Of screening.
        coverage: What is measured.
        guidance: Scale of classifier-free guidance.

    Returns:
        What the export says, and its UNet's output without a prompt at the screening timestep.
        # [noise, C, H, W], fp32

    Raises:
        NumericsError: a magnitude is zero, NaN or infinite.
    """
    session, abar = Session(pipeline.unet, str(pipeline.unet)), alphas_cumprod(scheduler)

    def predict(latents: Array, timestep: int, context: Array) -> NDArray[np.float32]:
        feeds = {"sample": latents, "timestep": np.asarray(timestep)}
        feeds = fit(graph, {**feeds, "encoder_hidden_states": context})
        output = session(feeds, UNET.output)[0]
        if output.shape != latents.shape:
            raise ExportError(
                f"{pipeline.unet} gives {output.shape} for latents of {latents.shape}, so it does "
                "not predict their noise. Inpainting and upscaling models cannot be used."
            )
        return np.asarray(output, np.float32)

    def both(latents: Array, t: int, row: int, without: Array) -> tuple[Array, Array]:
        outputs = predict(latents, t, embeds[row : row + 1]), without
        eps_cond, eps_uncond = (to_eps(o, latents, abar[t], kind) for o in outputs)
        return eps_cond, eps_uncond

    def empties(t: int) -> Array:
        return np.concatenate([predict(noise[None], t, empty) for noise in bank])

    schedule = timesteps(scheduler)[: coverage.steps].tolist()
    is_first = timestep == schedule[0]
    uncond = empties(timestep)
    begun = uncond if is_first else empties(schedule[0])
    sampling = np.empty((coverage.prompts, len(bank), coverage.steps), np.float32)
    for row, column in np.ndindex(sampling.shape[:2]):
        latents = bank[column : column + 1]
        for i, t in enumerate(schedule):
            without = begun[column : column + 1] if i == 0 else predict(latents, t, empty)
            eps_cond, eps_uncond = both(latents, t, row, without)
            sampling[row, column, i] = np.linalg.norm(eps_cond - eps_uncond)
            eps = guide(eps_uncond, eps_cond, guidance)
            latents = ddim_step(latents, eps, t, scheduler)
    screening = sampling[:, :, 0].copy()
    if not is_first:
        for row, column in np.ndindex(screening.shape):
            one = slice(column, column + 1)
            eps_cond, eps_uncond = both(bank[one], timestep, row, uncond[one])
            screening[row, column] = np.linalg.norm(eps_cond - eps_uncond)
    measured = np.concatenate([sampling, screening[..., None]], -1)
    if not (np.isfinite(measured) & (measured > 0)).all():
        raise NumericsError(
            f"{pipeline.unet} measures a magnitude of zero, NaN or infinity with ONNX Runtime. "
            "Export the model to ONNX in float32."
        )
    floors = (smallest(noise_norm(bank[0].size)),)
    reference = Reference(
        "the export", coverage, screening[..., None], sampling[..., None], (embeds,), floors
    )
    return reference, uncond
