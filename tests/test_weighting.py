from __future__ import annotations

import pytest

from mnemoscope import embedded
from mnemoscope.prompts import read_prompt_file
from mnemoscope.weighting import weighting


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
    "text", ["(:" + "1" * 99_000, "(" * 99_000, "[a|" * 33_000, "(a: " + " " * 99_000, "a" * 99_000]
)
def test_long_prompts_take_no_longer_than_they_are(text: str) -> None:
    assert len(weighting(text)) <= 1
