"""Cutting a call of any size into calls of the sizes that an engine takes.

A GPU engine takes fixed shapes, or ranges of them. A call measures prompts x noises: a rectangle,
which is covered with the engine's rectangles, the largest that fit first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, InputError
from ..wording import counted
from .base import Arrays

__all__ = ["NOISES", "Profile", "Rectangle", "cover", "run_covered"]

NOISES = "noise_index"  # the one input that does not go by prompts
Run = Callable[[int, Arrays, tuple[str, ...]], list[NDArray[np.float32]]]


@dataclass(frozen=True)
class Profile:
    """The sizes of call that an engine takes: from so many to so many prompts, and noises."""

    prompts: tuple[int, int]
    noises: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        for what, (low, high) in {"prompts": self.prompts, "noises": self.noises}.items():
            if not 1 <= low <= high <= 256:
                raise InputError(f"An engine takes 1 to 256 {what} at once, not {low} to {high}.")

    @classmethod
    def parse(cls, text: str) -> Profile:
        """A profile of one size: "8" (prompts, on one noise) or "1x4" (prompts x noises).

        Raises:
            InputError: it is written otherwise, or out of range.
        """
        prompts, _, noises = text.strip().partition("x")
        try:
            size = int(prompts), int(noises or 1)
        except ValueError:
            raise InputError(
                f"A profile is written 8 (prompts) or 1x4 (prompts x noises), not {text!r}."
            ) from None
        return cls((size[0], size[0]), (size[1], size[1]))

    @property
    def is_static(self) -> bool:
        """Whether it has one size only, so that a CUDA graph can replay it."""
        return self.prompts[0] == self.prompts[1] and self.noises[0] == self.noises[1]

    @property
    def most(self) -> int:
        """Samples in its largest call."""
        return self.prompts[1] * self.noises[1]

    def __str__(self) -> str:
        prompts, noises = (
            str(high) if low == high else f"{low}-{high}"
            for low, high in (self.prompts, self.noises)
        )
        return prompts if noises == "1" else f"{prompts}x{noises}"


@dataclass(frozen=True)
class Rectangle:
    """A part of a call, and the size it runs in: that of the part, or padded up to the engine's."""

    profile: int
    rows: slice
    columns: slice
    size: tuple[int, int]


def cover(prompts: int, noises: int, profiles: Sequence[Profile]) -> Iterator[Rectangle]:
    """Cover prompts x noises; only what is smaller than every profile is padded."""
    yield from _covering(slice(0, prompts), slice(0, noises), profiles)


def _covering(rows: slice, columns: slice, profiles: Sequence[Profile]) -> Iterator[Rectangle]:
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not height or not width:
        return
    index, (high, wide) = _largest(height, width, profiles)
    bottom = rows.start + max(height // high, 1) * high
    right = columns.start + max(width // wide, 1) * wide
    for top in range(rows.start, bottom, high):
        for left in range(columns.start, right, wide):
            yield Rectangle(
                index,
                slice(top, min(top + high, rows.stop)),
                slice(left, min(left + wide, columns.stop)),
                (high, wide),
            )
    bottom, right = min(bottom, rows.stop), min(right, columns.stop)
    yield from _covering(slice(bottom, rows.stop), slice(columns.start, right), profiles)
    yield from _covering(rows, slice(right, columns.stop), profiles)


def _largest(height: int, width: int, profiles: Sequence[Profile]) -> tuple[int, tuple[int, int]]:
    """The profile that takes most of a rectangle and the size to run it in."""
    fitting = [
        (index, (min(height, p.prompts[1]), min(width, p.noises[1])))
        for index, p in enumerate(profiles)
        if p.prompts[0] <= height and p.noises[0] <= width
    ]
    if fitting:
        return max(fitting, key=lambda found: found[1][0] * found[1][1])
    padded = [(index, (p.prompts[0], p.noises[0])) for index, p in enumerate(profiles)]
    return min(padded, key=lambda found: found[1][0] * found[1][1])


def run_covered(
    run: Run,
    inputs: Arrays,
    outputs: tuple[str, ...],
    profiles: Sequence[Profile],
    leading: Mapping[str, int],
) -> list[NDArray[np.float32]]:
    """Run a call rectangle by rectangle and put the results together.

    Args:
        run: Runs one rectangle: index of its profile, inputs of exactly its size, outputs.
        inputs: Of the whole call; those that go by prompts have equal leading dimensions.
        outputs: Names.
        profiles: What the engine takes.
        leading: For each input of the engine, the most it takes in its leading dimension (1 if it
            has none).

    Raises:
        BackendError: the inputs are not the engine's, or an output has not the size of a call.
    """
    if set(inputs) != set(leading):
        raise BackendError(
            f"The engine takes {', '.join(leading)}, not {', '.join(inputs) or 'nothing'}."
        )
    heights = {n: len(a) for n, a in inputs.items() if n != NOISES and a.ndim}
    prompts = max(heights.values(), default=1)
    noises = len(inputs[NOISES]) if NOISES in inputs else 1
    # with one prompt, what the engine takes several of goes by prompts, and the rest may
    by_prompt = {n for n, h in heights.items() if h == prompts and (h > 1 or leading[n] > 1)}
    if wrong := [n for n, h in heights.items() if h not in (1, prompts)]:
        raise BackendError(
            f"{wrong[0]} has {counted(heights[wrong[0]], 'row')}, others have {prompts}."
        )
    whole: dict[str, NDArray[np.float32]] = {}
    for piece in cover(prompts, noises, profiles):
        part = {
            name: _cut(array, piece.rows, piece.size[0])
            if name in by_prompt
            else _cut(array, piece.columns, piece.size[1])
            if name == NOISES
            else array
            for name, array in inputs.items()
        }
        size = piece.size if NOISES in inputs else piece.size[:1]
        for name, value in zip(outputs, run(piece.profile, part, outputs), strict=True):
            rest = value.shape[len(size) :]
            target = whole.setdefault(
                name, np.empty((prompts, noises)[: len(size)] + rest, value.dtype)
            )
            expected = (*size, *target.shape[len(size) :])
            if value.dtype != target.dtype or value.shape != expected:
                raise BackendError(
                    f"The engine returned {value.dtype} {value.shape} as {name}, expected "
                    f"{target.dtype} {expected}. Build it again."
                )
            if NOISES in inputs:
                target[piece.rows, piece.columns] = value[: _len(piece.rows), : _len(piece.columns)]
            else:
                target[piece.rows] = value[: _len(piece.rows)]
    return [whole[name] for name in outputs]


def _len(part: slice) -> int:
    return int(part.stop - part.start)


def _cut(array: NDArray[np.generic], part: slice, size: int) -> NDArray[np.generic]:
    """Some rows, the last repeated up to `size`."""
    rows = array[part]
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
