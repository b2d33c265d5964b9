from __future__ import annotations

import numpy as np
import pytest

from mnemoscope import InputError
from mnemoscope.duplicates import Repeats, find_repeats

CAPTIONS = ["a cat", None, "A cat!", "a dog", "a bird", "a cat"]
ANGLES = [0, 10, 90, 5, 90]  # of rows 0, 2, 3, 4 and 5; row 1 has no picture


def found() -> Repeats:
    radians = np.deg2rad(ANGLES)
    vectors = np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)
    return find_repeats(vectors, np.array([0, 2, 3, 4, 5]), CAPTIONS, pictures_alike=0.95)


def test_rows_that_repeat_others() -> None:
    repeats = found()
    assert repeats.picture.tolist() == [0, -1, 0, 3, 0, 3]
    assert repeats.caption.tolist() == [0, -1, 0, 3, 4, 0]
    assert repeats.picture_times.tolist() == [3, 0, 3, 2, 3, 2]
    assert repeats.caption_times.tolist() == [3, 0, 3, 1, 1, 3]
    assert repeats.dropped.tolist() == [False, False, True, False, True, True]
    cosines = [1, np.nan, np.cos(np.deg2rad(10)), 1, np.cos(np.deg2rad(5)), 1]
    assert repeats.similarity == pytest.approx(np.array(cosines), abs=1e-6, nan_ok=True)
    assert repeats.verdict == (
        "3 of 5 pictures repeat one before them, 2 different ones (a cosine above 0.95)"
    )


def test_a_descriptor_without_a_threshold() -> None:
    with pytest.raises(InputError, match="--descriptor sscd"):
        find_repeats(np.eye(2), np.arange(2), ["a", "b"], pictures_alike=None)
