"""Pictures before and after, with what was measured of them, and maps of where they are recited."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from mitigate_support import QUICK, OtherNoise
from PIL import Image

from mnemoscope.mitigate import Mitigator
from mnemoscope.ui.pictures import drawing_card, heat_map
from mnemoscope.ui.studio import Drawing, Training

pytestmark = pytest.mark.slow


@pytest.fixture
def drawing(mitigator: Mitigator) -> Drawing:
    """Of two seeds; the second cannot be helped."""
    done = mitigator.mitigate("a cat", OtherNoise(helpless=(1,)), (0, 1))
    training = Training(Image.new("RGB", (8, 8), "lime"), 0.25)
    return Drawing(done, mitigator.descriptor.copied_above, 10, training)


def _pictures(card: str) -> Sequence[np.ndarray]:
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each))))
        for each in re.findall(r"base64,([^\"]+)", card)
    ]


def test_what_is_shown_is_what_was_drawn(drawing: Drawing) -> None:
    card = drawing_card(drawing)
    found = drawing.mitigation
    assert found.verified is False
    assert "Do not use it" in card
    assert "A picture is a copy of what the prompt draws unmitigated" in card
    shown = _pictures(card)
    assert len(shown) == 9  # a training picture, and of two seeds two with a map each
    np.testing.assert_array_equal(shown[0], np.full((8, 8, 3), (0, 255, 0)))
    for place, picture in zip((1, 3, 5, 7), _in_turn(found.originals, found.pictures), strict=True):
        np.testing.assert_array_equal(shown[place], np.asarray(picture.image))
    assert card.count("nearest training picture") == 2  # as a text beside it too
    assert "copy similarity 0.250 with the drawing on its right" in card
    assert "the mean over the first 10 steps on the picture" in card
    assert "a cat" in card
    assert f"alignment {found.originals[0].judged.alignment:.3f}" in card
    assert "above 0.9 a picture counts as a copy" in card


def _in_turn(before: Sequence, after: Sequence) -> list:  # type: ignore[type-arg]
    return [each for pair in zip(before, after, strict=True) for each in pair]


def test_what_is_not_flagged_has_one_picture(drawing: Drawing) -> None:
    as_ever = replace(drawing.mitigation, flagged=False, verified=None)
    card = drawing_card(replace(drawing, mitigation=as_ever, training=None))
    assert "Drawn as ever" in card
    assert len(_pictures(card)) == 4
    assert "mitigated, seed" not in card


@pytest.mark.parametrize(
    ("verified", "why", "title"),
    [
        (True, None, "the training picture does not come out"),
        (None, "no copy descriptor has compared the pictures", "Drawn, and not verified"),
    ],
)
def test_what_nobody_verified_is_not_called_mitigated(
    drawing: Drawing, verified: bool | None, why: str | None, title: str
) -> None:
    done = replace(drawing.mitigation, verified=verified, why=why)
    card = drawing_card(replace(drawing, mitigation=done, copied_above=None))
    assert title in card
    assert "what makes a copy is not known for it" in card
    assert ("Look at them" in card) == (verified is True)
    assert ("No copy descriptor" in card) == (verified is None)


def test_a_map_is_warm_where_the_prompt_decided() -> None:
    picture = Image.new("RGB", (64, 64), "white")
    where = np.zeros((16, 16), np.float32)
    where[8:, :8] = 4.0
    seen = np.asarray(heat_map(picture, where, 2.0)).astype(int)
    assert seen.shape == (64, 64, 3)
    warm = seen[..., 0] - seen[..., 2]
    assert warm[40:60, 4:24].min() > 150
    assert abs(warm[4:24, :]).max() == 0
    assert abs(np.asarray(heat_map(picture, where * 0, 0.0)).astype(int) - seen[0, 0]).max() == 0


def test_maps_of_one_seed_have_one_scale(mitigator: Mitigator) -> None:
    assert mitigator.sampling == QUICK
    done = mitigator.mitigate("a cat", OtherNoise(), (0,))
    before = done.originals[0].recited
    assert before is not None
    done = replace(done, pictures=(replace(done.pictures[0], recited=before * 0),))
    shown = _pictures(drawing_card(Drawing(done, None, 1, None)))
    for plain, warm in ((shown[1], True), (shown[3], False)):
        difference = plain.astype(int)[..., 0] - plain.astype(int)[..., 2]
        assert (difference.max() > 150) == warm
