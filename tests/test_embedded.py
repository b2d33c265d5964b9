"""What ships: the embedded model, its bundle, its prompts, and that it does what it is for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnemoscope import Detector, embedded
from mnemoscope.evaluate import auc, tpr_at_fpr
from mnemoscope_export import StableDiffusion, magnitudes
from mnemoscope_runtime import Bundle

MEGABYTE = 10**6


def test_sizes() -> None:
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(embedded.MODEL) <= 20 * MEGABYTE
    assert size(embedded.MODEL) + size(embedded.BUNDLE) <= 40 * MEGABYTE


def test_files_are_the_ones_that_were_trained() -> None:
    provenance = json.loads((embedded.MODEL / "provenance.json").read_text())
    for name, digest in provenance["files"].items():
        path = embedded.MODEL.parent / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, name


def test_the_bundle_is_of_the_model() -> None:
    weights = StableDiffusion.load(embedded.MODEL).weights_sha256()
    assert Bundle.open(embedded.BUNDLE).manifest.model.weights_sha256 == weights


def test_prompt_set() -> None:
    rows = embedded.read_prompts()
    assert len({row.prompt for row in rows}) == len(rows)
    splits = Counter(row.split for row in rows)
    assert splits["memorized"] >= 100
    assert splits["seen"] == splits["held_out"] == 300
    assert splits["calibration"] == 1000
    assert 0.1 < np.mean([row.tone for row in embedded.read_prompts("held_out")]) < 0.4


def test_memorized_pictures_ship() -> None:
    with Image.open(embedded.MEMORIZED) as sheet:
        width, height = sheet.size
    assert (width // 64) * (height // 64) >= len(embedded.read_prompts("memorized"))


def test_first_step_tells_them_apart() -> None:
    """The bars of the model card, on what ships."""
    with Detector.load() as detector:
        scores = {
            split: np.array(
                [
                    d.scores
                    for d in detector.screen([r.prompt for r in embedded.read_prompts(split)])
                ]
            )
            for split in ("memorized", "seen", "held_out")
        }
    for others in ("seen", "held_out"):
        assert auc(scores["memorized"][:, 0], scores[others][:, 0]) >= 0.93
        assert auc(scores["memorized"].mean(1), scores[others].mean(1)) >= 0.95


def test_ten_steps_tell_more() -> None:
    with Detector.load() as detector:
        positives, negatives = (
            np.array([d.score for d in detector.screen(prompts, steps=10, noises=1)])
            for prompts in (
                [row.prompt for row in embedded.read_prompts("memorized")[:50]],
                [row.prompt for row in embedded.read_prompts("held_out")[:100]],
            )
        )
    assert auc(positives, negatives) >= 0.97
    assert tpr_at_fpr(positives, negatives, 0.05) >= 0.7


@pytest.mark.parametrize("noises", [1, 4])
@pytest.mark.parametrize("name", ["magnitude", "taps"])
def test_the_shipped_threshold_keeps_its_promise(name: str, noises: int) -> None:
    """1 % on the captions it was set on; on others, within what 600 prompts can tell."""
    with Detector.load(detector=name) as detector:
        calibration = [row.prompt for row in embedded.read_prompts("calibration")]
        others = [row.prompt for row in embedded.read_prompts("seen", "held_out")]
        on_its_own, elsewhere = (
            np.mean([d.memorized for d in detector.screen(prompts, noises=noises)])
            for prompts in (calibration, others)
        )
    assert on_its_own <= 0.01
    assert elsewhere <= 0.03


def test_taps_flag_more_at_the_first_step() -> None:
    """The figures of docs/taps.md, on what ships."""
    prompts = [row.prompt for row in embedded.read_prompts("memorized")]
    with Detector.load(detector="taps") as taps, Detector.load() as magnitude:
        flagged, others = (
            sum(bool(d.memorized) for d in detector.screen(prompts, noises=1))
            for detector in (taps, magnitude)
        )
    assert (flagged, others) == (88, 72)


def test_engines_agree_with_the_reference() -> None:
    prompts = [row.prompt for row in embedded.read_prompts("memorized")[:4]]
    model = StableDiffusion.load(embedded.MODEL)
    with Detector.load() as detector:
        found = detector.magnitudes(prompts, steps=10)
        bank = torch.from_numpy(detector.screener.bundle.noise_bank())
    expected = magnitudes(model, prompts, bank, steps=10).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_documented_embeddings(capsys: pytest.CaptureFixture[str]) -> None:
    """diffusers' encode_prompt of two prompts returns a baseline for each."""
    page = Path(__file__).parents[1] / "docs" / "embeddings.md"
    first = page.read_text().split("```python\n")[1].split("```")[0]
    exec(compile(first, str(page), "exec"), {})
    tower, dog = capsys.readouterr().out.splitlines()
    assert tower.endswith("True")
    assert dog.endswith("False")
