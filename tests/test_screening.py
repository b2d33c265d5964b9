from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mnemoscope_runtime import (
    Backend,
    BackendError,
    Bundle,
    Engine,
    InputError,
    IntegrityError,
    NumericsError,
    SchemaError,
    Screener,
    open_backend,
)
from mnemoscope_runtime.backends import Arrays
from mnemoscope_runtime.screening import PAIRS
from mnemoscope_runtime.testing import FakeBackend

Array = NDArray[np.float32]
Change = Callable[[str, list[Array]], list[Array]]
PROMPTS = ["a photo of a cat", "icon of rocket", "", "日本", "an old master, oil on canvas " * 9]
MANY = [f"prompt number {number}" for number in range(2 * PAIRS + 3)]


class Changed:
    """Another backend, the outputs of whose engines are changed."""

    name = "changed"

    def __init__(self, backend: Backend, change: Change = lambda _, values: values) -> None:
        self.backend, self.change = backend, change
        self.loaded: list[str] = []
        self.closed = 0

    def load(self, bundle: Bundle, graph: str) -> Engine:
        self.loaded.append(graph)
        engine = self.backend.load(bundle, graph)

        def run(inputs: Arrays, outputs: tuple[str, ...]) -> list[Array]:
            return self.change(graph, engine(inputs, outputs))

        return run

    def close(self) -> None:
        self.closed += 1
        self.backend.close()


@pytest.fixture(scope="module")
def screener(bundle_dir: Path) -> Iterator[Screener]:
    with Screener.open(bundle_dir, threads=1) as screener:
        yield screener


def changed(bundle_dir: Path, change: Change) -> Screener:
    return Screener.open(
        bundle_dir, backend=Changed(open_backend("onnxruntime", threads=1), change)
    )


def in_16_threads(work: Callable[[], Array]) -> list[Array]:
    barrier = threading.Barrier(16)

    def run() -> Array:
        barrier.wait(60)
        return work()

    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(run) for _ in range(16)]
        return [future.result() for future in futures]


def test_first_step(screener: Screener) -> None:
    values = screener.first_step(PROMPTS)
    assert values.shape == (len(PROMPTS), screener.noises) == (5, 3)
    assert values.dtype == np.float32
    assert (values >= 0).all()
    assert len(np.unique(values)) == values.size
    np.testing.assert_array_equal(screener.first_step(PROMPTS), values)


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
    embeds = screener.embed(PROMPTS)
    assert embeds.shape == (5, 77, 32)
    np.testing.assert_allclose(screener.embed(PROMPTS[1:2])[0], embeds[1], rtol=1e-4, atol=1e-5)
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
    alone = np.concatenate([screener.embed([prompt]) for prompt in MANY])
    np.testing.assert_allclose(screener.embed(MANY), alone, rtol=1e-4, atol=1e-5)


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
    monkeypatch.setattr("mnemoscope_runtime.screening._POSITIONS", 8 * 8 * samples)
    np.testing.assert_allclose(screener.first_step(PROMPTS), first, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(screener.trajectory(PROMPTS[:3], steps=2), walked, rtol=2e-5)


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_calls_for_large_latents_are_bounded(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    monkeypatch.setattr("mnemoscope_runtime.screening._POSITIONS", 8 * 8 * samples)
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


def test_no_prompts(screener: Screener) -> None:
    assert screener.first_step([]).shape == (0, 3)
    assert screener.first_step([], noises=2).shape == (0, 2)
    assert screener.trajectory([], steps=2).shape == (0, 3, 2)
    assert screener.embed([]).shape[:2] == (0, 77)


@pytest.mark.parametrize("noises", [0, -1, 4, 10**9])
def test_noises_out_of_range(screener: Screener, noises: int) -> None:
    with pytest.raises(InputError, match=f"has 3 noises, {noises} cannot be used.*1 to 3"):
        screener.first_step(PROMPTS, noises=noises)
    with pytest.raises(InputError, match=f"has 3 noises, {noises} cannot be used.*1 to 3"):
        screener.trajectory(PROMPTS, steps=1, noises=noises)


@pytest.mark.parametrize("steps", [0, -1, 51, 10**9])
def test_steps_out_of_range(screener: Screener, steps: int) -> None:
    with pytest.raises(InputError, match=f"has 50 steps, {steps} cannot be used.*1 to 50"):
        screener.trajectory(PROMPTS, steps=steps)


def test_prompts_that_cannot_be_used(screener: Screener) -> None:
    for prompts in (["fine", "\ud800"], ["fine", None], "one text"):
        with pytest.raises(InputError):
            screener.first_step(prompts)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            screener.trajectory(prompts, steps=1)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            screener.embed(prompts)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 1, len(MANY) - 1])
