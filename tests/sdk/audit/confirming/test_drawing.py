"""The stage that draws."""

from __future__ import annotations

import io

import numpy as np
from confirming_support import FakeArtist
from PIL import Image

from mnemoscope.audit.confirming.drawing import collect, drawing
from mnemoscope.audit.stages import Here

PAINTS = {f"{k}": ["red", "blue"] if k % 2 else ["lime", "lime"] for k in range(11)}


def test_drawings_in_the_order_of_captions() -> None:
    artist, prompts = FakeArtist.of(PAINTS), [*PAINTS]
    stage = drawing(prompts, range(2), lambda: artist, "a fake")
    batches = list(Here().map(stage, enumerate(stage.batches())))
    assert [len(found) for _, found in batches] == [8, 3]
    vectors, shown = collect(iter(batches[::-1]), 11, 2)
    assert vectors.dtype == np.float16
    assert vectors.argmax(2).tolist() == [[0, 2] if k % 2 else [1, 1] for k in range(11)]
    with Image.open(io.BytesIO(shown[1][1])) as small:
        assert (small.format, small.size) == ("WEBP", (192, 128))
        assert small.convert("RGB").getpixel((9, 9))[2] > 250


def test_nothing_to_draw() -> None:
    vectors, shown = collect(iter(()), 0, 3)
    assert vectors.shape == (0, 3, 0)
    assert shown == []


def test_a_stage_is_known_by_all_that_matters() -> None:
    def key(prompts: list[str], seeds: range, identity: str) -> str:
        return drawing(prompts, seeds, lambda: FakeArtist.of({}), identity).key

    first = key(["a", "b"], range(2), "x")
    assert first == key(["a", "b"], range(2), "x")
    others = {key(["b", "a"], range(2), "x"), key(["a", "b"], range(3), "x")}
    assert first not in others | {key(["a", "b"], range(2), "y")}
