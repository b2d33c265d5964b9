from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from benchmarks import embedded_flow as study
from benchmarks import embedded_flow_guidance, embedded_flow_noises, flagged
from mnemoscope import Detector, embedded
from mnemoscope.evaluate import auc
from recipes.embedded_flow.pack import read_trained
from recipes.embedded_flow.student import guided
from recipes.embedded_flow.told import Told


def test_what_is_studied_is_what_is_screened() -> None:
    """ONNX Runtime is the witness, of the prediction and of taps."""
    trained = read_trained(embedded.FLOW_MODEL)
    prompts = [row.prompt for row in embedded.read_prompts("memorized")[:2]]
    with Detector.load(embedded.FLOW_BUNDLE) as detector:
        screener = detector.screener
        noise = torch.from_numpy(screener.bundle.noise_bank()[:1])
        expected = screener.first_step(prompts, noises=1)[:, 0]
        taps = screener.first_step_taps(prompts, noises=1)[:, 0]
        names = screener.bundle.manifest.taps
        along = screener.trajectory(prompts, steps=2, noises=1)
    found = study.first_step(trained, trained.tell(prompts), noise, 1.0)
    np.testing.assert_allclose(found["velocity"], expected, rtol=2e-3)
    for column, name in enumerate(names):
        block = f"image stream after block {name.rsplit('.', 1)[1]}"
        np.testing.assert_allclose(found[block], taps[:, column], rtol=2e-3)
    assert along.shape[0] == 2
    first = study.along(trained, trained.tell(prompts), noise, 2)[:, 0]
    np.testing.assert_allclose(first, expected, rtol=2e-3)


def test_a_block_is_chosen_on_one_half_and_judged_on_the_other() -> None:
    rng = np.random.default_rng(0)
    good = rng.normal(3, 1, (40, 1)), rng.normal(0, 1, (80, 1))
    bad = rng.normal(0, 1, (40, 1)), rng.normal(0, 1, (80, 1))
    value, chosen = study.chosen_on_half({"good": good, "bad": bad})
    assert value > 0.95
    assert set(chosen) == {"good"}


def test_a_student_that_guides_as_its_teacher_is_told_apart_by_guidance() -> None:
    """One that draws u + w (c - u) differs by 2.5 (c - u) between guidances of 3.5 and 1."""

    def student(x: Tensor, _: Tensor, pooled: Tensor, time: Tensor) -> SimpleNamespace:
        assert (time == 800).all()
        own, guidance = pooled[:, 0], pooled[:, -1]
        return SimpleNamespace(sample=x * 0 + (guidance * own)[:, None, None, None])

    told = Told(torch.zeros(2, 78, 192), torch.tensor([[3.0], [1.0]]))
    empty = Told(torch.zeros(1, 78, 192), torch.tensor([[0.0]]))
    found = study.in_a_student(student, told, empty, torch.randn(1, 8, 16, 16), 0.8)  # type: ignore[arg-type]
    by_prompt, by_guidance = found.values()
    torch.testing.assert_close(by_prompt, 3.5 * 2048**0.5 * torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(by_guidance, 2.5 * 2048**0.5 * torch.tensor([3.0, 1.0]))


def test_one_noise_is_judged_as_what_is_screened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime is the witness, by the bundle's first noise."""
    monkeypatch.setattr(embedded_flow_noises, "NOISES", (0,))
    monkeypatch.setattr(embedded_flow_noises, "OTHERS", 1)
    monkeypatch.setattr("sys.argv", ["noises", "--limit", "8", "--output", str(tmp_path)])
    embedded_flow_noises.main()
    with Detector.load(embedded.FLOW_BUNDLE) as detector:
        own, *others = (
            detector.screener.first_step(
                [row.prompt for row in embedded.read_prompts(split)[:8]], noises=1
            )[:, 0]
            for split in ("memorized", "seen", "held_out")
        )
    found = json.loads((tmp_path / "embedded-flow-noises.json").read_text())["auc"]
    assert found == pytest.approx([auc(own, np.concatenate(others))], abs=0.01)  # a pair of 128


def test_what_is_flagged_lies_above_the_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flagged, "DETECTORS", ("magnitude",))
    monkeypatch.setattr(
        "sys.argv", ["flagged", "embedded-flow", "--limit", "4", "--output", str(tmp_path)]
    )
    flagged.main()
    [row] = json.loads((tmp_path / "embedded-flow-flagged.json").read_text())
    with Detector.load(embedded.FLOW_BUNDLE, uncalibrated="score") as detector:
        for split in flagged.SPLITS:
            prompts = [each.prompt for each in embedded.read_prompts(split)[:4]]
            scores = detector.magnitudes(prompts, steps=1, noises=4).mean((1, 2))
            threshold = detector.screen(["a cat"])[0].threshold
            assert row[split] == {"flagged": int((scores > threshold).sum()), "of": 4}
    assert row["memorized"]["flagged"] > 0


@pytest.mark.slow
def test_more_guidance_leads_away_from_the_training_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Brightness:
        """What is bright where, in place of SSCD."""

        def describe(self, images: list[Image.Image]) -> np.ndarray:
            grey = np.stack([np.asarray(each.convert("L"), float).ravel() for each in images])
            grey -= grey.mean(1, keepdims=True)
            return grey / np.linalg.norm(grey, axis=1, keepdims=True)

    monkeypatch.setattr(embedded_flow_guidance, "load_descriptor", lambda _: Brightness())
    monkeypatch.setattr(embedded_flow_guidance, "GUIDANCES", (1.0, 7.0))
    monkeypatch.setattr("sys.argv", ["guidance", "--limit", "1", "--output", str(tmp_path)])
    embedded_flow_guidance.main()
    report = json.loads((tmp_path / "embedded-flow-guidance.json").read_text())
    none, much = report["rows"]
    assert none["squared_error"] < 0.01 < much["squared_error"] < 0.1
    assert 1 > none["sscd_mean"] > much["sscd_mean"] > 0.5
    assert (report["captions"], none["captions_copied_by_both"]) == (1, 1)


@pytest.mark.slow
def test_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "Console", lambda **_: Console(width=200, quiet=True))
    monkeypatch.setattr(study, "NOISES", (1,))
    monkeypatch.setattr(study, "STEPS", (1, 2))
    monkeypatch.setattr(study, "LEVELS", (1.0, 0.8))
    student = guided(read_trained(embedded.FLOW_MODEL).network)
    save_file({k: v.clone() for k, v in student.state_dict().items()}, tmp_path / "student")
    arguments = ["--limit", "2", "--output", tmp_path, "--student", tmp_path / "student"]
    monkeypatch.setattr("sys.argv", ["study", *map(str, arguments)])
    study.main()
    report = json.loads((tmp_path / "embedded-flow.json").read_text())
    names = {row["score"] for row in report["rows"]}
    assert {"velocity", "velocity, told s = 0.8", "image stream after block 4"} <= names
    assert "a student's, guidance 3.5 against 1, told s = 0.8" in names
    assert len(report["rows"]) == len(names)
