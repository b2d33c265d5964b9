from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from predictions import both_models
from screening_support import MANY, PROMPTS, Array, Changed, changed

from mnemoscope_runtime import (
    BackendError,
    Bundle,
    InputError,
    IntegrityError,
    SchemaError,
    Screener,
    open_backend,
)
from mnemoscope_runtime.predictor import PAIRS
from mnemoscope_runtime.testing import FakeBackend


@both_models
def test_first_step(screener: Screener) -> None:
    values = screener.first_step(PROMPTS)
    assert values.shape == (len(PROMPTS), screener.noises) == (5, 3)
    assert values.dtype == np.float32
    assert (values >= 0).all()
    assert len(np.unique(values)) == values.size
    np.testing.assert_array_equal(screener.first_step(PROMPTS), values)


@both_models
def test_trajectory(screener: Screener) -> None:
    values = screener.trajectory(PROMPTS[:2], steps=4)
    assert values.shape == (2, 3, 4)
    assert values.dtype == np.float32
    assert (values > 0).all()
    assert len(np.unique(values)) == values.size
    np.testing.assert_allclose(
        screener.trajectory(PROMPTS[:2], steps=2), values[..., :2], rtol=1e-5
    )


def test_embed(screener: Screener) -> None:
    (embeds,) = screener.embed(PROMPTS)
    assert embeds.shape == (5, 77, 32)
    np.testing.assert_allclose(screener.embed(PROMPTS[1:2])[0][0], embeds[1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(embeds[0], embeds[1], atol=1e-2)


def test_first_step_is_the_first_of_the_trajectory(screener: Screener) -> None:
    prompts = [prompt for prompt in PROMPTS if prompt]
    walked = screener.trajectory(prompts, steps=1)[..., 0]
    np.testing.assert_allclose(screener.first_step(prompts), walked, rtol=1e-5, atol=2e-7)


def test_empty_prompt_moves_nothing(screener: Screener) -> None:
    empty, cat = screener.first_step(["", "a photo of a cat"])
    assert (empty < 1e-3 * cat).all()
    empty, cat = screener.trajectory(["", "a photo of a cat"], steps=3)
    assert (empty < 1e-3 * cat).all()


def test_probes_agree(screener: Screener) -> None:
    assert 0 <= screener.probe() < 1e-5


def test_probes_disagree(bundle_dir: Path) -> None:
    probes = Bundle.open(bundle_dir).manifest.probes
    half = probes[0].magnitudes[0] / 2
    with Screener.open(bundle_dir, backend=FakeBackend(lambda _: half)) as screener:
        assert screener.probe() >= 0.5


def test_steps_and_noises_of_the_bundle(screener: Screener) -> None:
    assert screener.steps == 50
    assert screener.noises == 3
    assert screener.backend.name == "onnxruntime"


@pytest.mark.parametrize("noises", [1, 2, 3])
def test_fewer_noises_are_the_first_ones(screener: Screener, noises: int) -> None:
    np.testing.assert_allclose(
        screener.first_step(PROMPTS[:2], noises=noises),
        screener.first_step(PROMPTS[:2])[:, :noises],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        screener.trajectory(PROMPTS[:2], steps=2, noises=noises),
        screener.trajectory(PROMPTS[:2], steps=2)[:, :noises],
        rtol=1e-5,
    )


def test_many_prompts_are_as_each_alone(screener: Screener) -> None:
    alone = np.concatenate([screener.first_step([prompt]) for prompt in MANY])
    np.testing.assert_allclose(screener.first_step(MANY), alone, rtol=2e-5)


def test_many_trajectories_are_as_each_alone(screener: Screener) -> None:
    prompts = MANY[: PAIRS // 6 + 2]  # two branches of three noises each
    alone = np.concatenate([screener.trajectory([prompt], steps=2) for prompt in prompts])
    np.testing.assert_allclose(screener.trajectory(prompts, steps=2), alone, rtol=2e-5)


def test_many_embeddings_are_as_each_alone(screener: Screener) -> None:
    alone = np.concatenate([screener.embed([prompt])[0] for prompt in MANY])
    np.testing.assert_allclose(screener.embed(MANY)[0], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noises", [1, 2, 3])
def test_engine_calls_are_bounded(bundle_dir: Path, noises: int) -> None:
    sizes = []

    def record(_: str, values: list[Array]) -> list[Array]:
        sizes.append(values[0].size)
        return values

    fake = FakeBackend()
    with Screener.open(bundle_dir, backend=Changed(fake, record)) as screener:
        together = screener.first_step(MANY, noises=noises)
        assert fake.calls == len(sizes) == -(-len(MANY) // (PAIRS // noises))
        assert max(sizes) <= PAIRS
        alone = [screener.first_step([prompt], noises=noises)[0] for prompt in MANY]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 4])
def test_large_latents_go_a_few_at_a_time(
    screener: Screener, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    first, walked = screener.first_step(PROMPTS), screener.trajectory(PROMPTS[:3], steps=2)
    monkeypatch.setattr("mnemoscope_runtime.screener._POSITIONS", 8 * 8 * samples)
    np.testing.assert_allclose(screener.first_step(PROMPTS), first, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(screener.trajectory(PROMPTS[:3], steps=2), walked, rtol=2e-5)


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_calls_for_large_latents_are_bounded(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    monkeypatch.setattr("mnemoscope_runtime.screener._POSITIONS", 8 * 8 * samples)
    sizes: dict[str, list[int]] = {"screen": [], "step": [], "text_encoder": []}

    def record(graph: str, values: list[Array]) -> list[Array]:
        sizes[graph].append(values[0].size)
        return values

    with changed(bundle_dir, record) as screener:
        screener.first_step(PROMPTS)
        screener.trajectory(PROMPTS, steps=1)
    assert max(sizes["screen"]) <= samples
    assert max(sizes["step"]) <= max(1, samples // 2)  # two branches a pair
    assert sum(sizes["screen"]) == sum(sizes["step"]) == len(PROMPTS) * 3


def test_closed(bundle_dir: Path) -> None:
    backend = Changed(open_backend("onnxruntime"))
    with Screener.open(bundle_dir, backend=backend) as screener:
        screener.first_step(PROMPTS)
    assert backend.closed == 1
    for call in (
        lambda: screener.first_step(PROMPTS),
        lambda: screener.first_step([]),
        lambda: screener.trajectory(PROMPTS, steps=1),
        lambda: screener.embed(PROMPTS),
    ):
        with pytest.raises(BackendError, match=r"closed\. Open the bundle again"):
            call()


def test_closed_when_the_block_fails(bundle_dir: Path) -> None:
    backend = Changed(FakeBackend())
    with pytest.raises(ZeroDivisionError), Screener.open(bundle_dir, backend=backend):
        raise ZeroDivisionError
    assert backend.closed == 1


def test_closing_again_does_no_harm(bundle_dir: Path) -> None:
    screener = Screener.open(bundle_dir, backend=FakeBackend())
    screener.close()
    screener.close()
    with pytest.raises(BackendError, match="closed"):
        screener.first_step(PROMPTS)


def test_opening_loads_the_screening_graph_alone(bundle_dir: Path) -> None:
    backend = Changed(open_backend("onnxruntime"))
    with Screener.open(bundle_dir, backend=backend) as screener:
        assert backend.loaded == ["screen"]
        screener.first_step(PROMPTS)
        assert backend.loaded == ["screen"]


def test_opening_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(SchemaError):
        Screener.open(tmp_path)


def test_opening_on_what_is_no_backend(bundle_dir: Path) -> None:
    with pytest.raises(InputError, match="There is no backend"):
        Screener.open(bundle_dir, backend="tensorflow")
    with pytest.raises(InputError, match="0 threads"):
        Screener.open(bundle_dir, threads=0)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_there_is_no_fallback(bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemoscope_runtime.backends.onnxruntime._PROVIDERS", ["NoSuchProvider"])
    with pytest.raises(BackendError):
        Screener.open(bundle_dir)


def test_files_changed_after_opening(bundle_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle_dir, tmp_path / "bundle")
    with Screener.open(copy, threads=1) as screener:
        before = screener.first_step(PROMPTS)
        weights = copy / "model.weights"
        weights.write_bytes(b"\0" * weights.stat().st_size)
        np.testing.assert_array_equal(screener.first_step(PROMPTS), before)
        with pytest.raises(IntegrityError, match=r"model\.weights differs"):
            screener.trajectory(PROMPTS, steps=1)
