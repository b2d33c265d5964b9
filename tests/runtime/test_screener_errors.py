from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from screening_support import MANY, PROMPTS, Array, Changed, changed

from mnemoscope_runtime import BackendError, InputError, NumericsError, Screener
from mnemoscope_runtime.testing import FakeBackend


def test_no_prompts(screener: Screener) -> None:
    assert screener.first_step([]).shape == (0, 3)
    assert screener.first_step([], noises=2).shape == (0, 2)
    assert screener.trajectory([], steps=2).shape == (0, 3, 2)
    assert screener.embed([])[0].shape[:2] == (0, 77)


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
        pytest.raises(BackendError, match=r"returned .*, expected float32 \(5, 3\)"),
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
        with pytest.raises(BackendError, match=r"returned .*, expected float32 \(6,\)"):
            screener.trajectory(PROMPTS[:2], steps=1)


@pytest.mark.parametrize("output", [1, 2], ids=["eps_cond", "eps_uncond"])
def test_noise_of_a_wrong_shape(bundle_dir: Path, output: int) -> None:
    def shorten(graph: str, values: list[Array]) -> list[Array]:
        if graph == "step":
            values[output] = values[output][:1]
        return values

    with (
        changed(bundle_dir, shorten) as screener,
        pytest.raises(BackendError, match=r"returned .*, expected float32 \(6, 4, 8, 8\)"),
    ):
        screener.trajectory(PROMPTS[:2], steps=2)
