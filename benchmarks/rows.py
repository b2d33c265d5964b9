"""Ways to measure one prompt on one noise, and timing them in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from rich.progress import track
from rich.table import Table

from mnemoscope import Detector
from mnemoscope_export import StableDiffusion, magnitude
from mnemoscope_export.models import Embeds
from mnemoscope_runtime.manifest import EMPTY

Rows = dict[str, Callable[[], object]]


def paper_step(model: StableDiffusion, prompt: str, noise: np.ndarray, t: int) -> Rows:
    """The paper's code: one UNet call on [uncond; cond], chunk, norm."""
    latents, at = _given(model, noise, t)
    empty = model.embed_empty()

    @torch.no_grad()
    def run() -> float:
        pairs = zip(empty, model.embed([prompt]), strict=True)
        both = tuple(torch.cat(pair) for pair in pairs)
        output = model.predict(torch.cat([latents, latents]), at, both)
        eps = (model.in_unit(part, latents, t) for part in output.chunk(2))
        uncond, cond = eps
        return float(magnitude(cond, uncond))

    return {f"PyTorch {_dtype(model)}, paper's step [uncond; cond]": run}


def cached_step(model: StableDiffusion, prompt: str, noise: np.ndarray, t: int) -> Rows:
    """The same with the unconditional prediction computed once: the strongest plain PyTorch."""
    latents, at = _given(model, noise, t)

    @torch.no_grad()
    def eps(embeds: Embeds) -> torch.Tensor:
        return model.predict_in_unit(latents, at, embeds)

    known = eps(model.embed_empty())

    def run() -> float:
        return float(magnitude(eps(model.embed([prompt])), known))

    return {f"PyTorch {_dtype(model)}, cached uncond": run}


def step_engine(detector: Detector, prompt: str) -> Rows:
    """`text_encoder.onnx` and `step.onnx` as raw engine calls."""
    screener = detector.screener
    text, step = (screener.backend.load(screener.bundle, name) for name in ("text_encoder", "step"))
    ids = screener.tokenizer([prompt])
    names = screener.bundle.manifest.embeddings
    empty = dict(zip((EMPTY[name] for name in names), screener.embed([""]), strict=True))
    fixed = {
        **empty,
        "latents": screener.bundle.noise_bank()[:1],
        "timestep": np.asarray(screener.bundle.manifest.timestep, np.int64),
    }

    def run() -> float:
        embeds = dict(zip(names, text({"input_ids": ids}, names), strict=True))
        return float(step({**embeds, **fixed}, ("magnitude",))[0][0])

    return {f"step.onnx, {screener.backend.name}": run}


def screen_engine(detector: Detector, prompt: str) -> Rows:
    """`screen.onnx` as a raw engine call."""
    screener = detector.screener
    screen = screener.backend.load(screener.bundle, "screen")
    inputs = {"input_ids": screener.tokenizer([prompt]), "noise_index": np.zeros(1, np.int64)}

    def run() -> float:
        return float(screen(inputs, ("magnitude",))[0][0, 0])

    return {f"screen.onnx, {screener.backend.name}": run}


def sdk(detector: Detector, prompt: str) -> Rows:
    """What users call."""

    def run() -> float:
        return detector.screen([prompt], noises=1)[0].score

    return {f"Detector.screen, {detector.screener.backend.name}": run}


def measure(rows: Rows, rounds: int, warmup: int) -> np.ndarray:
    """Seconds of every row in every round, [round, row]: A, B, C, ..., A, B, C, ..."""
    times = np.empty((rounds, len(rows)))
    for turn in track(range(-warmup, rounds), "rounds", transient=True):
        for column, run in enumerate(rows.values()):
            start = time.perf_counter()
            run()
            if turn >= 0:
                times[turn, column] = time.perf_counter() - start
    return times


def summary(rows: Rows, times: np.ndarray, floors: Mapping[str, float]) -> tuple[Table, dict]:
    """A table for people and the same, with raw samples, for programs; ratios are to row one."""
    table = Table("row", "p50 ms", "p90 ms", "p99 ms", "x faster", "of its floor", "magnitude")
    report = {}
    ratios = np.median(times[:, :1] / times, axis=0)
    for column, (name, run) in enumerate(rows.items()):
        p50, p90, p99 = np.percentile(times[:, column] * 1e3, [50, 90, 99])
        value = float(run())  # type: ignore[arg-type]
        share = floors[name] * 1e3 / p50 if name in floors else None
        table.add_row(
            *(name, f"{p50:.2f}", f"{p90:.2f}", f"{p99:.2f}", f"{ratios[column]:.2f}"),
            *("" if share is None else f"{share:.0%}", f"{value:.5f}"),
        )
        report[name] = {
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "ratio_p50": float(ratios[column]),
            "share_of_floor": share,
            "magnitude": value,
            "seconds": times[:, column].tolist(),
        }
    return table, report


def _given(model: StableDiffusion, noise: np.ndarray, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and timestep where the model is."""
    device = model.unet.device
    latents = torch.from_numpy(noise).to(device, model.unet.dtype)
    return latents, torch.tensor(t, device=device)


def _dtype(model: StableDiffusion) -> str:
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return names[model.unet.dtype]
