"""Engines of the shipped bundle for a TensorRT of numpy (see fake_gpu)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import CARD, DRIVER, FakeTensorRt, plan

from mnemoscope import embedded
from mnemoscope_runtime import Bundle
from mnemoscope_runtime.backends.cover import Profile
from mnemoscope_runtime.backends.tensorrt import PlanKey, write_plan
from mnemoscope_runtime.backends.tensorrt.build import BuildOptions, plan_key

Put = Callable[..., Path]


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    return Bundle.open(embedded.BUNDLE)


@pytest.fixture
def put(shipped: Bundle, tmp_path: Path, fake_trt: FakeTensorRt) -> Put:
    """Write an engine as `mnemoscope build` would."""

    def put(
        *sizes: str | Profile,
        graph: str = "screen",
        backend: str = "tensorrt",
        content: bytes | None = None,
        driver: str | None = DRIVER.version,
        change: Callable[[PlanKey], PlanKey] = lambda key: key,
    ) -> Path:
        profiles = tuple(Profile.parse(s) if isinstance(s, str) else s for s in sizes)
        options = BuildOptions(profiles=profiles)
        key = plan_key(fake_trt, backend, shipped, graph, options)
        if backend == "tensorrt":
            key = replace(key, gpu=CARD.name, sm=(CARD.sm,))
        key = change(key)
        return write_plan(tmp_path, key, content or plan(graph, key.profiles), driver)

    return put


def ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, (count, 77))


def screen(engine: object, prompts: np.ndarray, noises: int) -> np.ndarray:
    index = np.arange(noises, dtype=np.int64)
    return engine({"input_ids": prompts, "noise_index": index}, ("magnitude",))[0]  # type: ignore[operator]
