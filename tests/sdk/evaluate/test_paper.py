from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mnemoscope import InputError, NumericsError
from mnemoscope.evaluate.paper import Track, follow, load_model, scored_by, written
from mnemoscope_export import StableDiffusion, magnitudes
from mnemoscope_runtime.staging import unfinished

PROMPTS = ["google icon of rocket", "a cat in the hat", "rain"]


def test_magnitudes_are_the_references_on_noises_of_the_papers_seeds(
    model: StableDiffusion,
) -> None:
    tracks = list(follow(model, PROMPTS, steps=3, generations=2, gen_seed=7))
    assert [track.prompt for track in tracks] == PROMPTS
    for index, track in enumerate(tracks):
        torch.manual_seed(7 + index)  # as their set_random_seed does
        noises = torch.randn(2, *model.latent_shape)
        expected = magnitudes(model, [track.prompt], noises, steps=3)[0]
        np.testing.assert_allclose(track.magnitudes, expected.numpy(), rtol=1e-5)
        assert track.uncond.shape == (2, 3)
        assert track.seconds > 0


def test_noises_are_new_for_every_prompt_and_the_same_again(model: StableDiffusion) -> None:
    one, two = follow(model, ["a cat", "a cat"], steps=1, generations=2)
    again = next(follow(model, ["a cat"], steps=1, generations=2))
    assert not np.allclose(one.magnitudes, two.magnitudes)
    np.testing.assert_array_equal(one.magnitudes, again.magnitudes)
    shifted = next(follow(model, ["a cat"], steps=1, generations=2, gen_seed=1))
    np.testing.assert_allclose(two.magnitudes, shifted.magnitudes, rtol=1e-6)


def test_nan_is_no_magnitude(model_dir: Path) -> None:
    broken = StableDiffusion.load(model_dir)
    torch.nn.init.constant_(broken.unet.conv_out.bias, float("nan"))
    with pytest.raises(NumericsError, match="prompt 0 is NaN or infinite"):
        list(follow(broken, PROMPTS, steps=1, generations=1))


def track(prompt: str, values: np.ndarray) -> Track:
    return Track(prompt, values, values + 1, 0.6)


def test_lines_are_kept_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "tracks.jsonl"
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    rows = written((track(prompt, values) for prompt in PROMPTS), path)
    list(itertools.islice(rows, 2))
    assert not path.exists()
    rows.close()  # as an error would
    lines = [json.loads(line) for line in unfinished(path).read_text("utf-8").splitlines()]
    assert lines == [
        {
            "uncond_noise_norm": [[1, 2, 3], [4, 5, 6]],
            "text_noise_norm": [[0, 1, 2], [3, 4, 5]],
            "prompt": prompt,
        }
        for prompt in PROMPTS[:2]
    ]
    assert len(list(written((track(prompt, values) for prompt in PROMPTS), path))) == len(PROMPTS)
    assert len(path.read_text("utf-8").splitlines()) == len(PROMPTS)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        list(written(iter(()), tmp_path))


def test_settings_are_means_of_the_first_steps_and_generations() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((4, 2, 3)).astype(np.float32)
    found = scored_by([track("p", each) for each in values], [3, 1], [1, 2])
    assert [(s.steps, s.noises, s.passes) for s in found] == [
        *((1, 1, 2), (1, 2, 4), (3, 1, 6), (3, 2, 12)),
    ]
    for each in found:
        expected = values[:, : each.noises, : each.steps].mean((1, 2))
        np.testing.assert_allclose(each.scores, expected, rtol=1e-6)
    assert [s.seconds for s in found] == pytest.approx([0.1, 0.2, 0.3, 0.6])


def test_threads_are_those_asked_for(model_dir: Path) -> None:
    before = torch.get_num_threads()
    try:
        load_model(str(model_dir), "cpu", 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
