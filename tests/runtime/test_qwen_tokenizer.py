"""Qwen2's ids in a template, against transformers' own, and files that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from json_changes import put
from odd_prompts import odd_strings
from qwen_tokenizers import qwen_tokenizer

from mnemoscope_runtime import InputError, IntegrityError
from mnemoscope_runtime.qwen_tokenizer import QwenTokenizer

THEIRS = qwen_tokenizer()
DEFINITION = THEIRS.backend_tokenizer.to_str().encode()
LENGTH, TEMPLATE, PAD = 24, "<|im_start|>user\n{}<|im_end|>\n", "<|endoftext|>"


def ours(definition: bytes = DEFINITION, template: str = TEMPLATE, **options: Any) -> QwenTokenizer:
    fields = {"length": LENGTH, "pad_token": PAD, "dropped": 2, **options}
    return QwenTokenizer(definition, template=template, origin="it", **fields)


def test_ids_are_those_of_transformers() -> None:
    prompts = [*odd_strings(), "", " ", "\n\nx", "  \n  x", "{}", "<|im_end|> <|endoftext|> b"]
    texts = [TEMPLATE.format(each) for each in prompts]
    wanted = THEIRS(texts, padding="max_length", truncation=True, max_length=LENGTH,
                    padding_side="right").input_ids  # fmt: skip
    kept = [k for k, row in enumerate(wanted) if row[-1] != THEIRS.pad_token_id
            or len(THEIRS(texts[k]).input_ids) < LENGTH]  # fmt: skip
    assert len(kept) > 0.9 * len(prompts)
    found = ours().encode([prompts[k] for k in kept])
    np.testing.assert_array_equal(found.ids, [wanted[k] for k in kept])


def test_a_prompt_and_its_template_are_read_together() -> None:
    alone = THEIRS("<|im_start|>user\n").input_ids
    joined = ours()(["\n\na cat"])[0].tolist()
    assert joined[: len(alone)] != alone
    assert ours()(["a cat"])[0, : len(alone)].tolist() == alone


def test_a_prompt_that_is_cut_at_what_stands_for_nothing() -> None:
    with pytest.raises(InputError, match=r"Prompt 1 ends, .* it spells .*endoftext"):
        ours().encode(["a cat", PAD * 40])


def test_what_is_read_and_what_is_not() -> None:
    reader = ours(length=12)
    assert reader.reads == 10
    short, long = reader.encode(["a", "word " * 40]).truncated
    assert (short, long) == (False, True)
    pieces = reader.pieces("a cat")
    assert len(pieces) == 12
    assert "".join("a cat"[slice(*each.span)] for each in pieces if each.span) == "a cat"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("normalizer", {"type": "Replace", "pattern": {"Regex": "(a*)*"}}), "Replace"),
        (put("pre_tokenizer.pretokenizers.0.pattern", {"Regex": "(a*)*"}), "pre_tokenizer"),
        (put("model.type", "Unigram"), "Unigram"),
        (put("model.byte_fallback", True), "an option that is not known"),
        (put("model.dropout", 0.5), "dropout"),
        (put("model.merges.0", ["a", "no such token"]), "tokens that it does not have"),
        (put("added_tokens.0.content", ""), "content"),
        (put("version", "2.0"), "version"),
    ],
)
def test_files_that_do_harm(change: Callable[[dict[str, Any]], None], words: str) -> None:
    fields = json.loads(DEFINITION)
    change(fields)
    with pytest.raises(IntegrityError, match=f"no tokenizer of Qwen2's kind: .*{words}"):
        ours(json.dumps(fields).encode())


@pytest.mark.parametrize("text", [b"", b"{}", b"[" * 10**5, DEFINITION[:-2], b"\xff", b" " * 2**25])
def test_files_that_are_none(text: bytes) -> None:
    with pytest.raises(IntegrityError, match="no tokenizer of Qwen2's kind"):
        ours(text)


@pytest.mark.parametrize(
    "options", [{"template": "no place"}, {"template": "{}{}"}, {"dropped": 9}, {"pad_token": "?!"}]
)
def test_templates_that_do_not_go_with_it(options: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="does not go with its template"):
        ours(**options)
