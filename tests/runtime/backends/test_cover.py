from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mnemoscope_runtime import BackendError, InputError
from mnemoscope_runtime.backends.cover import Profile, cover, run_covered

ranges = st.tuples(st.integers(1, 6), st.integers(0, 5)).map(lambda r: (r[0], r[0] + r[1]))
profiles = st.lists(st.builds(Profile, ranges, ranges), min_size=1, max_size=4)


@given(st.integers(1, 40), st.integers(1, 9), profiles)
def test_a_call_is_covered_once(prompts: int, noises: int, given: list[Profile]) -> None:
    covered = np.zeros((prompts, noises), int)
    for piece in cover(prompts, noises, given):
        covered[piece.rows, piece.columns] += 1
        for part, size, (low, high) in zip(
            (piece.rows, piece.columns),
            piece.size,
            (given[piece.profile].prompts, given[piece.profile].noises),
            strict=True,
        ):
            assert 0 < part.stop - part.start <= size
            assert low <= size <= high
    assert (covered == 1).all()


@given(st.integers(1, 40), st.integers(1, 9), profiles)
@example(4, 1, [Profile((1, 1), (3, 3)), Profile((4, 4))])  # the smaller one would be padded
def test_nothing_is_padded_that_need_not_be(
    prompts: int, noises: int, given: list[Profile]
) -> None:
    def fits(height: int, width: int) -> bool:
        return any(p.prompts[0] <= height and p.noises[0] <= width for p in given)

    for k, piece in enumerate(cover(prompts, noises, given)):
        height, width = (part.stop - part.start for part in (piece.rows, piece.columns))
        if fits(height, width) or (not k and fits(prompts, noises)):
            assert (height, width) == piece.size


def test_results_may_have_more_dimensions() -> None:
    inputs = {"input_ids": np.arange(5)[:, None], "noise_index": np.arange(3)}

    def run(_: int, part: dict, __: tuple[str, ...]) -> list[np.ndarray]:
        product = part["input_ids"] * part["noise_index"]
        return [np.stack([product, -product], -1)]

    leading = {"input_ids": 2, "noise_index": 2}
    (found,) = run_covered(run, inputs, ("taps",), [Profile((2, 2), (2, 2))], leading)
    expected = np.outer(np.arange(5), np.arange(3))
    np.testing.assert_array_equal(found, np.stack([expected, -expected], -1))


@given(st.integers(1, 20), st.integers(1, 5), profiles)
def test_results_are_those_of_the_whole_call(
    prompts: int, noises: int, given: list[Profile]
) -> None:
    rng = np.random.default_rng(0)
    inputs = {"input_ids": rng.integers(0, 9, (prompts, 7)), "noise_index": np.arange(noises)}

    def run(profile: int, part: dict, outputs: tuple[str, ...]) -> list[np.ndarray]:
        assert outputs == ("sum",)
        for name, sizes in (
            ("input_ids", given[profile].prompts),
            ("noise_index", given[profile].noises),
        ):
            assert sizes[0] <= len(part[name]) <= sizes[1]
        return [part["input_ids"].sum(1)[:, None] * 100 + part["noise_index"]]

    leading = {"input_ids": 99, "noise_index": 99}
    (found,) = run_covered(run, inputs, ("sum",), given, leading)
    np.testing.assert_array_equal(found, run_whole(inputs))


def run_whole(inputs: dict[str, np.ndarray]) -> np.ndarray:
    return inputs["input_ids"].sum(1)[:, None] * 100 + inputs["noise_index"]


@pytest.mark.parametrize("prompts", [1, 2, 5])
def test_what_is_shared_is_not_cut(prompts: int) -> None:
    def run(profile: int, part: dict, outputs: tuple[str, ...]) -> list[np.ndarray]:
        assert (profile, outputs) == (0, ("sum",))
        assert {n: len(a) if a.ndim else 0 for n, a in part.items()} == {"x": 2, "empty": 1, "t": 0}
        return [part["x"] + part["empty"] + part["t"]]

    inputs = {"x": np.arange(prompts)[:, None], "empty": np.array([[10]]), "t": np.asarray(100)}
    leading = {"x": 2, "empty": 1, "t": 1}
    (found,) = run_covered(run, inputs, ("sum",), [Profile((2, 2))], leading)
    np.testing.assert_array_equal(found, np.arange(prompts)[:, None] + 110)


def test_inputs_of_different_lengths() -> None:
    inputs = {"a": np.zeros((3, 1)), "b": np.zeros((2, 1))}
    with pytest.raises(BackendError, match="b has 2 rows, others have 3"):
        run_covered(lambda *_: [], inputs, (), [Profile((1, 1))], {"a": 1, "b": 1})


@pytest.mark.parametrize(
    ("text", "profile"),
    [("8", Profile((8, 8))), (" 1x4 ", Profile((1, 1), (4, 4))), ("2x1", Profile((2, 2)))],
)
def test_parse(text: str, profile: Profile) -> None:
    assert Profile.parse(text) == profile
    assert Profile.parse(str(profile)) == profile
    assert profile.is_static


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "300", "1-4", "1x2x3", "four"])
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(InputError, match=r"profile is written|takes 1 to 256"):
        Profile.parse(text)


def test_a_range_in_words() -> None:
    assert str(Profile((1, 4), (1, 3))) == "1-4x1-3"
    assert not Profile((1, 4)).is_static
