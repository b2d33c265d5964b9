from __future__ import annotations

import numpy as np
from PIL import Image

from benchmarks.duplicates import CHANGES, judged


def test_rows_are_found_or_wrong() -> None:
    eye = np.eye(4, dtype=np.float16)
    vectors = np.concatenate([eye, eye[[0, 1, 3]]])
    original = np.array([0, 1, 2, 3, 0, 2, 5])  # the last but one looks like another picture
    assert judged(vectors, original, 0.9) == {"repeated": 3, "found": 1, "wrong": 2}


def test_changes_change() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image = Image.fromarray(noise)
    content = {change(image).tobytes() for change in CHANGES.values()}
    assert len(content) == len(CHANGES)
    assert image.tobytes() not in content
