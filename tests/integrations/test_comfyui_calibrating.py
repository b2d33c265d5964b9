"""Calibrating a guard in ComfyUI, and the file that holds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from calibrations import made
from comfyui_shapes import SHAPE, BaseModel, Clip, ModelPatcher, draw, magnitude_of, noise_of

from integrations.comfyui.calibrating import calibrate_sampling
from integrations.comfyui.guard import guarded
from integrations.comfyui.setting import read
from mnemoscope import Calibration, CalibrationError, CalibrationFile, InputError
from mnemoscope.calibration import digest

BENIGN = [f"{'a' * k} dog" for k in range(1, 21)]


def calibrated(benign: Sequence[str] = BENIGN, **told: Any) -> Calibration:
    call = {"shape": SHAPE, "sample": draw, "fpr": 0.2, "delta": 0.2} | told
    return calibrate_sampling(ModelPatcher(BaseModel()), Clip(), benign, **call)


def test_scores_are_the_formula_s_and_set_the_threshold() -> None:
    model, done = BaseModel(), []
    found = calibrated(progress=lambda *now: done.append(now))
    wanted = [magnitude_of(model, text) for text in sorted(BENIGN, key=digest)]
    assert found.scores == pytest.approx(wanted, rel=1e-4)
    above = sum(score > found.threshold for score in found.scores)
    assert 0 < above < len(BENIGN) * 0.2
    assert done[-1] == (20, 20)


def test_it_stops_after_the_steps_that_are_looked_at() -> None:
    asked: list[float] = []

    def sample(model: Any, noise: Any, positive: Any, negative: Any, seed: int) -> Any:
        def function(predict: Any, x: Any, sigmas: Any) -> Any:
            for sigma in sigmas[:-1]:
                asked.append(float(sigma))
                x = predict(x, sigma.expand(len(x)))
            return x

        return draw(model, noise, positive, negative, seed, function=function)

    calibrated(sample=sample, steps=2)
    assert asked == pytest.approx([14.6, 5.0] * len(BENIGN))


def test_each_prompt_has_a_noise_of_its_own_and_always_the_same() -> None:
    noises: list[Any] = []
    seeds: list[int] = []

    def sample(model: Any, noise: Any, positive: Any, negative: Any, seed: int) -> Any:
        noises.append(noise)
        seeds.append(seed)
        return draw(model, noise, positive, negative, seed)

    calibrated(sample=sample)
    calibrated(sample=sample)
    calibrated(sample=sample, seed=1)
    sums = [float(each.sum()) for each in noises]
    assert len(set(sums[:20])) == 20
    assert sums[:20] == sums[20:40]
    assert not set(sums[:20]) & set(sums[40:])
    assert len(set(seeds[:20])) == 20  # of what ancestral samplers add
    assert seeds[:20] == seeds[20:40]


def test_prompts_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(InputError, match="that takes 299"):
        calibrated(fpr=0.01, delta=0.05)
    with pytest.raises(InputError, match="is empty"):
        calibrated([*BENIGN, ""])
    with pytest.raises(InputError, match="is to the model the negative one"):
        calibrated([*BENIGN, "blurry"], negative="blurry")
    with pytest.raises(InputError, match=r"told 8, 16 embeddings"):
        calibrated([*BENIGN, "a b c d e f g h i j"])
    with pytest.raises(InputError, match="asked the model 6 time"):
        calibrated(steps=7)


def test_the_file_is_that_of_every_calibration(tmp_path: Path) -> None:
    calibration, path = calibrated(), tmp_path / "guard.json"
    CalibrationFile((calibration,)).write(path)
    assert read(path, 1) == CalibrationFile.read(path).calibrations == (calibration,)
    parts = json.loads(calibration.setting.backend)
    assert parts["pipeline"] == "ComfyUI BaseModel"
    assert parts["sigmas"] == "14.6"
    assert parts["negative prompt"] == digest("")
    with pytest.raises(CalibrationError, match=r"look at as many steps as 1, and the guard is to"):
        read(path, 2)


def test_calibrations_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    CalibrationFile((made(),)).write(path)
    with pytest.raises(CalibrationError, match="was not made in ComfyUI"):
        read(path, 1)
    path.write_text("{}")
    with pytest.raises(CalibrationError, match="The node Calibrate Memorization Guard makes one"):
        read(path, 1)
    with pytest.raises(CalibrationError, match="There is no calibration"):
        read(tmp_path / "none.json", 1)


def test_another_model_s_calibration_is_refused() -> None:
    calibration = calibrated()
    model = BaseModel()
    model.direction.data *= 2
    patcher, clip = ModelPatcher(model), Clip()
    watch = guarded(patcher, clip, mode="block", calibrations=(calibration,))
    positive, negative = (clip.encode_from_tokens_scheduled(text) for text in ("a cat", ""))
    with pytest.raises(CalibrationError, match="was made on weights"):
        draw(watch.attach(patcher), noise_of(), positive, negative)


def test_acting_takes_a_calibration() -> None:
    with pytest.raises(InputError, match="Mode black takes a calibration"):
        guarded(ModelPatcher(BaseModel()), Clip(), mode="black", calibrations=())
    with pytest.raises(InputError, match="no mode 'warn'"):
        guarded(ModelPatcher(BaseModel()), Clip(), mode="warn", calibrations=())  # type: ignore[arg-type]
