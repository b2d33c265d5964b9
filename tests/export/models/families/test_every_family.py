"""What every family of transformers must do; what is special of each has a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_support import Run
from cuda_kernels import lacking
from family_bundles import RECIPES, Family
from guard_support import check_reads_what_is_screened
from mitigate_support import check_is_mitigated

from mnemoscope import Detector, InputError
from mnemoscope.explain import explain
from mnemoscope_export import Model, magnitudes, noise_bank
from mnemoscope_export.torch.backend import TorchBackend
from mnemoscope_export.torch.graphs import ScreenGraph
from mnemoscope_export.torch.reference import measure_at
from mnemoscope_export.torch.witness import check_against_pipeline
from mnemoscope_runtime import Bundle, Screener
from mnemoscope_runtime.agreement import relative_error
from mnemoscope_runtime.manifest import EMPTY

PROMPTS = ["A Photo of a cat", "the end </s> of <pad> it", "word " * 600]


@pytest.fixture(scope="module", params=RECIPES)
def family(request: pytest.FixtureRequest, families: Mapping[str, Family]) -> Family:
    return families[request.param]


@torch.no_grad()
def test_another_timestep_and_size(family: Family, model: Model) -> None:
    """Folded, against the transformer as it is; every block's features too."""
    other, _ = model.resized(family.recipe.other_size).guided(2.0)
    bank = noise_bank(2, other.latent_shape, seed=1)
    expected = measure_at(other, PROMPTS, bank, 800, taps=other.tappable())
    graph = ScreenGraph(other, bank, 800, other.tappable())
    found, norms = graph(other.embed(PROMPTS), torch.arange(2))
    torch.testing.assert_close(
        torch.cat([found[..., None], norms], -1), expected, rtol=family.recipe.folds, atol=1e-5
    )


def test_the_bundle_is_the_models(family: Family, model: Model, bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert lacking(bundle) == lacking(bundle, halved=True) == set()
    assert (manifest.model.family, manifest.model.prediction_type, manifest.unit) == (
        model.family,
        model.prediction_type,
        model.unit,
    )
    assert manifest.embeddings == model.embeddings
    assert manifest.encodes_apart
    assert manifest.taps == tuple(model.auto_taps()) != ()
    assert model.guided(family.recipe.guidance)[0].difference(manifest.model) is None


def test_the_bundle_agrees_with_pytorch(family: Family, model: Model, screener: Screener) -> None:
    noises = torch.from_numpy(screener.bundle.noise_bank())
    told, scale = model.guided(family.recipe.guidance)
    steps = family.recipe.steps
    options: dict[str, Any] = {"inference_steps": steps, "guidance": scale}
    expected = magnitudes(told, PROMPTS, noises, steps=steps, **options).numpy()
    found = screener.trajectory(PROMPTS, steps=steps)
    assert relative_error(found, expected, screener.smallest_magnitude).max() < 1e-4
    np.testing.assert_allclose(screener.first_step(PROMPTS), expected[..., 0], rtol=1e-4)
    assert screener.probe() < 1e-4


def test_the_other_engines_agree(family: Family, model: Model, screener: Screener) -> None:
    wanted = screener.first_step(PROMPTS), screener.first_step_taps(PROMPTS)
    for backend in ("openvino", TorchBackend(model.guided(family.recipe.guidance)[0])):
        with Screener.open(family.bundle, backend=backend) as other:
            found = other.first_step(PROMPTS), other.first_step_taps(PROMPTS)
            for ours, theirs in zip(found, wanted, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_a_pipelines_embeddings_are_screened_as_its_prompt(
    model: Model, pipeline: Any, screener: Screener
) -> None:
    detector = Detector(screener, uncalibrated="score")
    [wanted] = detector.screen(PROMPTS[:1])
    with torch.no_grad():
        told, empty = model.told_by(pipeline, PROMPTS[:1]), model.told_by(pipeline, None)
    given: dict[str, Any] = dict(zip(model.embeddings, told, strict=True))
    for baseline in ({}, {EMPTY[name]: each for name, each in zip(given, empty, strict=True)}):
        [found] = detector.screen_embeddings(**given, **baseline)
        assert found.score == pytest.approx(wanted.score, rel=1e-4)
        assert not found.notes


def test_it_is_said_where_a_prompt_is_cut(family: Family, screener: Screener) -> None:
    detector = Detector(screener, uncalibrated="score")
    [long] = detector.screen(PROMPTS[-1:], noises=1)
    assert f"Only its first {family.recipe.reads} tokens" in long.notes[0]


def test_words_are_weighed_by_leaving_them_out(screener: Screener) -> None:
    """As they stand in the prompt, whatever becomes of them."""
    detector, prompt = Detector(screener, uncalibrated="score"), "  A Cat on the MOON"
    found = explain(prompt, detector=detector, noises=1)
    assert [each.word for each in found.words] == ["A", "Cat", "on", "the", "MOON"]
    [wanted] = detector.screen([prompt], noises=1)
    assert found.score == pytest.approx(wanted.score, rel=1e-4)


def test_a_guard_reads_what_is_screened(
    family: Family, pipeline: Any, model: Model, screener: Screener
) -> None:
    check_reads_what_is_screened(
        pipeline, model, screener, family.recipe.guard, **family.recipe.call
    )


def test_it_is_mitigated(family: Family, model: Model, screener: Screener) -> None:
    check_is_mitigated(model, family.recipe.vae(), screener)


def test_a_negative_prompt(family: Family) -> None:
    """diffusers' own pipeline is told it too; or there is no branch that could be told."""
    if family.recipe.negative is None:
        with pytest.raises(InputError, match="draws without an unconditional branch"):
            family.load(negative="blurry")
        return
    model = family.load(negative=family.recipe.negative)
    assert model.own_empty
    check_against_pipeline(model, family.recipe.guidance, family.recipe.steps)


def test_what_none_takes(family: Family, model: Model) -> None:
    with pytest.raises(InputError, match=f"{model.called}, of which clip_skip cannot be read"):
        family.load(clip_skip=1)
    with pytest.raises(InputError, match="Give multiples of"):
        model.resized((0, 4))


def test_on_the_command_line(family: Family, bundle: Path, run: Run) -> None:
    assert family.recipe.shown in run("inspect", bundle).out
