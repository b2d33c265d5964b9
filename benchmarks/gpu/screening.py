"""How long a detector takes for a prompt, and for many, beside the paper's step in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from mnemoscope import Detector
from mnemoscope.benchmark import latency
from mnemoscope_export import StableDiffusion

from .. import rows as ways
from .bundles import PROMPT
from .setting import Setting

__all__ = ["many", "one_by_one"]


def one_by_one(
    detector: Detector, setting: Setting, model: StableDiffusion
) -> Iterator[dict[str, Any]]:
    """One prompt on one noise: the paper's step, the engine and the detector in turns.

    Args:
        detector: With a bundle of the model.
        setting: Of the run.
        model: What the reference runs, on the device and in the precision that is measured.
    """
    start = time.perf_counter()
    detector.screen([PROMPT], noises=1)
    yield {"first_call_seconds": time.perf_counter() - start}
    yield {"probe_error": detector.screener.probe()}
    bundle = detector.screener.bundle
    noise, t = bundle.noise_bank()[:1], bundle.manifest.timestep
    rows = {
        **ways.paper_step(model, PROMPT, noise, t),
        **ways.cached_step(model, PROMPT, noise, t),
        **ways.screen_engine(detector, PROMPT),
        **ways.sdk(detector, PROMPT),
    }
    times = ways.measure(rows, setting.rounds, setting.warmup)
    _, report = ways.summary(rows, times, {})
    yield {"rows": report, "ms_a_prompt": list(report.values())[-1]["p50_ms"]}


def many(detector: Detector, setting: Setting) -> Iterator[dict[str, Any]]:
    """All prompts at once, on one noise."""
    prompts = [f"{PROMPT}, {index}" for index in range(setting.prompts)]
    [found] = latency.offline({"": detector}, prompts, rounds=5, warmup=2)
    yield {
        "offline": {"prompts": len(prompts), "seconds": found.seconds},
        "prompts_per_second": found.throughput,
    }
