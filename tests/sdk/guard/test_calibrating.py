"""A guard's calibration is what its requests measure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from guard_support import BENIGN, STEPS, counted, pipe
from pipelines import build_xl
from t5_tokenizers import t5_tokenizer

from mnemoscope import Calibration, CalibrationError, InputError
from mnemoscope.calibration import digest, name_of
from mnemoscope.guard import Guard, StepwiseOptimization, calibrate_guard
from mnemoscope.guard.telling_apart import digests

pytestmark = pytest.mark.slow

__all__ = ["pipe"]
LONG = "cats " * 75
OPTIONS: dict[str, Any] = {"fpr": 0.3, "num_inference_steps": STEPS}


def requested(pipe: Any, prompt: str, calibration: Calibration, **call: Any) -> float:
    """The score of the request that calibrating made of a prompt."""
    generator = torch.Generator().manual_seed(int(digest(prompt), 16))
    options: dict[str, Any] = {"num_inference_steps": STEPS, "output_type": "latent"} | call
    with Guard(pipe, calibration=calibration, steps=calibration.setting.steps, **_guard(call)) as g:
        pipe(prompt, generator=generator, **options)
    assert g.decisions[0].p_value is not None
    return g.decisions[0].score


def name(pipe: Any, prompt: str) -> str:
    [read] = digests(pipe, {}, [prompt], whole=False)
    return name_of(read)


def _guard(call: dict[str, Any]) -> dict[str, Any]:
    return {"negative_prompt": call["negative_prompt"]} if "negative_prompt" in call else {}


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
@pytest.mark.parametrize(
    "call",
    [
        {},
        {"steps": 3, "guidance_scale": 3.0},
        {"negative_prompt": "dark"},
        {"steps": 2, "negative_prompt": "dark"},
        {"height": 24, "width": 24},
    ],
)
def test_scores_are_those_of_requests(pipe: Any, call: dict[str, Any]) -> None:
    found = calibrate_guard(pipe, BENIGN, batch=5, **OPTIONS, **call)
    assert len(found.scores) == len(BENIGN)
    assert found.setting.steps == call.get("steps", 1)
    named = dict(zip(found.prompts, found.scores, strict=True))
    told = {name: value for name, value in call.items() if name != "steps"}
    for prompt in (BENIGN[0], BENIGN[7]):
        assert requested(pipe, prompt, found, **told) == pytest.approx(
            named[name(pipe, prompt)], rel=1e-3
        )


def test_what_is_the_same_to_the_pipeline_counts_once(pipe: Any) -> None:
    told: list[str] = []
    spelt = [BENIGN[0].upper() + " ", f"{LONG} dog", f"{LONG} house"]
    found = calibrate_guard(
        pipe, [*BENIGN, *spelt], positives=[f" {BENIGN[1]}"], tell=told.append, **OPTIONS
    )
    assert len(found.scores) == len(BENIGN)  # one more, and one that is memorised less
    assert found.named_by == "tokens"
    assert "2 prompts left out, to the model the same as others" in told[0]
    assert "1 prompt among the memorised ones" in told[1]


def test_tokenizers_tell_prompts_apart(pipe: Any) -> None:
    """CLIP's folds case; where embeddings are made elsewhere, what is behind the cut counts too."""
    texts = ["a cat", "A  cat", "a dog", f"{LONG} dog", f"{LONG} house"]
    cut, whole = (digests(pipe, {}, texts, whole=each) for each in (False, True))
    assert [cut.index(each) for each in cut] == [0, 0, 2, 3, 3]
    assert [whole.index(each) for each in whole] == [0, 0, 2, 3, 4]


def test_t5_reads_as_much_as_a_call_asks_for() -> None:
    pipe = SimpleNamespace(tokenizer=t5_tokenizer())
    texts = ["a cat", "A cat", "word " * 5 + "a cat", "word " * 5 + "the house"]
    for read, expected in ((5, [0, 1, 2, 2]), (40, [0, 1, 2, 3])):
        found = digests(pipe, {"max_sequence_length": read}, texts, whole=False)
        assert [found.index(each) for each in found] == expected


def test_a_pipeline_without_tokenizers_or_without_a_limit() -> None:
    texts = ["a cat", "A cat", "a cat", "word " * 600]
    endless = t5_tokenizer()
    endless.model_max_length = int(1e30)
    for each in (SimpleNamespace(), SimpleNamespace(tokenizer=endless)):
        found = digests(each, {}, texts, whole=False)
        assert [found.index(read) for read in found] == [0, 1, 0, 3]


