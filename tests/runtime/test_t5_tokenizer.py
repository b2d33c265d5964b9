"""T5's ids, against transformers' own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from charsmaps import LEAF, charsmap, packed, unpacked
from json_changes import put
from odd_prompts import odd_strings
from t5_tokenizers import t5_tokenizer

from mnemoscope_runtime import InputError, IntegrityError
from mnemoscope_runtime.t5_tokenizer import T5Tokenizer
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT

THEIRS = t5_tokenizer()
DEFINITION = THEIRS.backend_tokenizer.to_str().encode()
LENGTH = 32


def ours(definition: bytes = DEFINITION) -> T5Tokenizer:
    return T5Tokenizer(definition, length=LENGTH, origin="tokenizer_3/tokenizer.json")


def test_ids_are_those_of_transformers() -> None:
    prompts = [
        *odd_strings(), "", " ", "a cat", "\uff21  ﬁne\tcafe\u0301\n\n½", "<pad> </s> <unk> a</s>b",
        "<extra_id_0>x<extra_id_99>", "▁ ▁▁cat", "\u200b\u00a0\u3000", "\0a", "word " * 100,
        "naïve Ångström 東京 🦊 ✈️",
    ]  # fmt: skip
    wanted = THEIRS(prompts, padding="max_length", truncation=True, max_length=LENGTH).input_ids
    found = ours().encode(prompts)
    np.testing.assert_array_equal(found.ids, wanted)
    whole = [len(ids) > LENGTH for ids in THEIRS(prompts).input_ids]
    assert found.truncated == tuple(whole)
    assert any(whole)
    assert (found.ids == 2).any()  # some of it unknown


def test_transformers_truncation_and_padding_are_not_kept() -> None:
    """The last call of a tokenizer stays in its definition."""
    THEIRS(["a", "a cat"], padding=True, truncation=True, max_length=3)
    kept = THEIRS.backend_tokenizer.to_str().encode()
    assert kept != DEFINITION
    np.testing.assert_array_equal(ours(kept)(["a " * 20]), ours()(["a " * 20]))


def test_what_older_versions_of_the_library_write() -> None:
    fields = json.loads(DEFINITION)
    marks = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    fields["pre_tokenizer"]["pretokenizers"][1] = marks
    del fields["model"]["byte_fallback"]
    prompts = ["a cat", "ﬁne  day"]
    found = ours(json.dumps(fields).encode()).encode(prompts).ids
    np.testing.assert_array_equal(found, ours().encode(prompts).ids)


def test_prompts_that_are_none() -> None:
    for prompts in ("a cat", [1], ["x" * (LONGEST_PROMPT + 1)], ["\ud800"]):
        with pytest.raises(InputError):
            ours().encode(prompts)  # type: ignore[arg-type]


PIECES = len(json.loads(DEFINITION)["model"]["vocab"])
UNITS, TEXT = unpacked(charsmap())
WILD = base64.b64encode(packed([2**20 << 10, *UNITS[1:]], TEXT)).decode()
ENDLESS = base64.b64encode(packed([u | LEAF if u > LEAF else u for u in UNITS], b"x" * 9999))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("normalizer.type", "NFKC"), "NFKC"),
        (put("normalizer.precompiled_charsmap", "?"), "no base64"),
        (put("normalizer.precompiled_charsmap", WILD), "leads outside"),
        (put("normalizer.precompiled_charsmap", ENDLESS.decode()), "more than 64 bytes"),
        (put("normalizer.pattern", {"Regex": "(a*)*"}), "pattern"),
        (put("pre_tokenizer.pretokenizers.0", {"type": "Split"}), "Split"),
        (put("pre_tokenizer.pretokenizers.1.split", False), "an option that is not known"),
        (put("pre_tokenizer.pretokenizers.1.replacement", "_"), "replacement"),
        (put("pre_tokenizer.pretokenizers.1.prepend_scheme", "first"), "prepend_scheme"),
        (put("model.type", "BPE"), "BPE"),
        (put("model.byte_fallback", True), "an option that is not known"),
        (put("model.unk_id", PIECES), "not in its vocabulary"),
        (put("model.unk_id", None), "unk_id"),
        (put("model.vocab.5", ["a", 1_000_001.0]), "<= 1000000.0"),
        (put("model.vocab.5", ["a", -1_000_001.0]), ">= -1000000.0"),
        (put("model.vocab.5", ["a", float("nan")]), "JSON is malformed"),
        (put("model.vocab.5", ["x" * 600, -1.0]), "more than 512 bytes"),
        (put("model.vocab.5", ["", -1.0]), "one without text"),
        (put("model.vocab.5", ["</s>", -1.0]), "a token twice"),
        (put("model.vocab", [["a", -1.0]] * (2**17 + 1)), "131,073 tokens"),
        (put("added_tokens.0.content", ""), "content"),
        (put("version", "2.0"), "version"),
    ],
)
def test_files_that_do_harm(change: Callable[[dict[str, Any]], None], words: str) -> None:
    fields = json.loads(DEFINITION)
    change(fields)
    with pytest.raises(IntegrityError, match=f"no tokenizer of T5's kind: .*{words}"):
        ours(json.dumps(fields).encode())


@pytest.mark.parametrize("text", [b"", b"{}", b"[" * 10**5, DEFINITION[:-2], b"\xff", b" " * 2**25])
def test_files_that_are_none(text: bytes) -> None:
    with pytest.raises(IntegrityError, match="no tokenizer of T5's kind"):
        ours(text)


def test_without_what_stands_around_a_prompt() -> None:
    fields = json.loads(DEFINITION)
    fields["added_tokens"] = []
    fields["model"]["vocab"][1][0] = "<eos>"
    with pytest.raises(IntegrityError, match="is not T5's"):
        ours(json.dumps(fields).encode())


def test_tokens_without_an_embedding() -> None:
    ours().check_rows(len(THEIRS), "it")
    with pytest.raises(IntegrityError, match="beyond the text encoder's 10 embeddings"):
        ours().check_rows(10, "it")
