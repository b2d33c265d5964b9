"""The shipped flow on the device: PyTorch, ONNX Runtime and the guard, against a CPU."""

from __future__ import annotations

from collections.abc import Iterator
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

_PROMPTS = 8  # memorised captions at most, and as many that it never saw


def measure(setting: Setting, *, backend: str) -> Iterator[dict[str, Any]]:
    """Errors of each way to run it, against ONNX Runtime on the processor, and PyTorch's probes.

    And how far what the guard reads in diffusers' own pipeline on the device is from what is
    screened there, from the same noises.
    """
    device = Device(setting)
    rows = [*embedded.read_prompts("memorized"), *embedded.read_prompts("held_out")]
    count = min(_PROMPTS, setting.prompts // 2)
    prompts = [row.prompt for row in (*rows[:count], *rows[-count:])]
    with device.exact():
        yield {"PyTorch": _errors(TorchBackend(_model(), device=device.name), prompts)}
        half = TorchBackend(_model(), device=device.name, precision="float16")
        yield {"PyTorch, float16": _errors(half, prompts)}
        yield {"guard_error": _guard_error(device, prompts[0])}
    yield {backend: _errors(backend, prompts)}


def _model() -> Any:
    return load_model(embedded.FLOW_MODEL)


def _errors(backend: Backend | str, prompts: list[str]) -> dict[str, float]:
    """Relative, the largest: on the probes, of magnitudes, and of all that is read on the way."""
    with (
        Detector.load(embedded.FLOW_BUNDLE, backend=backend, uncalibrated="score") as found,
        Detector.load(embedded.FLOW_BUNDLE, backend="onnxruntime") as wanted,
    ):
        own, expected = found.screener, wanted.screener

        def error(measure: str) -> float:
            a, b = (getattr(each, measure)(prompts, noises=2) for each in (own, expected))
            return float(np.abs(a / b - 1).max())

        return {
            "probe_error": own.probe(),
            "magnitude_error": error("first_step"),
            "taps_error": error("first_step_taps"),
        }


def _guard_error(device: Device, prompt: str) -> float:
    """Relative, of one prompt on the bank's noises, at the first step and over two."""
    pipe: Any = StableDiffusion3Pipeline.from_pretrained(
        embedded.FLOW_MODEL, text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
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
