from __future__ import annotations

import pytest
from diffusers.loaders import TextualInversionLoaderMixin
from transformers import CLIPTokenizer

from mnemoscope import embedded
from mnemoscope_runtime import ClipTokenizer
from mnemoscope_runtime.triggers import Written, triggers, write_out

ADDED = ["<cat-toy>", "<x>", "<x>_1", "<x>_2", "<y>_1", "lone"]


@pytest.fixture(scope="module")
def theirs() -> CLIPTokenizer:
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    tokenizer.add_tokens(ADDED)
    return tokenizer


@pytest.fixture(scope="module")
def ours(theirs: CLIPTokenizer) -> ClipTokenizer:
    return ClipTokenizer(theirs.backend_tokenizer.to_str().encode())


def test_only_those_of_several_vectors_are_written_out() -> None:
    assert triggers(ADDED) == {"<x>": "<x> <x>_1 <x>_2"}


def test_a_prompt_without_triggers_stays_itself() -> None:
    assert write_out("a cat", {"<x>": "<x> <x>_1"}, str.split) == Written("a cat")


@pytest.mark.parametrize(
    "prompt",
    ["<x>", "a <x> on a beach, <x>", "a<x>b", "<X>", "<x>_1", "<x>_1 <x>", "word " * 90 + "<x>"],
)
def test_written_out_as_diffusers_does(
    ours: ClipTokenizer, theirs: CLIPTokenizer, prompt: str
) -> None:
    written = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, theirs)
    told = theirs(written, padding="max_length", truncation=True, max_length=77)
    assert ours([prompt])[0].tolist() == told.input_ids


def test_pieces_stand_for_the_characters_of_the_users_prompt(ours: ClipTokenizer) -> None:
    prompt = "a <x>, on a beach"
    pieces = [piece for piece in ours.pieces(prompt) if piece.span is not None]
    assert [piece.text for piece in pieces[1:4]] == ["<x>", "<x>_1", "<x>_2"]
    assert {piece.span for piece in pieces[1:4]} == {(2, 5)}
    for piece in (pieces[0], *pieces[4:]):
        assert piece.span is not None
        assert prompt[slice(*piece.span)].strip() == piece.text.removesuffix("</w>")
