"""The shipped flow on the device: PyTorch, ONNX Runtime and the guard, against a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline

from mnemoscope import Detector, embedded
from mnemoscope.guard import Guard
from mnemoscope_export import TorchBackend, load_model
from mnemoscope_runtime import Backend

from .device import Device
from .setting import Setting

__all__ = ["measure"]

_PROMPTS = 8  # memorised captions, and as many that it never saw


def measure(setting: Setting, *, backend: str) -> Iterator[dict[str, Any]]:
    """Errors on the bundle's probes, which PyTorch computed on a CPU, of each way to run it.

    And how far what the guard reads in diffusers' own pipeline on the device is from what is
    screened there, from the same noises.
    """
    device = Device(setting)
    rows = [*embedded.read_prompts("memorized"), *embedded.read_prompts("held_out")]
    prompts = [row.prompt for row in (*rows[:_PROMPTS], *rows[-_PROMPTS:])]
    with device.exact():
        yield {"PyTorch": _probed(TorchBackend(_model(), device=device.name), {}, prompts)}
        half = TorchBackend(_model(), device=device.name, precision="float16")
        yield {"PyTorch, float16": _probed(half, {}, prompts)}
        yield {"guard_error": _guard_error(device, prompts[0])}
    for detector in ("magnitude", "taps"):
        yield {f"{backend}, {detector}": _probed(backend, {"detector": detector}, prompts)}


def _model() -> Any:
    return load_model(embedded.FLOW_MODEL)


def _probed(backend: Backend | str, told: Mapping[str, Any], prompts: list[str]) -> dict[str, Any]:
    """The largest relative error on the probes; and against the CPU's scores, if it has any."""
    with (
        Detector.load(embedded.FLOW_BUNDLE, backend=backend, uncalibrated="score", **told) as found,
        Detector.load(embedded.FLOW_BUNDLE, backend="onnxruntime", **told) as wanted,
    ):
        scores, expected = (
            np.array([each.score for each in detector.screen(prompts)])
            for detector in (found, wanted)
        )
        return {
            "probe_error": found.screener.probe(),
            "scores_error": float(np.abs(scores / expected - 1).max()),
        }


def _guard_error(device: Device, prompt: str) -> float:
    """Relative, of one prompt on the bank's noises, at the first step and over two."""
    pipe: Any = StableDiffusion3Pipeline.from_pretrained(
        embedded.FLOW_MODEL, text_encoder_3=None, tokenizer_3=None, torch_dtype=torch.float32
    ).to(device.name)
    pipe.set_progress_bar_config(disable=True)
    backend = TorchBackend(_model(), device=device.name)
    errors = []
    with Detector.load(embedded.FLOW_BUNDLE, backend=backend, uncalibrated="score") as detector:
        bank = torch.from_numpy(detector.screener.bundle.noise_bank())
        for steps in (1, 2):

            def stop(pipe: Any, index: int, _: Any, more: Any, steps: int = steps) -> Any:
                pipe._interrupt = index + 1 == steps  # no more is read
                return more

            with Guard(pipe, steps=steps) as watching:
                pipe(
                    prompt=[prompt] * len(bank),
                    latents=bank.to(device.name),
                    output_type="latent",
                    callback_on_step_end=stop,
                    num_inference_steps=len(detector.screener.timesteps),
                    guidance_scale=detector.screener.bundle.manifest.guidance,
                    height=64,
                    width=64,
                )
            found = np.array([each.score for each in watching.decisions])
            [wanted] = detector.screen([prompt], steps=steps)
            errors.append(np.abs(found / np.array(wanted.scores) - 1).max())
    return float(max(errors))
