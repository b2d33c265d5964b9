"""What ships: the embedded model, its bundle, its prompts, and that it does what it is for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from documented import run_code
from PIL import Image
from repository import ROOT
from scipy import stats

from mnemoscope import Calibration, CalibrationFile, Detector, InputError, Setting, embedded
from mnemoscope.calibration import digest
from mnemoscope.embedded import Split
from mnemoscope.evaluate import auc, tpr_at_fpr
from mnemoscope_export import StableDiffusion, magnitudes
from mnemoscope_runtime import Bundle

MEGABYTE = 10**6
EVALUATION = ROOT / "benchmarks" / "results" / "embedded-evaluation.json"


def test_sizes() -> None:
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(embedded.MODEL) <= 20 * MEGABYTE
    assert size(embedded.MODEL) + size(embedded.BUNDLE) <= 40 * MEGABYTE


def test_files_are_the_ones_that_were_trained() -> None:
    provenance = json.loads((embedded.MODEL / "provenance.json").read_text())
    for name, expected in provenance["files"].items():
        path = embedded.MODEL.parent / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == expected, name


@pytest.mark.slow
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


def test_prompts_that_there_are_none_of() -> None:
    with pytest.raises(InputError, match=r"are 'memorised'\. Choose some of: memorized, seen"):
        embedded.read_prompts("memorised")  # type: ignore[arg-type]


def test_memorized_pictures_ship() -> None:
    with Image.open(embedded.MEMORIZED) as sheet:
        width, height = sheet.size
    assert (width // 64) * (height // 64) >= len(embedded.read_prompts("memorized"))


class Stored:
    """What was measured of every prompt, shipped or written by the benchmark of evaluation."""

    def __init__(self) -> None:
        known = json.loads(EVALUATION.read_text())
        rows = [row["prompt"] for row in (*known["positives"], *known["negatives"])]
        self.magnitudes = {
            (part["steps"], part["noises"]): dict(
                zip(rows, part["positives"] + part["negatives"], strict=True)
            )
            for part in known["scores"]
            if part["detector"] == "magnitude"
        }
        self.calibrations = CalibrationFile.read(embedded.BUNDLE / "calibration.json")

    def of(self, split: Split, steps: int, noises: int) -> np.ndarray:
        """Magnitudes of a split's prompts. # [N]"""
        scores = self.magnitudes[steps, noises]
        return np.array([scores[row.prompt] for row in embedded.read_prompts(split)])

    def calibration(self, detector: str, noises: int) -> Calibration:
        """That of the first step, as it ships."""
        setting = Setting(Bundle.open(embedded.BUNDLE).id, "onnxruntime", detector, 1, noises)
        found = self.calibrations.find(setting)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def stored() -> Stored:
    return Stored()


@pytest.mark.slow
def test_stored_magnitudes_are_the_bundles(stored: Stored) -> None:
    """Every twentieth prompt, and those next to the threshold: rounding would turn them first."""
    threshold = stored.calibration("magnitude", 1).threshold
    first, four, ten = (stored.magnitudes[each] for each in ((1, 1), (1, 4), (10, 1)))
    assert len(first) == 700
    nearest = sorted(first, key=lambda prompt: abs(first[prompt] - threshold))[:10]
    prompts = [*list(first)[::20], *nearest]
    with Detector.load() as detector:
        found = detector.screen(prompts)
        later = detector.screen(prompts[::9], steps=10, noises=1)
    for each in found:
        assert each.scores[0] == pytest.approx(first[each.prompt], rel=1e-4)
        assert each.score == pytest.approx(four[each.prompt], rel=1e-4)
    for each in later:
        assert each.score == pytest.approx(ten[each.prompt], rel=1e-4)


def test_thresholds_are_those_that_scipy_sets() -> None:
    for each in CalibrationFile.read(embedded.BUNDLE / "calibration.json").calibrations:
        count, delta = len(each.scores), each.delta / each.among
        above = int(stats.binom.ppf(delta, count, each.fpr))
        above -= int(stats.binom.cdf(above, count, each.fpr) > delta)
        limit = sorted(each.scores)[-1 - above]
        assert each.threshold == limit + 1e-4 * abs(limit)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["magnitude", "taps"])
