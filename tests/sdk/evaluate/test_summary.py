from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnemoscope import BackendUnavailable, Detection, InputError
from mnemoscope.evaluate import auc, bootstrap, tpr_at_fpr
from mnemoscope.evaluate.summary import plot, summary, write_json


def detections(
    scores: list[float], threshold: float | None = 1.0, prompt: str = "a cat"
) -> list[Detection]:
    return [
        Detection(
            prompt=f"{prompt} {i}",
            score=score,
            scores=(score, score),
            p_value=None,
            threshold=threshold,
            memorized=None if threshold is None else score > threshold,
            truncated=False,
            detector="magnitude",
            backend="fake",
            bundle="b" * 64,
            steps=1,
            noises=2,
            passes=2,
            rms=0.1,
            seconds=0.001,
        )
        for i, score in enumerate(scores)
    ]


MEMORIZED = detections(np.random.default_rng(0).normal(1.4, 0.3, 60).tolist())
OTHERS = detections(np.random.default_rng(1).normal(0.7, 0.3, 90).tolist())
SCORES = tuple(np.array([d.score for d in each]) for each in (MEMORIZED, OTHERS))


def test_the_summary_is_that_of_the_scores() -> None:
    positives = np.array([d.score for d in MEMORIZED])
    negatives = np.array([d.score for d in OTHERS])
    figures = summary(MEMORIZED, OTHERS)
    assert figures == {
        "auc": bootstrap(auc, positives, negatives),
        "tpr_at_1_percent_fpr": bootstrap(tpr_at_fpr, positives, negatives),
    }
    assert 0.8 < figures["auc"].value < 1


def test_the_summary_needs_both_kinds() -> None:
    with pytest.raises(InputError, match="0 memorised and 90 other"):
        summary([], OTHERS)


def test_json_holds_figures_and_every_detection(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    others = detections([0.5], prompt="eine Katze — 猫")
    figures = summary(MEMORIZED, others)
    write_json(path, figures, MEMORIZED, others)
    text = path.read_text("utf-8")
    report = json.loads(text)
    assert set(report) == {"figures", "detections"}
    assert report["figures"]["auc"] == {
        "value": figures["auc"].value,
        "low": figures["auc"].low,
        "high": figures["auc"].high,
    }
    labels = [row["label"] for row in report["detections"]]
    assert labels == ["memorized"] * 60 + ["other"]
    assert [row["score"] for row in report["detections"]] == [
        d.score for d in (*MEMORIZED, *others)
    ]
    assert "eine Katze — 猫 0" in text


@pytest.mark.parametrize("name", ["demo.png", "without-ending", "demo.xyz"])
def test_the_plot_is_a_png_whatever_its_name(tmp_path: Path, name: str) -> None:
    plot(tmp_path / name, *SCORES, threshold=1.0)
    with Image.open(tmp_path / name) as image:
        assert image.format == "PNG"
        assert image.size == (1200, 480)
        assert len(image.convert("RGB").getcolors(2**20) or ()) > 50


def test_without_memorised_prompts_there_is_no_roc(tmp_path: Path) -> None:
    plot(tmp_path / "plot.png", np.empty(0), SCORES[1], threshold=1.0)
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size == (600, 480)


def test_the_plot_shows_the_threshold(tmp_path: Path) -> None:
    plot(tmp_path / "with.png", *SCORES, threshold=1.0)
    plot(tmp_path / "without.png", *SCORES, threshold=None)
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


@pytest.mark.parametrize("value", [0.0, -1.5])
def test_scores_that_are_all_alike_can_be_plotted(tmp_path: Path, value: float) -> None:
    alike = np.full(2, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        plot(tmp_path / "alike.png", alike, alike, threshold=None)
    assert (tmp_path / "alike.png").stat().st_size > 1000


def test_plots_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailable, match=r"pip install -c constraints.txt '\.\[plot\]'"):
        plot(tmp_path / "demo.png", *SCORES, threshold=1.0)
    assert not (tmp_path / "demo.png").exists()


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    figures = summary(MEMORIZED, OTHERS)
    for path in (tmp_path, tmp_path / "missing" / "demo"):
        with pytest.raises(InputError, match="cannot be written"):
            write_json(path, figures, MEMORIZED, OTHERS)
        with pytest.raises(InputError, match="cannot be written"):
            plot(path, *SCORES, threshold=1.0)
