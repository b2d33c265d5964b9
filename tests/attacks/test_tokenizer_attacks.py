"""Tokenizers of strangers: each is refused before the library that would parse it sees it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attack_support import Fields, plant
from cli_support import Run, failed
from tokenizers import Regex, normalizers

from mnemoscope import Detector, embedded
from mnemoscope_export.clip_tokenizers import ClipFiles, clip_tokenizer
from mnemoscope_runtime import ClipTokenizer, ExportError, InputError, IntegrityError
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT
from mnemoscope_runtime.tokenizer_json import (
    FINAL_SIGMA,
    LONGEST_TOKEN,
    MOST_ADDED,
    MOST_BYTES,
    MOST_TOKENS,
)

FILE = "tokenizer/tokenizer.json"
DEFINITION = (embedded.BUNDLE / FILE).read_bytes()
FREE = 1924  # the first id without a token
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)


def at(*place: str | int, value: Any) -> Callable[[Fields], None]:
    def change(fields: Any) -> None:
        for key in place[:-1]:
            fields = fields[key]
        fields[place[-1]] = value

    return change


def replace(pattern: str, content: str) -> Fields:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def forged(change: Callable[[Fields], None]) -> bytes:
    fields = json.loads(DEFINITION)
    change(fields)
    return json.dumps(fields).encode()


def added(count: int, **more: Any) -> list[Fields]:
    return [{"id": FREE + k, "content": f"<{k}>", **FLAGS, **more} for k in range(count)]


CUT = ("pre_tokenizer", "pretokenizers", 0)
HOSTILE = {
    "a regular expression that runs for ever": (
        at("normalizer", "normalizers", 1, value=replace("(a+)+$", " ")),
        "its normalizer is another",
    ),
    "one among the words": (at(*CUT, "pattern", "Regex", value="(a*)*b"), "its pre_tokenizer is"),
    "a prompt becomes gigabytes": (
        at("normalizer", "normalizers", value=[replace("a", "aaaaaaaa")] * 12),
        "its normalizer is another",
    ),
    "no words": (at("pre_tokenizer", value=None), "its pre_tokenizer is another"),
    "one that looks equal": (at(*CUT, "invert", value=1), "its pre_tokenizer is another"),
    "another decoder": (at("decoder", value=replace("(a*)*b", "")), "its decoder is another"),
    "another end": (
        at("post_processor", value={"type": "ByteLevel"}),
        r"Invalid value 'ByteLevel' - at `\$\.post_processor",
    ),
    "an end's option": (at("post_processor", "trim_offsets", value=True), "its post_processor has"),
    "another model": (at("model", "type", value="Unigram"), "Invalid value 'Unigram'"),
    "dice": (at("model", "dropout", value=0.5), r"Expected `null`.*model\.dropout"),
    "an option": (at("model", "byte_fallback", value=True), "its model has an option"),
    "an unknown option": (at("model", "cache", value=2**60), "unknown field `cache`"),
    "a token that is not there": (at("model", "unk_token", value="none"), "its unk_token 'none'"),
    "a merge into what is not there": (
        lambda fields: fields["model"]["merges"].append(["photo</w>", "photo</w>"]),
        r"its merge \['photo</w>', 'photo</w>'\] is of tokens",
    ),
    "a merge of what is not there": (
        lambda fields: fields["model"]["merges"].append(["", "a</w>"]),
        "its merge .* is of tokens that it does not have",
    ),
    "no token for others": (at("model", "unk_token", value=None), r"model\.unk_token"),
    "an id beyond all": (at("model", "vocab", "a</w>", value=2**40), r"Expected `int`"),
    "an id that is none": (at("model", "vocab", "a</w>", value=-1), r"Expected `int`"),
    "millions of tokens": (
        lambda fields: fields["model"]["vocab"].update((f"{k:x}", k) for k in range(MOST_TOKENS)),
        r"it has \d+,\d+ tokens; 131,072 are accepted",
    ),
    "millions of merges": (
        at("model", "merges", value=[["a", "b</w>"]] * (MOST_TOKENS + 1)),
        "it has 131,073 merges",
    ),
    "thousands of added tokens": (
        at("added_tokens", value=added(MOST_ADDED + 1)),
        "it has 8,193 added tokens",
    ),
    "a token of a book": (
        at("added_tokens", value=added(1, content="é" * (LONGEST_TOKEN // 2 + 1))),
        "has more than 512 bytes",
    ),
    "a token of nothing": (at("added_tokens", value=added(1, content="")), "length >= 1"),
    "another version": (at("version", value="2.0"), "Invalid enum value '2.0'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_before_it_is_parsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, why = HOSTILE[name]
    content = forged(change)
    monkeypatch.setattr("mnemoscope_runtime.tokenizer.Tokenizer", None)
    with pytest.raises(IntegrityError, match=why):
        ClipTokenizer(content)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (DEFINITION + b" " * MOST_BYTES, r"bytes; 16,777,216 are accepted"),
        (b'{"normalizer": ' + b"[" * 10**6, "recursion"),
        (DEFINITION.replace(b'"a</w>"', b'"\\ud800"'), "is no tokenizer"),
        (DEFINITION.replace(b'"a</w>"', b'"\xff"'), "is no tokenizer"),
    ],
    ids=["gigabytes", "nested without end", "half a character", "no UTF-8"],
)
def test_a_file_that_is_no_json_of_ours(content: bytes, why: str) -> None:
    with pytest.raises(IntegrityError, match=why):
        ClipTokenizer(content)


def test_what_is_said_twice_is_what_was_checked() -> None:
    hostile = json.dumps({"type": "Sequence", "normalizers": [replace("cat", "dog")]}).encode()
    for content in (
        DEFINITION.replace(b'"normalizer":', b'"normalizer": ' + hostile + b', "normalizer":'),
        DEFINITION.replace(b'"a</w>"', b'"cat</w>": 3, "a</w>"', 1),
    ):
        assert content != DEFINITION
        cat = ["a cat in a hat"]
        assert (ClipTokenizer(content)(cat) == ClipTokenizer(DEFINITION)(cat)).all()


def test_the_command_line_calls_it_a_bundle_that_cannot_be_used(run: Run, tmp_path: Path) -> None:
    bundle = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    plant(bundle, FILE, forged(HOSTILE["a regular expression that runs for ever"][0]))
    result = run("screen", "a cat", "--bundle", bundle)
    failed(result, 4, FILE, "its normalizer is another", "do not use it")


def test_a_panic_does_not_read_as_flagged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = normalizers.Replace(Regex("(a+)+$"), " ")

    def load(*_: object, **__: object) -> None:
        hostile.normalize_str("a" * 40 + "b")

    monkeypatch.setattr(Detector, "load", load)
    result = run("screen", "a cat")
    assert result.code == 3
    assert "PanicException" in result.err


# prompts


def test_final_sigmas_are_pythons_and_take_the_time_of_the_text() -> None:
    ours, dice = normalizers.Replace(Regex(FINAL_SIGMA), "ς"), random.Random(0)
    found = 0
    for _ in range(5000):
        text = "".join(dice.choice("aΣ'ʰ !Σʰ\u0345") for _ in range(dice.randint(1, 12)))
        lower = zip(text, text.lower(), strict=True)
        assert ours.normalize_str(text) == "".join(b if b == "ς" else a for a, b in lower)
        found += "ς" in text.lower()
    assert found > 1000
    for text in ("ʰ" * LONGEST_PROMPT + "!Σ", "aΣ" + "'ʰ" * (LONGEST_PROMPT // 2)):
        ours.normalize_str(text)  # the first once took a minute


def test_a_prompt_that_grows_when_its_triggers_are_written_out() -> None:
    names = ["<x>", *(f"<x>_{k}" for k in range(1, 76))]
    tokens = [token | {"content": name} for token, name in zip(added(76), names, strict=True)]
    tokenizer = ClipTokenizer(forged(lambda fields: fields["added_tokens"].extend(tokens)))
    assert tokenizer(["<x> " * 100]).shape == (1, 77)
    with pytest.raises(InputError, match=r"1,000,000 characters.*written out"):
        tokenizer(["a cat", "<x>" * 10_000])


# models that are exported


def test_files_of_gigabytes_are_not_read(tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(embedded.MODEL / "tokenizer" / name, tmp_path)
    clip_tokenizer(ClipFiles.read(tmp_path, "transformers-5"), "transformers-5")
    with (tmp_path / "merges.txt").open("r+b") as file:
        file.truncate(8 * 2**30)
    with pytest.raises(ExportError, match=r"merges\.txt cannot be read: .*16,777,216 bytes"):
        ClipFiles.read(tmp_path, "transformers-5")
