from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from screening_support import MANY, PROMPTS, Array, Changed

from mnemoscope_runtime import Bundle, Screener, open_backend


def in_16_threads(work: Callable[[], Array]) -> list[Array]:
    barrier = threading.Barrier(16)

    def run() -> Array:
        barrier.wait(60)
        return work()

    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(run) for _ in range(16)]
        return [future.result() for future in futures]


def test_results_from_16_threads(bundle_dir: Path) -> None:
    backend = Changed(open_backend("onnxruntime"))
    with Screener.open(bundle_dir) as screener:
        first, walked = screener.first_step(PROMPTS), screener.trajectory(PROMPTS[:2], steps=2)
    with Screener(Bundle.open(bundle_dir), backend) as screener:
        for values in in_16_threads(lambda: screener.first_step(PROMPTS)):
            np.testing.assert_allclose(values, first, rtol=1e-6, atol=1e-6)
        for values in in_16_threads(lambda: screener.trajectory(PROMPTS[:2], steps=2)):
            np.testing.assert_allclose(values, walked, rtol=1e-6, atol=1e-6)
    assert sorted(backend.loaded) == ["screen", "step", "text_encoder"]  # each once


def test_threads_with_prompts_of_their_own(screener: Screener) -> None:
    alone = [screener.first_step([prompt]) for prompt in MANY]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda prompt: screener.first_step([prompt]), MANY))
    np.testing.assert_allclose(found, alone, rtol=1e-6, atol=1e-6)
