from __future__ import annotations

import pytest

from mnemoscope import embedded
from mnemoscope.cli._loading import Loading, say_if_cut
from mnemoscope.prompts import read_prompt_file
from mnemoscope.screening.weighting import read_literally, weighting
from mnemoscope_runtime import Bundle, tokenizer_of


@pytest.mark.parametrize(
    "piece",
    [
        "(tokyo tower:1.3)",
        "(tokyo tower: .5)",
        "((tokyo tower))",
        "[[tower]]",
        "[a cat:a dog:0.5]",
        "[a cat:10]",
        "[cat|dog]",
        "(tower)++",
        "(tower)1.3",
        "tower++",
        "tower--",
        '("a cat", "a dog").blend(0.5, 0.5)',
        "<lora:some style:0.8>",
        "<hypernet:x:1>",
        "embedding:easynegative",
        "{red|blue|green}",
        "BREAK",
        "(a (red) cat:1.3)",
        "((masterpiece), best quality:1.2)",
        "(red, (blue), [green], (white) cat: 1.1)",
        "[a (red) cat:a dog:0.5]",
        "{a {red|blue} cat|dog}",
        "{{tower}}",
        "(a:1e0)",
        "tower+",
        "tower-",
        "AND",
        "__animal__",
        "__colours/warm*__",
        "\\(",
    ],
)
def test_what_pipelines_make_weights_of(piece: str) -> None:
    found = weighting(f"a photo, {piece}, on a beach")
    assert len(found) == 1
    assert found[0] in piece


def test_all_pieces_in_order() -> None:
    prompt = "(a:1.2), x BREAK (b)++ and <lora:c:1>"
    assert weighting(prompt) == ("(a:1.2)", "BREAK", "(b)++", "<lora:c:1>")


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        ("(a:1.2)", "makes weights"),
        ("{{a}}", "makes weights"),
        ("[a:b:0.5]", "while it draws"),
        ("[a|b]", "while it draws"),
        ("{a|b}", "one of several texts"),
        ("__animal__", "one of several texts"),
        ("<lora:x:1>", "export --lora"),
        ("embedding:x", "export --embedding"),
        ("BREAK", "apart"),
        ("\\(", "backslash"),
    ],
)
def test_each_note_says_what_it_is(piece: str, words: str) -> None:
    note = read_literally(f"a photo, {piece} on a beach")
    assert note is not None
    assert note.startswith(f"{piece} was read literally. If")
    assert words in note
    assert note.count("read literally") == 1


def test_a_note_on_several_kinds() -> None:
    note = read_literally("(a:1.2), (b:1), (c:1), (d:1) <lora:e:1>")
    assert note is not None
    assert note.startswith("(a:1.2), (b:1), (c:1), ... was read literally. If your pipeline makes")
    assert " <lora:e:1> was read literally. If your tool loads" in note
    assert read_literally("prose") is None


def test_a_bracket_that_is_never_closed() -> None:
    assert weighting("a cat, (tokyo tower:1.3") == ("(tokyo tower:1.3",)
    assert weighting("a cat, (tokyo tower:1.3, red, [blue]") == ("(tokyo tower:1.3",)


def test_ratios_and_times_are_weights_to_pipelines_that_know_weights() -> None:
    """A1111 and ComfyUI read "16" nine times as strong: no prose there."""
    assert weighting("a (16:9) picture") == ("(16:9)",)
    assert weighting("see [1:10]") == ("[1:10]",)


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat (2006)",
        "The No Limits Business Woman Podcast",
        "C++ book, second edition",
        "a well-known man - a portrait -- oil",
        "[Chris Farley]",
        "ratio 16:9, at 10:30 (UTC)",
        "GIVE ME A BREAK",
        "<cat-toy> on a beach",
        "a|b {c}",
        "(left: a cat)",
        "https://example.org/a-b-BD-/x=CD--",
        "a cat, a dog :) :( :|",
        "____",
    ],
)
def test_prose(prompt: str) -> None:
    assert weighting(prompt) == ()


def test_the_embedded_prompts_are_prose() -> None:
    prompts = list(read_prompt_file(embedded.PROMPTS))
    assert len(prompts) > 100
    assert not any(map(weighting, prompts))


@pytest.mark.timeout(20)  # what grows with the square of a prompt would take hours
@pytest.mark.parametrize(
    "text",
    [
        "(:" + "1" * 99_000,
        "(" * 99_000,
        "[a|" * 33_000,
        "(a: " + " " * 99_000,
        "a" * 99_000,
        "(" * 50_000 + ")" * 50_000,
        "(:1" * 33_000,
        "(" * 33_000 + ":1)" * 22_000,
        "_" * 99_000,
        "__a" * 33_000,
        "__a*" * 20_000,
        "a+" * 50_000,
        "()1" + "1" * 99_000 + "a",
    ],
)
def test_long_prompts_take_no_longer_than_they_are(text: str) -> None:
    assert len(weighting(text)) <= text.count("(:1") + 1


def test_a_negative_prompt_that_is_not_read_as_it_stands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Loading(negative="(blurry:1.3), bad").options()
    assert "(blurry:1.3) in the negative prompt is read literally" in capsys.readouterr().err
    tokenizer = tokenizer_of(Bundle.open(embedded.BUNDLE))
    say_if_cut("bad " * 90, tokenizer)
    assert "only the first 75 tokens of the negative prompt" in capsys.readouterr().err
    Loading(negative="blurry").options()
    say_if_cut("blurry", tokenizer)
    assert capsys.readouterr().err == ""