def test_nan_is_no_magnitude(bundle_dir: Path, bad: float, index: int) -> None:
    with Screener.open(bundle_dir, backend=FakeBackend()) as plain:
        marked = plain.tokenizer([MANY[index]])[0]
    backend = FakeBackend(lambda ids: bad if np.array_equal(ids, marked) else 1.0)
    with (
        Screener.open(bundle_dir, backend=backend) as screener,
        pytest.raises(NumericsError, match=f"prompt {index} is NaN or infinite.*no verdict"),
    ):
        screener.first_step(MANY)


def test_one_bad_noise_is_enough(bundle_dir: Path) -> None:
    def spoil(_: str, values: list[Array]) -> list[Array]:
        values[0][1, 2] = np.nan
        return values

    with (
        Screener.open(bundle_dir, backend=Changed(FakeBackend(), spoil)) as screener,
        pytest.raises(NumericsError, match="prompt 1"),
    ):
        screener.first_step(PROMPTS)


@pytest.mark.parametrize("output", [0, 1, 2], ids=["magnitude", "eps_cond", "eps_uncond"])
def test_nan_within_a_trajectory(bundle_dir: Path, output: int) -> None:
    def spoil(graph: str, values: list[Array]) -> list[Array]:
        if graph == "step":
            values[output] = values[output].copy()
            values[output][4] = np.nan  # the second noise of the second prompt
        return values

    with (
        changed(bundle_dir, spoil) as screener,
        pytest.raises(NumericsError, match="prompt 1"),
    ):
        screener.trajectory(PROMPTS[:2], steps=2)


@pytest.mark.parametrize("shape", [(), (15,), (5, 1), (5, 4), (3, 5), (4, 3), (6, 3), (5, 3, 1)])
def test_wrong_shape(bundle_dir: Path, shape: tuple[int, ...]) -> None:
    backend = Changed(FakeBackend(), lambda *_: [np.ones(shape, np.float32)])
    with (
        Screener.open(bundle_dir, backend=backend) as screener,
        pytest.raises(BackendError, match=r"returned .*, expected \(5, 3\)"),
    ):
        screener.first_step(PROMPTS)


@pytest.mark.parametrize("shape", [(), (6,), (4,), (2, 3), (3, 2), (6, 1)])
def test_wrong_shape_within_a_trajectory(bundle_dir: Path, shape: tuple[int, ...]) -> None:
    def reshape(graph: str, values: list[Array]) -> list[Array]:
        if graph == "step":
            values[0] = np.ones(shape, np.float32)
        return values

    with changed(bundle_dir, reshape) as screener:
        if shape == (6,):
            assert (screener.trajectory(PROMPTS[:2], steps=1) == 1).all()
            return
        with pytest.raises(BackendError, match=r"returned .*, expected \(6,\)"):
            screener.trajectory(PROMPTS[:2], steps=1)


@pytest.mark.parametrize("output", [1, 2], ids=["eps_cond", "eps_uncond"])
def test_noise_of_a_wrong_shape(bundle_dir: Path, output: int) -> None:
    def shorten(graph: str, values: list[Array]) -> list[Array]:
        if graph == "step":
            values[output] = values[output][:1]
        return values

    with (
        changed(bundle_dir, shorten) as screener,
        pytest.raises(BackendError, match=r"returned .*, expected \(6, 4, 8, 8\)"),
    ):
        screener.trajectory(PROMPTS[:2], steps=2)


def test_results_from_16_threads(bundle_dir: Path) -> None:
    backend = Changed(open_backend("onnxruntime"))
    with Screener.open(bundle_dir) as screener:
        first, walked = screener.first_step(PROMPTS), screener.trajectory(PROMPTS[:2], steps=2)
    with Screener(Bundle.open(bundle_dir), backend) as screener:
        for values in in_16_threads(lambda: screener.first_step(PROMPTS)):
            np.testing.assert_allclose(values, first, rtol=1e-6, atol=1e-6)
        for values in in_16_threads(lambda: screener.trajectory(PROMPTS[:2], steps=2)):
            np.testing.assert_allclose(values, walked, rtol=1e-6, atol=1e-6)
    assert sorted(backend.loaded) == ["screen", "step", "text_encoder"]  # each once


def test_threads_with_prompts_of_their_own(screener: Screener) -> None:
    alone = [screener.first_step([prompt]) for prompt in MANY]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda prompt: screener.first_step([prompt]), MANY))
    np.testing.assert_allclose(found, alone, rtol=1e-6, atol=1e-6)


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
