from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mnemoscope import embedded
from mnemoscope_runtime import BackendUnavailable, Bundle, Screener
from mnemoscope_runtime.backends import Arrays, open_backend
from mnemoscope_runtime.backends.served import Served

PROMPTS = ["a cat", "a dog", "rain", "sheep, tilted", "eine Katze"]


def test_calls_are_cut_to_what_the_server_takes() -> None:
    sizes = []
    with open_backend("onnxruntime", threads=1) as real:
        engine = real.load(Bundle.open(embedded.BUNDLE), "screen")

        def ask(inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
            sizes.append(inputs["input_ids"].shape[:1] + inputs["noise_index"].shape)
            return engine(inputs, outputs)

        with Screener.open(embedded.BUNDLE, backend=Served("onnxruntime", 2, ask)) as screener:
            found = screener.first_step(PROMPTS, noises=3)
            error = screener.probe()
    assert sizes[:3] == [(2, 3), (2, 3), (1, 3)]
    assert error < 1e-4
    with Screener.open(embedded.BUNDLE, threads=1) as screener:
        np.testing.assert_allclose(found, screener.first_step(PROMPTS, noises=3), rtol=1e-4)


def test_it_has_no_other_graph() -> None:
    with pytest.raises(BackendUnavailable, match="step is wanted"):
        Screener.open(
            Path(embedded.BUNDLE), backend=Served("tensorrt", 8, lambda *_: []), graphs=("step",)
        )
