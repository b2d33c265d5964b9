"""What came of drawing captions, in words."""

from __future__ import annotations

import numpy as np

from mnemoscope.audit.confirming import Confirmation, DrawnCaption, Finding
from mnemoscope.audit.confirming.choosing import Chosen


def confirmation(
    worst: str, some: str, others: str, more: tuple[int, int], above: float | None = 0.5
) -> Confirmation:
    """Findings of captions: c, n or - of each part; and what the two samples stand for."""
    kinds = {"c": Finding.confirmed, "n": Finding.near_miss, "-": Finding.not_confirmed}
    none = np.zeros(1, np.float32)
    captions = [
        DrawnCaption(n, f"{n}", n < len(worst + some), kinds[k], none, 0, none, None, [])
        for n, k in enumerate(worst + some + others)
    ]
    places = np.arange(len(captions))
    ends = len(worst), len(worst + some)
    chosen = Chosen(places[: ends[0]], places[ends[0] : ends[1]], places[ends[1] :], *more)
    return Confirmation("x", above, None, 4, 50, 7.5, 9, {}, chosen, captions, {}, {})


def test_all_drawn() -> None:
    found = confirmation("ccn-", "", "-nc", (0, 3))
    assert found.sentences() == [
        "4 of 4 flagged captions with a picture were drawn from 4 seeds each: 2 confirmed, 1 near "
        "miss, 1 not confirmed.",
        "3 of 3 captions that are not flagged were drawn: 1 confirmed, 1 near miss.",
        "It flags 67 % of all that would be confirmed.",
    ]


def test_one_of_a_thing() -> None:
    assert confirmation("c", "", "-", (0, 1)).sentences()[:2] == [
        "1 of 1 flagged caption with a picture was drawn from 4 seeds each: 1 confirmed, 0 near "
        "misses, 0 not confirmed.",
        "1 of 1 caption that is not flagged was drawn: 0 confirmed, 0 near misses.",
    ]


def test_samples() -> None:
    found = confirmation("cc", "c-", "c---", (4, 400))
    assert found.share is not None
    assert (found.share.value, found.share.low) == (4 / 6, 3 / 6)
    assert found.missed is not None
    assert found.missed.value == 100
    assert found.recall is not None
    assert found.recall.value == 4 / 104
    words = found.sentences()
    assert words[1].startswith("Of all flagged, 67 % (95 %: 50 to ")
    assert "So the audit misses some 100 (95 %: " in words[2]
    assert words[3].startswith("It flags 4 % (95 %: ")


def test_nothing_found_or_drawn() -> None:
    found = confirmation("--", "", "", (0, 5))
    assert found.recall is None
    assert found.missed is not None
    assert (found.missed.value, found.missed.low, found.missed.high) == (None, 0, 5)
    assert found.sentences()[-1].endswith("How many the audit misses is not known: from 0 to 5.")
    unseen = confirmation("c", "", "---", (0, 400))
    assert unseen.missed is not None
    high = f"{unseen.missed.high:,.0f}"
    assert f"No miss was seen; there are at most {high} (95 %)." in unseen.sentences()[1]
    empty = confirmation("", "", "", (0, 0))
    assert empty.share is None
    assert len(empty.sentences()) == 1
    all_flagged = confirmation("c", "", "", (0, 0)).sentences()
    assert len(all_flagged) == 1
    assert "1 confirmed" in all_flagged[0]
