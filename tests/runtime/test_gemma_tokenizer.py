"""Gemma's ids behind an instruction, against transformers' own, and files that are none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gemma_tokenizers import gemma_tokenizer
from json_changes import put
from odd_prompts import odd_strings

from mnemoscope_runtime import InputError, IntegrityError
from mnemoscope_runtime.gemma_tokenizer import GemmaTokenizer

THEIRS = gemma_tokenizer()
DEFINITION = THEIRS.backend_tokenizer.to_str().encode()
LENGTH, TEMPLATE, PAD = 24, "User Prompt: {}", "<pad>"


def ours(definition: bytes = DEFINITION, **options: Any) -> GemmaTokenizer:
    fields = {"length": LENGTH, "pad_token": PAD, "template": TEMPLATE, **options}
    return GemmaTokenizer(definition, origin="it", **fields)


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_are_those_of_transformers(lowercase: bool) -> None:
    prompts = [*odd_strings(), "", " ", "\n\nx", "  \n  x", "{}", "<bos> <pad> b", "\u6771\u4eac"]
    read = [each.lower().strip() if lowercase else each for each in prompts]
    texts = [TEMPLATE.format(each) for each in read]
    wanted = THEIRS(texts, padding="max_length", truncation=True, max_length=LENGTH,
                    padding_side="right")  # fmt: skip
    # a row that ends in padding which is read is one that nobody could tell from a shorter one
    kept = [
        k
        for k, (row, mask) in enumerate(zip(wanted.input_ids, wanted.attention_mask, strict=True))
        if row[sum(mask) - 1] != THEIRS.pad_token_id
    ]
    assert len(kept) > 0.9 * len(prompts)
    found = ours(lowercase=lowercase).encode([prompts[k] for k in kept])
    np.testing.assert_array_equal(found.ids, [wanted.input_ids[k] for k in kept])


def test_a_prompt_and_its_instruction_are_read_together() -> None:
    alone = THEIRS("User Prompt: ").input_ids
    assert ours()(["\u6771"])[0, : len(alone)].tolist() == alone
    joined = ours()(["a cat"])[0].tolist()
    assert joined[: len(alone) - 1] == alone[:-1]
    assert joined[len(alone) - 1] == THEIRS.convert_tokens_to_ids("\u2581a")


@pytest.mark.parametrize("prompt", [PAD, f"a cat {PAD}", PAD * 40])
def test_a_prompt_that_ends_in_what_stands_for_nothing(prompt: str) -> None:
    with pytest.raises(InputError, match=r"Prompt 1 ends, .* it spells .*<pad>"):
        ours().encode(["a cat", prompt])
    assert ours().encode([f"{PAD} a cat"]).truncated == (False,)


def test_what_is_read_and_what_is_not() -> None:
    reader = ours(length=12)
    assert reader.reads == 12 - len(THEIRS("User Prompt:").input_ids)
    short, long = reader.encode(["a", "word " * 40]).truncated
    assert (short, long) == (False, True)
    pieces = ours(lowercase=True).pieces(" A Cat ")
    assert len(pieces) == LENGTH
    assert "".join(" A Cat "[slice(*each.span)] for each in pieces if each.span) == "A Cat"
    [body] = reader.bodies(["a cat"])
    assert body == THEIRS("User Prompt: a cat").input_ids[len(reader.start) :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("normalizer.pattern", {"Regex": "(a*)*"}), "Regex"),
        (put("normalizer.content", "x" * 10**6), "content"),
        (put("pre_tokenizer.behavior", "Isolated"), "behavior"),
        (put("model.type", "Unigram"), "Unigram"),
        (put("model.byte_fallback", False), "byte_fallback"),
        (put("model.fuse_unk", False), "fuse_unk"),
        (put("model.ignore_merges", True), "ignore_merges"),
        (put("model.unk_token", "?!"), "unk_token '\\?!' is not in its vocabulary"),
        (put("model.dropout", 0.5), "dropout"),
        (put("model.merges.0", ["a", "no such token"]), "tokens that it does not have"),
        (put("added_tokens.0.content", ""), "content"),
        (put("version", "2.0"), "version"),
    ],
)
def test_files_that_do_harm(change: Any, words: str) -> None:
    fields = json.loads(DEFINITION)
    change(fields)
    with pytest.raises(IntegrityError, match=f"no tokenizer of Gemma's kind: .*{words}"):
        ours(json.dumps(fields).encode())


def test_files_with_too_many_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemoscope_runtime.gemma_json._MOST_MERGES", 10)
    with pytest.raises(IntegrityError, match="merges; 10 are accepted"):
        ours()


def test_files_without_words_to_cut() -> None:
    """As they are written where there is no pre_tokenizer: spaces are none any more."""
    fields = {**json.loads(DEFINITION), "pre_tokenizer": None}
    other = ours(json.dumps(fields).encode())
    np.testing.assert_array_equal(other(["a cat  on"]), ours()(["a cat  on"]))


@pytest.mark.parametrize("text", [b"", b"{}", b"[" * 10**5, DEFINITION[:-2], b"\xff"])
def test_files_that_are_none(text: bytes) -> None:
    with pytest.raises(IntegrityError, match="no tokenizer of Gemma's kind"):
        ours(text)


@pytest.mark.parametrize(
    "options", [{"template": "no place"}, {"template": "{}{}"}, {"length": 3}, {"pad_token": "?!"}]
)
def test_templates_that_do_not_go_with_it(options: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="does not go with its template"):
        ours(**options)
