"""What the tests of mitigation share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pipelines import build_pipeline

from mnemoscope import CalibrationFile, Detector, calibrate
from mnemoscope.drawing.alignment import load_alignment
from mnemoscope.drawing.copy_detection import LatentDescriptor, load_descriptor
from mnemoscope.mitigate import Kit, Mitigator, Painter, Plan, Rule, Sampling, Task, Yardstick
from mnemoscope.mitigate.sampling import sample
from mnemoscope_export import Model
from mnemoscope_runtime import Screener

MEMORIZED = "umbrella, from alma trade fair"
QUICK = Sampling(steps=4)
LOADED = {each.__name__: cache(each) for each in (load_alignment, load_descriptor, Painter.load)}


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


@dataclass(frozen=True)
class OtherNoise:
    """Draws another seed's picture, unless the seed is one it cannot help."""

    helpless: tuple[int, ...] = ()
    name: str = "other-noise"

    def plan(self, task: Task) -> Plan:
        noises = task.noises.flip(-1) * 1.0
        for i, seed in enumerate(task.seeds):
            if seed in self.helpless:
                noises[i] = task.noises[i]
        return replace(task.plan(), latents=noises)


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the command line: models and judges, which nothing changes, are loaded by the first."""
    for module, name in (("mitigate", "load_alignment"), ("_mitigating", "load_descriptor")):
        monkeypatch.setattr(f"mnemoscope.cli.{module}.{name}", LOADED[name])
    monkeypatch.setattr(Painter, "load", LOADED["load"])


def check_is_mitigated(model: Model, vae: Any, screener: Screener) -> None:
    """From the bank's noises magnitudes on the way are those that the engines of a bundle measure.

    And `auto`, which flags everything here, brings one down.
    """
    painter, sampling = Painter(model, vae), Sampling.of(screener.bundle.manifest)
    task = painter.task(["A red cat"] * 2, [0, 1], sampling)
    task = replace(task, noises=torch.from_numpy(screener.bundle.noise_bank()))
    drawn = sample(task.plan(), sampling)
    [wanted] = screener.trajectory(["A red cat"], steps=sampling.steps)
    np.testing.assert_allclose(drawn.magnitudes.numpy(), wanted, rtol=1e-4)
    benign = [f"a cat, number {i}" for i in range(20)]
    alone = Detector(screener, uncalibrated="score")
    known = CalibrationFile(tuple(calibrate(alone, benign, noises=(1,), fpr=0.1, delta=0.2)))
    yardstick = Yardstick.of(known, screener.bundle, sampling)
    kit = Kit(painter, yardstick, 0.1, benign[:3], sampling)
    judge = LatentDescriptor(painter.vae, painter.side)
    mitigator = Mitigator(painter, judge, None, yardstick, sampling, benign[:3])
    detector = Detector(screener, known)  # not closed, as others have the screener too
    ladder = [kit.make("embedding")]
    done = mitigator.auto("A red cat", ladder, detector, rule=Rule(None, 0.99))
    [before], [after] = done.originals, done.pictures
    assert (done.flagged, after.strategy) == (True, "embedding")
    assert after.judged.score < before.judged.score
