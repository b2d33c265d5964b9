"""What the filter takes of a training step of the UNet: with and without it, in turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from mnemoscope.training import MemorizationFilter

from .bundles import PROMPT, make_model
from .device import Device
from .setting import Setting

__all__ = ["measure"]

_ROUNDS, _WARMUP = 10, 2


def measure(setting: Setting) -> Iterator[dict[str, Any]]:
    """Seconds of a step of AdamW on float32 weights, whose UNet computes in the precision."""
    device = Device(setting)
    model = make_model(setting, device)
    unet = model.unet.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(unet.parameters(), 1e-6, fused=not setting.is_rehearsal)
    with torch.no_grad():
        told = model.embed([f"{PROMPT}, {index}" for index in range(setting.batch)])
        judge = MemorizationFilter(model.scheduler, model.embed_empty()[0])
    shape = (setting.batch, *model.latent_shape)

    def predict(noisy: torch.Tensor, t: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        return model.predict(noisy, t, (embeds, *told[1:]))

    def step(filtered: bool) -> float:
        device.wait()
        start = time.perf_counter()
        noisy, noise = torch.randn(2, *shape, device=device.name)
        t = torch.randint(0, 1000, (setting.batch,), device=device.name)
        half = device.dtype != torch.float32
        # float16 would need its losses scaled; bfloat16 takes the same time
        with torch.autocast(device.name, torch.bfloat16, enabled=half):
            predicted = predict(noisy, t, told[0])
            losses = (predicted.float() - noise).square()
            loss = losses.mean()
            if filtered:
                verdict = judge(predict, noisy, t, told[0], predicted, ids=range(setting.batch))
                loss = verdict.mean(losses)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        device.wait()
        return time.perf_counter() - start

    rows = [(step(False), step(True)) for _ in range(_WARMUP + _ROUNDS)][_WARMUP:]
    bare, filtered = zip(*rows, strict=True)
    yield {
        "seconds": {"bare": bare, "filtered": filtered},
        "samples": setting.batch,
        "ratio": float(np.median(np.divide(filtered, bare))),
        **device.figures(),
    }
