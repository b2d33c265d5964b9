"""Explanations: which words a score comes from."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mnemoscope import BackendUnavailable, BundleError, Detector, InputError, embedded
from mnemoscope.explain import (
    Explainer,
    Explanation,
    Gradient,
    explain,
    load_attribution,
    load_model,
    summarize,
)
from mnemoscope.explain.pictures import to_html
from mnemoscope.explain.word_kinds import classify, read_lexicon
from mnemoscope.explain.words import word_spans
from mnemoscope_export import StableDiffusion
from mnemoscope_runtime.testing import FakeBackend

PROMPT = "google icon of tokyo tower, on rings, in zagreb 2020"


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with Detector.load(threads=1) as found:
        yield found


def counting(*heavy: str) -> Detector:
    """Scores a prompt 1 for each of some words in it, whatever else it says."""
    tokenizer = Detector.load(backend=FakeBackend(), uncalibrated="score").screener.tokenizer
    ids = [int(tokenizer([word])[0, 1]) for word in heavy]
    return Detector.load(
        backend=FakeBackend(lambda row: float(np.isin(ids, row).sum())), uncalibrated="score"
    )


def test_occlusion_finds_the_words_that_count() -> None:
    with counting("tower", "rings") as detector:
        found = explain(PROMPT, detector=detector)
    assert found.score == 2
    scores = {word.word: word.score for word in found.words}
    assert [word for word in scores if scores[word] == 1] == ["tower", "rings"]
    assert sum(scores.values()) == 2
    assert {word.word for word in found.ranked[:2]} == {"tower", "rings"}
    assert sum(found.shares()) == pytest.approx(1)
    for word in found.words:
        assert PROMPT[slice(*word.span)] == word.word
        assert "".join(t.token for t in word.tokens).replace("</w>", "") == word.word
    assert [(each.token, each.kind, each.score) for each in found.others] == [
        (",</w>", "punctuation", 0.0),
        (",</w>", "punctuation", 0.0),
        ("<|startoftext|>", "start", None),
        ("<|endoftext|>", "end", None),
        ("padding", "padding", None),
    ]


def test_occlusion_looks_at_what_is_read_and_says_what_is_not() -> None:
    with counting("tower", "rings") as detector:
        found = explain("tower " + "icon " * 74 + "rings here", detector=detector)
    assert found.unread == "rings here"
    assert len(found.words) == 75
    # dropping a word does not let the tail in
    assert [word.score for word in found.words] == [1.0] + [0.0] * 74


def test_one_word() -> None:
    with counting("tower") as detector:
        found = explain("tower", detector=detector)
    assert [(word.word, word.score) for word in found.words] == [("tower", 1.0)]


@pytest.mark.parametrize("prompt", ["", "  ", ",,"])
def test_no_words(prompt: str, detector: Detector) -> None:
    with pytest.raises(InputError, match="holds no words"):
        explain(prompt, detector=detector)


def test_gradients_of_the_embedded_model(detector: Detector) -> None:
    model = load_model()
    found = {
        method: Explainer(detector, load_attribution(method, model)).explain(PROMPT, noises=1)
        for method in ("gradient", "gradient-output", "occlusion")
    }
    for each in found.values():
        assert each.score == found["occlusion"].score
        assert each.noises == 1
    gradient = found["gradient"]
    assert "tower" in [word.word for word in gradient.ranked[:2]]
    year = next(word for word in gradient.words if word.word == "2020")
    scores = [token.score for token in year.tokens if token.score is not None]
    assert len(scores) == 4
    assert year.score == pytest.approx(np.linalg.norm(scores))
    assert all(token.score is not None for token in gradient.others)
    shown = to_html([gradient])
    for name, kind in ((",", "punctuation"), ("(start)", "added"), ("(padding)", "added")):
        assert re.search(
            rf"<td>{re.escape(name)}</td>\s*<td>[\d.]+</td>\s*<td>[\d%]*</td>\s*<td>{kind}</td>",
            shown,
        )
    # behind the end a causal encoder's padding is told of the prompt, yet tells no token of itself
    plain = gradient.as_json()
    assert json.loads(json.dumps(plain))["words"][0].keys() >= {"word", "span", "score", "tokens"}
    assert plain["memorized"] is True


def test_a_model_that_is_not_the_bundles(
    detector: Detector, model: StableDiffusion, bundle_dir: Path
) -> None:
    with pytest.raises(BundleError, match=r"not those of .*epsilon\. Give the model"):
        Explainer(detector, Gradient(model)).explain("a cat")
    with Detector.load(bundle_dir, threads=1, uncalibrated="score") as own:
        assert Explainer(own, Gradient(model)).explain("a cat").words[1].score > 0


def test_a_gradient_is_the_magnitudes(model: StableDiffusion, bundle_dir: Path) -> None:
    with Detector.load(
        bundle_dir, threads=1, detector="score-difference-map", uncalibrated="score"
    ) as other:
        with pytest.raises(InputError, match="Explain other detectors by occlusion"):
            Explainer(other, Gradient(model)).explain("a cat")
        assert Explainer(other).explain("a cat").detector == other.statistic.name


def test_methods_by_name() -> None:
    with pytest.raises(InputError, match=r"no method 'magic'.*gradient-output"):
        load_attribution("magic")
    with pytest.raises(InputError, match="differentiates a model"):
        load_attribution("gradient")


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch, detector: Detector) -> None:
    monkeypatch.setitem(sys.modules, "mnemoscope_export", None)
    with pytest.raises(BackendUnavailable, match=r"'\.\[torch\].*or explain by occlusion"):
        explain("a cat", detector=detector, method="gradient")
    assert explain("a cat", detector=detector, method="occlusion").words


def heats(explanation: Explanation) -> list[float]:
    page = to_html([explanation])
    return [float(heat) for heat in re.findall(r"background:rgba\([\d,]+,([\d.]+)\)", page)]


def test_a_clean_prompt_is_not_red() -> None:
    with counting("tower", "rings") as detector:
        found = explain("tower on rings rings", detector=detector)
    assert heats(found) == [1.0]
    flagged = replace(found, memorized=True, threshold=4.0)
    assert heats(flagged) == [1.0]
    clean = replace(found, memorized=False, threshold=4.0)
    assert heats(clean) == [0.25]
    assert heats(replace(clean, threshold=0.5)) == [1.0]
    assert heats(replace(clean, method="gradient")) == [1.0]


# kinds


def kinds(prompt: str, lexicon: dict[str, str] | None = None) -> list[str]:
    return list(classify(prompt, word_spans(prompt), lexicon))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red cat, 3 dogs", "function attribute object number object"),
        ("portrait of Anna in paris", "object function name function place"),
        ("oil painting", "other object"),
        ("THE BIG CAT", "function attribute object"),
        ("1st 16:9 1080p two", "number number number number"),
    ],
)
def test_kinds_by_rule(prompt: str, expected: str) -> None:
    assert kinds(prompt) == expected.split()


def test_a_lexicon_goes_first(tmp_path: Path) -> None:
    file = tmp_path / "kinds.txt"
    file.write_text("# mine\n\nname: Cat, zoe\nPlace: red\n")
    lexicon = read_lexicon(file)
    assert lexicon == {"cat": "name", "zoe": "name", "red": "place"}
    assert kinds("a red cat", lexicon) == ["function", "place", "name"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [("verb: run", "no kind 'verb'"), ("nonsense", "line 1: not of the form"), ("name:", "line 1")],
)
def test_a_lexicon_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "kinds.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        read_lexicon(tmp_path / "kinds.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_lexicon(tmp_path / "none.txt")


def test_long_numbers_take_no_time() -> None:
    assert kinds("1" * 50_000 + "!x") == ["object"]


def test_the_embedded_lexicon_is_the_generators() -> None:
    from recipes.embedded.lexicon import lexicon

    assert read_lexicon(embedded.LEXICON) == lexicon()


def test_the_embedded_model_comes_with_its_lexicon(detector: Detector) -> None:
    def kind(found: Explanation) -> str:
        return found.words[0].kind

    assert kind(explain("google icon", noises=1)) == "name"
    assert kind(explain("google icon", noises=1, lexicon={"google": "place"})) == "place"
    assert kind(explain("google icon", noises=1, detector=detector)) == "other"


# over many prompts


def test_which_words_trigger_most() -> None:
    with counting("tower", "rings") as detector:
        explainer = Explainer(detector)
        found = [
            explainer.explain(prompt)
            for prompt in ("icon of tower", "Tower tower", "on rings", "a cat, on rings")
        ]
    summary = summarize(found)
    assert (summary.prompts, summary.flagged) == (4, None)
    top = {each.word: each for each in summary.triggers}
    assert [each.word for each in summary.triggers[:2]] == ["rings", "tower"]
    assert (top["rings"].prompts, top["rings"].top, top["rings"].share) == (2, 2, 1.0)
    assert (top["tower"].prompts, top["tower"].top, top["tower"].effect) == (2, 2, 0.5)
    assert top["on"].top == 0
    assert {row.kind: (row.words, row.top) for row in summary.kinds} == {
        "object": (6, 3),
        "function": (4, 0),
        "other": (1, 1),
    }


def test_words_of_harmless_prompts_do_not_count_beside_flagged_ones() -> None:
    with counting("tower", "rings") as detector:
        explainer = Explainer(detector)
        flagged, clean = (explainer.explain(each) for each in ("icon of tower", "a cat"))
    summary = summarize([replace(flagged, memorized=True), replace(clean, memorized=False)])
    assert (summary.prompts, summary.flagged) == (2, 1)
    assert {each.word for each in summary.triggers} == {"icon", "of", "tower"}
    none = summarize([replace(each, memorized=False) for each in (flagged, clean)])
    assert {each.word for each in none.triggers} == {"icon", "of", "tower", "a", "cat"}