def test_only_the_steps_that_are_looked_at_are_drawn(pipe: Any) -> None:
    with counted() as calls:
        found = calibrate_guard(pipe, BENIGN, positives=["a dog"], batch=7, steps=2, **OPTIONS)
    assert len(calls) == 2 * 2
    assert len(found.positives) == 1


def test_seeds_change_the_noise_and_nothing_else(pipe: Any) -> None:
    first, other = (calibrate_guard(pipe, BENIGN, seed=seed, **OPTIONS) for seed in (0, 1))
    assert first.setting == other.setting
    assert first.prompts == other.prompts
    assert first.scores != other.scores
    assert first == calibrate_guard(pipe, BENIGN, **OPTIONS)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_clip_skip() -> None:
    """Another layer's embeddings are other scores: a calibration holds for its own alone.

    With XL, since diffusers' Stable Diffusion looks for a layer where transformers 5 has none.
    """
    pipe = build_xl()
    size = {"height": 16, "width": 16}
    told = OPTIONS | size
    last, skipped = (calibrate_guard(pipe, BENIGN, clip_skip=k, **told) for k in (None, 1))
    assert last.scores != skipped.scores
    named = dict(zip(skipped.prompts, skipped.scores, strict=True))
    found = requested(pipe, BENIGN[0], skipped, clip_skip=1, **size)
    assert found == pytest.approx(named[name(pipe, BENIGN[0])], rel=1e-3)
    for calibration, other, has, wanted in (
        (skipped, {}, "clip_skip=1", "crops"),
        (skipped, {"clip_skip": 0}, "clip_skip=1", "clip_skip=0"),
        (last, {"clip_skip": 1}, "crops", "clip_skip=1"),
    ):
        with pytest.raises(CalibrationError, match=f"options is {wanted}.*calibrated was {has}"):
            requested(pipe, BENIGN[0], calibration, **other, **size)


def test_refusals(pipe: Any) -> None:
    with pytest.raises(InputError, match="cannot promise"):
        calibrate_guard(pipe, BENIGN)
    with pytest.raises(InputError, match="gives generator itself"):
        calibrate_guard(pipe, BENIGN, generator=None, **OPTIONS)
    with Guard(pipe), pytest.raises(InputError, match="guarded already"):
        calibrate_guard(pipe, BENIGN, **OPTIONS)
    with pytest.raises(InputError, match="no unconditional branch"):
        calibrate_guard(pipe, BENIGN, guidance_scale=1.0, **OPTIONS)
    assert calibrate_guard(pipe, BENIGN, guidance_scale=1.0, extra_pass=True, **OPTIONS).scores


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"steps": 0}, "measure nothing"),
        ({"batch": 0}, "measure nothing"),
        ({"steps": 1.5}, "steps is 1.5 .*whole number"),
        ({"num_images_per_prompt": 2}, "one image of each prompt.*Leave num_images_per_prompt"),
        ({"num_inferense_steps": 4}, r"no num_inferense_steps.*Did you mean num_inference_steps"),
        ({"xyzzy": 4}, r"takes no xyzzy.*Leave it out"),
    ],
)
def test_what_measures_nothing_or_is_not_taken(
    pipe: Any, told: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        calibrate_guard(pipe, BENIGN, **OPTIONS | told)
    with pytest.raises(InputError, match=message):
        StepwiseOptimization.learn(pipe, BENIGN, **{"steps": 1} | told)


def test_prompts_that_are_no_texts_in_a_list(pipe: Any) -> None:
    with pytest.raises(InputError, match="come in a list"):
        calibrate_guard(pipe, "a cat", **OPTIONS)
    for learn in (calibrate_guard, StepwiseOptimization.learn):
        with pytest.raises(InputError, match=r"Prompt 1 is None \(NoneType\), not text"):
            learn(pipe, ["a cat", None], steps=1)  # type: ignore[operator]
    with pytest.raises(InputError, match="come in a list"):
        StepwiseOptimization.learn(pipe, "a cat", steps=1)


def test_a_record_that_could_not_be_written(pipe: Any) -> None:
    with pytest.raises(InputError, match="there is no folder nowhere"):
        Guard(pipe, record="nowhere/decisions.jsonl")
