"""Counterfactual edits: the smallest that do, of words one is free to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from calibrations import scores_of

from mnemoscope import Calibration, CalibrationError, CalibrationFile, Detector, InputError
from mnemoscope.explain import EditOptions, Listed, Vocabulary, find_edits, read_lists
from mnemoscope_runtime.testing import FakeBackend

PROMPT = "google icon of tokyo tower, on rings, in zagreb 2020"
Scores = Callable[[frozenset[str]], float]


@pytest.fixture(scope="module")
def words() -> dict[int, str]:
    """The embedded vocabulary, by id."""
    with Detector.load(backend=FakeBackend(), uncalibrated="score") as detector:
        tokenizer = detector.screener.tokenizer
        names = [*PROMPT.replace(",", "").split()[:-1], "fez", "cat"]
        return {int(tokenizer([name])[0, 1]): name for name in names}


@pytest.fixture
def scoring(words: dict[int, str]) -> Iterator[Callable[[Scores], Detector]]:
    """A detector whose score depends on the words that a prompt holds."""

    def make(score: Scores) -> Detector:
        def magnitude(ids: np.ndarray) -> float:
            return score(frozenset(words[int(i)] for i in ids if int(i) in words))

        return Detector.load(backend=FakeBackend(magnitude), uncalibrated="score")

    return make


def test_one_word_is_enough(scoring: Callable[[Scores], Detector]) -> None:
    detector = scoring(lambda held: 2.0 * ("tower" in held) + 0.1 * ("icon" in held))
    found = find_edits(detector, PROMPT, EditOptions(target=1.0))
    assert found.needed
    assert found.smallest
    assert found.tried == 10
    [edit] = found.found
    assert str(edit.changes[0]) == "drop 'tower'"
    assert edit.prompt == "google icon of tokyo, on rings, in zagreb 2020"
    assert edit.score == pytest.approx(0.1)
    assert edit.kept == pytest.approx(1 - 5 / 41)


def test_two_words_together_where_greed_takes_three(
    scoring: Callable[[Scores], Detector],
) -> None:
    def score(held: frozenset[str]) -> float:
        if not {"tower", "rings"} & held:
            return 0.0  # both gone: a way that no single step leads to
        return 4.0 - ("tokyo" not in held) - ("google" not in held) - 2 * ("zagreb" not in held)

    found = find_edits(scoring(score), PROMPT, EditOptions(target=0.5))
    assert [str(edit.changes[0]) + str(edit.changes[1]) for edit in found.found] == [
        "drop 'tower'drop 'rings'"
    ]
    assert found.smallest


def test_those_that_keep_most_come_first(scoring: Callable[[Scores], Detector]) -> None:
    detector = scoring(lambda held: float({"tower", "of", "tokyo"} <= held))
    found = find_edits(detector, PROMPT, EditOptions(target=0.5, most=2))
    assert [edit.changes[0].word for edit in found.found] == ["of", "tokyo"]
    assert found.found[0].kept > found.found[1].kept


def test_those_that_score_like_ordinary_prompts_come_before_them(
    scoring: Callable[[Scores], Detector],
) -> None:
    detector = scoring(lambda held: 0.5 + 1.4 * ("tower" in held) + 0.1 * ("of" in held))
    benign = scores_of(*np.linspace(0, 2, 100).tolist())  # their threshold is 1.98
    calibration = Calibration.of(detector.setting(), benign, fpr=0.05)
    detector.calibration = CalibrationFile((calibration,))
    found = find_edits(detector, PROMPT).found
    assert [edit.changes[0].word for edit in found] == ["tower", "of"]
    assert [edit.ordinary for edit in found] == [True, False]
    assert found[0].kept < found[1].kept


def test_of_those_that_do_not_the_lowest_score_comes_first(
    scoring: Callable[[Scores], Detector],
) -> None:
    detector = scoring(lambda held: 1.2 + 0.7 * ("tower" in held) + 0.2 * ("of" in held))
    benign = scores_of(*np.linspace(0, 2, 100).tolist())  # their threshold is 1.98, their median 1
    calibration = Calibration.of(detector.setting(), benign, fpr=0.05)
    detector.calibration = CalibrationFile((calibration,))
    found = find_edits(detector, PROMPT).found
    assert [edit.changes[0].word for edit in found] == ["tower", "of"]
    assert not any(edit.ordinary for edit in found)
    assert found[0].kept < found[1].kept


def test_words_that_are_kept_stay(scoring: Callable[[Scores], Detector]) -> None:
    detector = scoring(lambda held: float("tower" in held) + 0.6 * ("rings" in held))
    options = EditOptions(target=0.5, keep=("TOWER",))
    found = find_edits(detector, PROMPT, options)
    assert found.needed
    assert found.found == ()
    assert found.tried <= options.budget
    with pytest.raises(InputError, match="'zag' cannot be kept"):
        find_edits(detector, PROMPT, EditOptions(target=0.5, keep=("zag",)))
    with pytest.raises(InputError, match="nothing to change"):
        find_edits(detector, "tower", EditOptions(target=0.5, keep=("tower",)))


def test_a_sign_is_dropped_where_that_is_asked_for(
    scoring: Callable[[Scores], Detector], words: dict[int, str]
) -> None:
    with Detector.load(backend=FakeBackend(), uncalibrated="score") as known:
        words[int(known.screener.tokenizer(["cat,"])[0, 2])] = ","
    detector = scoring(lambda held: float("," in held))
    prompt, target = "tokyo tower, rings cat", 0.5
    signs = EditOptions(target=target, signs=True)
    found = find_edits(detector, prompt, signs)
    assert [str(change) for edit in found.found for change in edit.changes] == ["drop ','"]
    [edit] = found.found
    assert (edit.prompt, edit.kept, edit.score) == ("tokyo tower rings cat", 1, 0)
    assert edit.as_json()["changes"] == [{"word": ",", "span": (11, 12), "to": None}]
    alone = find_edits(detector, prompt, EditOptions(target=target)).found
    assert {len(each.changes) for each in alone} == {2}  # a comma goes with what is after it
    kept = EditOptions(target=target, signs=True, keep=("tokyo tower rings cat",))
    assert [each.prompt for each in find_edits(detector, prompt, kept).found] == [edit.prompt]
    assert [each.prompt for each in find_edits(detector, "tower,", signs).found] == ["tower"]
    always = scoring(lambda _: 1.0)
    assert find_edits(always, "tower, rings", signs).tried == 3  # a word is always left


def test_words_to_keep_are_no_single_text() -> None:
    with pytest.raises(InputError, match=r"come in a sequence.*keep=\('tower',\)"):
        EditOptions(keep="tower")


def test_a_word_is_replaced_where_dropping_it_does_not_do(
    scoring: Callable[[Scores], Detector],
) -> None:
    detector = scoring(lambda held: float("tower" in held or "fez" not in held))
    options = EditOptions(target=0.5, alternatives=Listed({"Tower": ["fez", "tower", "cat"]}))
    found = find_edits(detector, PROMPT, options)
    assert [str(edit.changes[0]) for edit in found.found] == ["'tower' -> 'fez'"]
    assert found.found[0].prompt == PROMPT.replace("tower", "fez")
    # a prompt of one word can be replaced, but not dropped
    [edit] = find_edits(detector, "tower", options).found
    assert edit.prompt == "fez"
    assert find_edits(detector, "tower", EditOptions(target=0.5)).found == ()


def test_nothing_to_do(scoring: Callable[[Scores], Detector]) -> None:
    found = find_edits(scoring(lambda _: 0.2), PROMPT, EditOptions(target=0.5))
    assert (found.needed, found.found, found.tried) == (False, (), 0)


@pytest.mark.parametrize("budget", [1, 7, 30])
def test_the_budget_is_kept(scoring: Callable[[Scores], Detector], budget: int) -> None:
    detector = scoring(lambda held: 1.0 + len(held))
    found = find_edits(detector, PROMPT, EditOptions(target=0.5, budget=budget))
    assert found.tried <= budget
    assert found.found == ()


def test_no_target(scoring: Callable[[Scores], Detector]) -> None:
    with pytest.raises(CalibrationError, match=r"no threshold to get under.*Or give a target"):
        find_edits(scoring(lambda _: 1.0), PROMPT)
    with pytest.raises(InputError, match="finite"):
        find_edits(scoring(lambda _: 1.0), PROMPT, EditOptions(target=float("nan")))
    with pytest.raises(InputError, match="budget of at least 1"):
        find_edits(scoring(lambda _: 1.0), PROMPT, EditOptions(budget=0))


def test_the_embedded_model() -> None:
    with Detector.load(threads=1, uncalibrated="score") as detector:
        found = find_edits(detector, PROMPT)
        assert found.needed
        for edit in found.found:
            [again] = detector.screen([edit.prompt])
            assert again.score == pytest.approx(edit.score, rel=1e-3)
            assert again.memorized is False


def test_a_vocabulary_offers_what_stands_in_the_same_place() -> None:
    vocabulary = Vocabulary(["a cat on rings", "a dog on dots", "a dog on top", "see a fox"])
    assert vocabulary(["a", "bird", "on", "dots"], 1) == ["dog", "cat", "fox"]
    assert vocabulary(["a", "Dog", "on", "dots"], 1) == ["cat", "fox"]
    assert vocabulary(["never", "seen", "before"], 1) == []


def test_lists_of_replacements(tmp_path: Path) -> None:
    file = tmp_path / "replacements.txt"
    file.write_text("tower: bridge, house \ntower: hut\n# no\nnew year: party")
    lists = read_lists(file)
    assert lists == {"tower": ["bridge", "house", "hut"], "new year": ["party"]}
    assert Listed(lists)(["a", "TOWER"], 1) == ["bridge", "house", "hut"]
    assert Listed(lists)(["a", "TOWER"], 0) == []
