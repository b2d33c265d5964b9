from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from screening_support import CPU, MANY, PROMPTS, Array, Changed

from mnemoscope import Detector, embedded
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


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.slow
def test_64_threads_score_as_one_does(backend: str) -> None:
    """Bit by bit: a verdict does not depend on who else is asking."""
    prompts = [row.prompt for row in embedded.read_prompts("memorized", "held_out")][:64]
    barrier = threading.Barrier(64)

    def ask(prompt: str) -> tuple[float, ...]:
        barrier.wait(60)
        return detector.screen([prompt], noises=1)[0].scores

    with Detector.load(backend=backend) as detector:
        alone = [detector.screen([prompt], noises=1)[0].scores for prompt in prompts]
        with ThreadPoolExecutor(64) as pool:
            found = list(pool.map(ask, prompts))
        assert found == alone
        assert len(set(found)) > 60
        assert detector.screen(prompts[:1], noises=1)[0].scores == alone[0]


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.slow
def test_64_threads_walk_as_one_does(backend: str) -> None:
    """More steps need two more graphs, which all threads ask for at the same time."""
    barrier = threading.Barrier(64)
    prompts = ["a photo of a cat", "google icon of rocket, huge"]

    def ask(own: int) -> list[float]:
        barrier.wait(60)
        return detector.magnitudes([prompts[own % 2]], steps=2, noises=1).ravel().tolist()

    with Detector.load(backend=backend, threads=1) as detector, ThreadPoolExecutor(64) as pool:
        found = list(pool.map(ask, range(64)))
        alone = [detector.magnitudes([p], steps=2, noises=1).ravel().tolist() for p in prompts]
    assert found == alone * 32
