"""Four numbers and a few sentences: what was counted is not estimated, and the reverse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mnemoscope.audit.confirming import Confirmation, DrawnCaption, Finding
from mnemoscope.audit.confirming.choosing import Chosen
from mnemoscope.audit.headline import numbers, sentences
from mnemoscope.duplicates import find_repeats


def confirmation(worst: str, some: str, others: str, all_: tuple[int, int]) -> Confirmation:
    """Captions that are confirmed (c) or not (-), of each part; and how large the parts are."""
    kinds = {"c": Finding.confirmed, "-": Finding.not_confirmed}
    one, first = np.zeros(1, np.float32), len(worst + some)
    captions = [
        DrawnCaption(n, f"{n}", n < first, kinds[k], one, 0, one, None, [])
        for n, k in enumerate(worst + some + others)
    ]
    places = np.split(np.arange(len(captions)), [len(worst), first])
    vectors = np.eye(2, dtype=np.float32)[[0, 1, 0]]
    repeats = find_repeats(vectors, np.arange(3), ["a", "b", "c"], pictures_alike=0.9)
    drawn = Chosen(places[0], places[1], places[2], *all_)
    numbers_ = (4, 50, 7.5, 3)
    return Confirmation("x", 0.5, None, *numbers_, {}, drawn, captions, {}, {}, repeats)


def test_what_was_drawn_whole_is_counted() -> None:
    assert numbers(3, confirmation("cc-", "", "c-", (0, 2))) == [
        ("3", "captions flagged"),
        ("2", "of them confirmed by pictures"),
        ("1", "memorised captions missed"),
        ("1", "pictures that repeat another"),
    ]


def test_a_sample_says_what_was_seen_and_what_is_estimated() -> None:
    found = confirmation("cc", "cc", "c---", (17, 40))
    _, (seen, what), (checked, missed), _ = numbers(19, found)
    assert seen == "4 of 4"
    assert what.startswith("drawn were confirmed by pictures; an estimated 19 (")
    assert what.endswith(" to 19) of all flagged with a picture")
    assert checked == "1 of 4"
    assert ", not flagged, were confirmed; an estimated 10 (1 to " in missed


def test_no_miss_among_some_is_no_zero() -> None:
    found = confirmation("c", "", "----", (0, 40))
    assert found.missed is not None
    (*_, (checked, missed), _) = numbers(1, found)
    assert checked == "0 of 4"
    assert f"at most {found.missed.high:,.0f} of all are memorised and missed" in missed
    assert found.missed.high > 4


def test_what_was_not_drawn_is_not_known() -> None:
    _, confirmed, missed, _ = numbers(2, confirmation("", "", "", (2, 5)))
    assert confirmed == ("not known", "of them confirmed by pictures: none was drawn")
    assert missed[0] == "not known"
    unknown = replace(confirmation("c", "", "-", (0, 1)), copied_above=None, repeats=None)
    assert [number for number, _ in numbers(3, unknown)] == ["3", *["not known"] * 3]
    assert "nobody could tell" in " ".join(sentences(1, unknown))


@pytest.mark.parametrize(
    ("flagged", "words"),
    [
        (2, None),
        (3, "1 flagged caption has no picture that can be read, and is neither confirmed nor"),
        (9, "7 flagged captions have no picture that can be read, and are neither confirmed nor"),
    ],
)
def test_flagged_captions_without_a_picture(flagged: int, words: str | None) -> None:
    found = sentences(flagged, confirmation("c-", "", "-", (0, 7)))
    assert found[0] == (
        "The model drew 2 captions that it may have memorised, and for 1 of them a training "
        "picture came back."
    )
    assert found[1].startswith("It drew 1 of the 7 captions that are not flagged as a check")
    assert found[-1].startswith("1 of 3 pictures of the set repeats another one")
    assert len(found) == 3 + (words is not None)
    assert words is None or found[2].startswith(words)
