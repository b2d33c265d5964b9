"""Pictures of several seeds that are one."""

from __future__ import annotations

import numpy as np
import pytest
from mitigate_support import QUICK, Pixels
from PIL import Image

from mnemoscope.mitigate import Agreement, Painter, Usual
from mnemoscope.mitigate.agreement import agreeing, most_alike
from mnemoscope.mitigate.sampling import sample

ONE, OTHER, THIRD = np.eye(3, dtype=np.float32)
NEARLY = np.array([0.95, np.sqrt(1 - 0.95**2), 0], np.float32)


def usual(*likeness: float, copied_above: float | None = None) -> Usual:
    """What was learnt already."""
    descriptor = Pixels()
    descriptor.copied_above = copied_above
    found = Usual(None, descriptor, ())  # type: ignore[arg-type]
    found.__dict__["likeness"] = np.sort(np.array(likeness, np.float64))
    return found


def test_the_two_that_are_most_alike() -> None:
    assert most_alike(np.stack([ONE, OTHER])) == 0
    assert most_alike(np.stack([ONE, OTHER, NEARLY])) == pytest.approx(0.95)


def test_a_picture_must_not_be_like_those_that_agree() -> None:
    own = np.stack([ONE, OTHER, NEARLY, THIRD])
    assert [len(each) for each in agreeing(own, 0.9)] == [2, 3, 2, 3]
    assert [each.tolist() for each in agreeing(own, None)] == [[row.tolist()] for row in own]
    assert [each.tolist() for each in agreeing(own[:1], 0.9)] == [[ONE.tolist()]]


def test_few_benign_prompts_are_above_the_bound() -> None:
    many = usual(*np.linspace(0, 1, 101))
    assert many.bound(0.05) == pytest.approx(0.95)
    assert (many.likeness > many.bound(0.05)).mean() <= 0.05
    few = usual(0.1, 0.5, 0.3)
    assert few.bound(0.05) == 0.5  # less than one of three: the highest


def test_one_prompt_of_twenty_may_recite() -> None:
    """Random words can, and what they draw is no measure."""
    found = usual(*[0.3] * 18, 0.5, 0.99)
    assert found.bound(0.05) == 0.5
    assert found.bound(0.1) == 0.3
    assert usual(*[0.3] * 18, 0.99).bound(0.05) == 0.99  # one of 19 is more than a twentieth


@pytest.mark.parametrize(
    ("highest", "copied_above", "recites"),
    [
        (0.7, None, True),
        (0.6, None, False),  # as alike as two pictures of a benign prompt
        (0.55, 0.5, False),  # copies of each other, but so are a benign prompt's
        (0.7, 0.5, True),
        (0.7, 0.9, False),  # no copies of each other
        (0.95, 0.9, True),
    ],
)
def test_what_recites(highest: float, copied_above: float | None, recites: bool) -> None:
    found = usual(0.2, 0.4, 0.6, copied_above=copied_above).agreement(highest, 0.05)
    assert (found.highest, found.recites) == (highest, recites)


def test_nothing_is_learnt_of_pictures_that_are_no_copies_of_each_other() -> None:
    idle = Usual(None, Pixels(), ())  # type: ignore[arg-type]
    assert idle.agreement(0.5, 0.05) == Agreement(0.5, None)


@pytest.mark.slow
def test_what_is_usual_is_drawn(painter: Painter) -> None:
    """Two pictures of a prompt, from two seeds: never one picture with itself."""
    prompts = ["a tree", "a house"]
    found = Usual(painter, Pixels(), prompts, QUICK)
    drawn: list[Image.Image] = []
    for i, prompt in enumerate(prompts):
        task = painter.task([prompt] * 2, [2 * i, 2 * i + 1], QUICK)
        drawn += painter.pictures(sample(task.plan(), QUICK).latents)
    vectors = Pixels().describe(drawn)
    expected = sorted([vectors[0] @ vectors[1], vectors[2] @ vectors[3]])
    assert found.likeness == pytest.approx(expected, abs=1e-3)
    assert found.likeness is found.likeness  # once
    assert found.likeness.max() < 0.999