def test_calibrations_are_the_bundles(stored: Stored, name: str) -> None:
    """Some of the benign scores that ship, those next to the threshold among them."""
    one, four = (stored.calibration(name, noises) for noises in (1, 4))
    assert one.prompts == four.prompts
    texts = {digest(row.prompt): row.prompt for row in embedded.read_prompts("calibration")}
    assert len(one.prompts) == len(texts) / (1 if name == "magnitude" else 2)  # taps learn
    nearest = np.argsort(np.abs(np.array(one.scores) - one.threshold))[:8]
    chosen = [*range(0, len(one.prompts), len(one.prompts) // 16), *nearest]
    with Detector.load(detector=name) as detector:
        found = detector.screen([texts[one.prompts[i]] for i in chosen])
    for i, each in zip(chosen, found, strict=True):
        assert each.scores[0] == pytest.approx(one.scores[i], rel=1e-4, abs=1e-3)
        assert each.score == pytest.approx(four.scores[i], rel=1e-4, abs=1e-3)
        if abs(four.scores[i] - four.threshold) > 1e-3:  # else rounding may decide
            assert each.memorized == (four.scores[i] > four.threshold)


def test_first_step_tells_them_apart(stored: Stored) -> None:
    """The bars of the model card, on what ships."""
    for others in ("seen", "held_out"):
        for noises, bar in ((1, 0.93), (4, 0.95)):
            scores = (stored.of(split, 1, noises) for split in ("memorized", others))
            assert auc(*scores) >= bar


def test_ten_steps_tell_more(stored: Stored) -> None:
    positives, negatives = (stored.of(split, 10, 1) for split in ("memorized", "held_out"))
    assert auc(positives, negatives) >= 0.97
    assert tpr_at_fpr(positives, negatives, 0.05) >= 0.7


@pytest.fixture(scope="module")
def elsewhere(stored: Stored) -> dict[tuple[str, int], np.ndarray]:
    """Scores of captions that no threshold was set on, by detector and noises. # [N]"""
    found = {
        ("magnitude", noises): np.r_[stored.of("seen", 1, noises), stored.of("held_out", 1, noises)]
        for noises in (1, 4)
    }
    prompts = [row.prompt for row in embedded.read_prompts("seen", "held_out")[::6]]
    with Detector.load(detector="taps") as detector:  # no benchmark writes its own
        taps = detector.screen(prompts)
    found["taps", 1] = np.array([each.scores[0] for each in taps])
    found["taps", 4] = np.array([each.score for each in taps])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("noises", [1, 4])
@pytest.mark.parametrize("name", ["magnitude", "taps"])
def test_the_shipped_threshold_keeps_its_promise(
    stored: Stored, elsewhere: dict[tuple[str, int], np.ndarray], name: str, noises: int
) -> None:
    """1 % on the captions it was set on; on others, within what so many prompts can tell."""
    known, others = stored.calibration(name, noises), elsewhere[name, noises]
    assert np.mean(np.array(known.scores) > known.threshold) <= 0.01
    assert len(others) == (600 if name == "magnitude" else 100)
    assert np.mean(others > known.threshold) <= 0.03


@pytest.mark.slow
def test_taps_flag_more_at_the_first_step() -> None:
    """The figures of docs/taps.md, on what ships."""
    prompts = [row.prompt for row in embedded.read_prompts("memorized")]
    with Detector.load(detector="taps") as taps, Detector.load() as magnitude:
        flagged, others = (
            sum(bool(d.memorized) for d in detector.screen(prompts, noises=1))
            for detector in (taps, magnitude)
        )
    assert (flagged, others) == (88, 72)


@pytest.mark.slow
def test_engines_agree_with_the_reference() -> None:
    prompts = [row.prompt for row in embedded.read_prompts("memorized")[:2]]
    model = StableDiffusion.load(embedded.MODEL)
    with Detector.load() as detector:
        found = detector.magnitudes(prompts, steps=10, noises=2)
        bank = torch.from_numpy(detector.screener.bundle.noise_bank())[:2]
    expected = magnitudes(model, prompts, bank, steps=10).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.slow
def test_the_documented_embeddings(capsys: pytest.CaptureFixture[str]) -> None:
    """diffusers' encode_prompt of two prompts returns a baseline for each."""
    run_code("embeddings.md", "import StableDiffusionPipeline")
    tower, dog = capsys.readouterr().out.splitlines()
    assert tower.endswith("True")
    assert dog.endswith("False")
