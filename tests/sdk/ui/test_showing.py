"""What the page shows says what was measured, and whatever text says it is text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from calibrations import made
from ui_support import CLEAN

from mnemoscope import embedded
from mnemoscope.calibration.moving import move
from mnemoscope.explain import Change, Edit
from mnemoscope.ui import UiOptions
from mnemoscope.ui.desk import Desk
from mnemoscope.ui.listing import Row
from mnemoscope.ui.runs import Progress
from mnemoscope.ui.showing import (
    calibration_card,
    cost_card,
    edit_card,
    note_card,
    progress_card,
    rows_card,
    verdict_card,
    words_card,
)

HOSTILE = "<script>alert(1)</script> & \"'> ${7 * 7} {{ 7 * 7 }}"
MEMORISED = embedded.read_prompts("memorized")[0].prompt


class Card(HTMLParser):
    """Its tags, and its text as a reader has it."""

    def __init__(self, card: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(card)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with Desk(UiOptions(noises=1)) as opened:
        yield opened


def _cards(text: str) -> Iterator[str]:
    yield verdict_card(replace(CLEAN, notes=(text,), backend=text), [0.1, 0.2], text)
    yield edit_card(1, Edit(text, 0.1, None, 0.5, (Change(text, (0, 1)),)))
    yield note_card(text, title=text, wrong=True)
    yield progress_card(Progress(text, 1, 2))
    yield rows_card([Row(text, 1.0, 0.1, True, None, False, text, None)], text)
    yield rows_card([Row(text, None, None, None, None, None, None, text)], text)


def test_whatever_text_says_it_is_text(desk: Desk) -> None:
    for tame, hostile in zip(_cards("tame"), _cards(HOSTILE), strict=True):
        assert Card(hostile).tags == Card(tame).tags
        assert "<script" not in hostile
        assert HOSTILE in Card(hostile).text or HOSTILE in unescape(hostile)
    words = words_card(desk.explain(f"{HOSTILE} a cat", desk.first, "occlusion"))
    assert "script" not in Card(words).tags
    assert "<script>" in Card(words).text.replace(" ", "")


def test_a_verdict_has_its_gauge() -> None:
    card = verdict_card(replace(CLEAN, score=0.75, p_value=0.25), [0.1, 0.2, 0.8])
    assert 'aria-valuenow="0.75"' in card
    assert "score 0.75, threshold 1" in card
    assert "at 1 step on 1 noise, with onnxruntime" in Card(card).text
    assert '"mn-needle mn-needle-clean"' in card
    flagged = replace(CLEAN, score=2.0, memorized=True, p_value=0.01)
    assert '"mn-needle mn-needle-flagged"' in verdict_card(flagged, [0.1, 0.2])
    bare = replace(CLEAN, memorized=None, p_value=None, threshold=None)
    without = verdict_card(bare, [], "Calibrate it.")
    assert "meter" not in without
    assert "Its score is 0.5. Calibrate it." in Card(without).text
    empty = verdict_card(replace(bare, empty=True, notes=("It is empty.",)), [])
    assert "Its score" not in empty


def test_words_are_as_hot_as_they_matter(desk: Desk) -> None:
    found = desk.explain(MEMORISED, desk.first, "occlusion")
    card = words_card(found)
    heats = {
        word: float(heat)
        for heat, word in re.findall(r'<mark style="background:rgba\(.*?,([\d.]+)\)">(.*?)<', card)
    }
    hottest = found.ranked[0]
    assert heats[hottest.word] == 1.0 == max(heats.values())
    for word in found.words:
        assert (word.word in heats) == (word.score > 0)
        if word.score > 0:
            assert heats[word.word] == pytest.approx(word.score / hottest.score, abs=0.006)
    shares = [int(each) for each in re.findall(r"<span>(\d+) %</span>", card)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 103
    for each in (found, desk.explain("a cat", desk.first, "occlusion")):  # flagged, and not
        card = words_card(each)
        hot = [
            round(100 * float(heat)) for heat in re.findall(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", card)
        ]
        wide = [int(width) for width in re.findall(r'class="mn-bar" style="width:(\d+)%"', card)]
        assert wide == pytest.approx(sorted(hot, reverse=True)[: len(wide)], abs=1)
    long = words_card(desk.explain("word " * 100, desk.first, "occlusion"))
    assert Card(long).tags.count("s") == 1


def test_progress() -> None:
    assert 'max="50" value="12"' in progress_card(Progress("Drawing", 12, 50))
    assert "value" not in progress_card(Progress("Loading"))


def test_a_calibration_and_what_another_threshold_costs() -> None:
    calibration = made()
    still, moved = calibration_card(calibration), calibration_card(calibration, 2.5)
    assert (still.count("<line"), moved.count("<line")) == (1, 2)
    assert still.count('class="mn-memorised"') == 3
    places = [float(x) for x in re.findall(r'<line class="mn-\w+" x1="([\d.]+)"', moved)]
    assert 0 < places[0] < places[1] < 600
    assert "Above 2.5 lie 0 of 400" in Card(cost_card(move(calibration, 2.5), 0.95)).text
