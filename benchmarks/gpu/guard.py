"""What a guard takes of a draw: diffusers' pipeline with and without one, in turns."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from mnemoscope.guard import Action, Decision, Guard, calibrate_guard
from mnemoscope_runtime import BackendUnavailable

from .bundles import PROMPT, make_model
from .device import Device
from .setting import Setting

__all__ = ["measure"]

_BENIGN, _FPR, _ROUNDS = 32, 0.1, 5


def measure(setting: Setting) -> Iterator[dict[str, Any]]:
    """Seconds of whole draws, and what the guard itself takes until it has decided."""
    device = Device(setting)
    pipe = _pipeline(setting, device)

    def seconds() -> float:
        generator = torch.Generator().manual_seed(0)
        start = time.perf_counter()
        pipe(PROMPT, generator=generator, num_inference_steps=setting.steps, output_type="latent")
        device.wait()
        return time.perf_counter() - start

    seconds()  # warms up
    start = time.perf_counter()
    calibration = calibrate_guard(
        pipe,
        [f"{PROMPT}, {index}" for index in range(_BENIGN)],
        fpr=_FPR,
        num_inference_steps=setting.steps,
    )
    yield {"calibrate_seconds": time.perf_counter() - start, "calibrated_on": _BENIGN}
    rows: dict[str, list[float]] = {"bare": [], "guarded": [], "own": []}
    for turn in range(_ROUNDS + 1):
        bare = seconds()
        start = time.perf_counter()
        with Guard(pipe, calibration=calibration, policy=_pass) as guard:
            made = time.perf_counter() - start
            first = seconds()  # embeds the empty prompt
            guarded = seconds()
            own = guard.decisions[0].seconds
        if turn == 0:
            yield {"make_seconds": made, "first_guarded_seconds": first}
            continue
        for name, value in (("bare", bare), ("guarded", guarded), ("own", own)):
            rows[name].append(value)
    step = float(np.median(rows["bare"])) / setting.steps
    own_seconds = float(np.median(rows["own"]))
    yield {
        "seconds": rows,
        "ratio": float(np.median(np.divide(rows["guarded"], rows["bare"]))),
        "own_seconds": own_seconds,
        "share_of_a_step": own_seconds / step,
        **device.figures(),
    }


def _pass(decisions: tuple[Decision, ...]) -> Sequence[Action]:
    return ["pass"] * len(decisions)


def _pipeline(setting: Setting, device: Device) -> Any:
    """The model with a VAE that nothing is decoded with.

    Raises:
        BackendUnavailable: it is a Stable Diffusion XL.
    """
    warnings.simplefilter("ignore")
    model = make_model(setting, device).to(device.dtype, copy=False)
    if model.family == "sdxl":
        raise BackendUnavailable(
            "The guard is timed in Stable Diffusion 1.x and 2.x only. Choose another --family."
        )
    pipe: Any = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ).to(device.name, device.dtype),
        tokenizer=model.tokenizer,
        text_encoder=model.text_encoder,
        unet=model.unet,
        scheduler=model.sampler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
