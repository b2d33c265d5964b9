"""What the tests of mitigation share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipelines import build_pipeline

from mnemoscope.mitigate import Mitigator, Painter, Sampling

QUICK = Sampling(steps=4)


@pytest.fixture(scope="session")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    """A Stable Diffusion with random weights."""
    folder: Path = tmp_path_factory.mktemp("painter") / "tiny"
    build_pipeline("epsilon").save_pretrained(folder)
    return Painter.load(str(folder))


class Pixels:
    """A copy descriptor: the pixels less their mean."""

    name = "pixels"
    copied_above = 0.9

    def describe(self, images: list[Image.Image]) -> np.ndarray:
        flat = np.stack([np.asarray(each.convert("RGB"), np.float32).ravel() for each in images])
        flat = flat - flat.mean(1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)


class Red:
    """An alignment: how red a picture is, whatever the prompt."""

    name = "red"

    def score(self, prompts: list[str], images: list[Image.Image]) -> np.ndarray:
        assert len(prompts) == len(images)
        return np.array([np.asarray(each)[..., 0].mean() / 255 for each in images], np.float32)


@pytest.fixture
def mitigator(painter: Painter) -> Mitigator:
    """It, with judges that anyone can check."""
    return Mitigator(painter, Pixels(), Red(), sampling=QUICK)
