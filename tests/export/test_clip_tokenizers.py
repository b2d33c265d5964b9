"""Tokenizer files against transformers' own reading of them; transformers 4 is in tests/interop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers.loaders import TextualInversionLoaderMixin
from odd_prompts import odd_strings
from repository import ROOT
from tokenizer_layouts import LAYOUTS, write_layout
from transformers import CLIPTokenizer

from mnemoscope_export.bundle_tokenizer import BundleTokenizer
from mnemoscope_export.clip_tokenizers import CHECKED, ClipFiles, clip_tokenizer
from mnemoscope_runtime import ClipTokenizer, ExportError

ODD = odd_strings()


def ours(folder: Path, follows: str = "transformers-5") -> ClipTokenizer:
    files = ClipFiles.read(folder, follows)  # type: ignore[arg-type]
    definition = clip_tokenizer(files, follows)  # type: ignore[arg-type]
    return ClipTokenizer(definition, pad_token=files.pad_token)


def test_a_thousand_odd_prompts() -> None:
    assert len(set(ODD)) >= 1000


@pytest.mark.parametrize(
    ("follows", "file"),
    [("transformers-5", "constraints.txt"), ("transformers-4", "constraints-optimum.txt")],
)
def test_the_versions_that_are_recorded_are_those_that_are_pinned(follows: str, file: str) -> None:
    pins = (ROOT / file).read_text().splitlines()
    assert f"transformers=={CHECKED[follows]}" in pins  # type: ignore[index]


@pytest.mark.parametrize("name", LAYOUTS)
def test_ids_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder = write_layout(name, tmp_path / name)
    theirs = CLIPTokenizer.from_pretrained(folder)
    prompts = TextualInversionLoaderMixin().maybe_convert_prompt(ODD, theirs)
    told = theirs(prompts, padding="max_length", truncation=True, max_length=77)
    found = ours(folder)(ODD)
    wrong = [p for p, a, b in zip(ODD, found, np.array(told.input_ids), strict=True) if any(a != b)]
    assert not wrong
    assert len(np.unique(found, axis=0)) > 800  # the comparison is not between blanks


def test_a_tokenizer_of_transformers_5_can_follow_4(tmp_path: Path) -> None:
    folder = write_layout("both", tmp_path / "both")
    loaded = CLIPTokenizer.from_pretrained(folder)
    found = BundleTokenizer.from_transformers(loaded, 1928, "transformers-4")
    assert found.record.version == CHECKED["transformers-4"]
    np.testing.assert_array_equal(found.reader()(ODD), ours(folder, "transformers-4")(ODD))
    tower = ["東京タワー", "zero\u200bwidth", "ΟΔΟΣ", "<|ENDOFTEXT|>"]
    same = (found.reader()(tower) == ours(folder)(tower)).all(1)
    assert not same.any()
    with pytest.raises(ExportError, match=r"4 tokens beyond the text encoder's 1,924 embeddings"):
        BundleTokenizer.from_transformers(loaded, 1924)


def test_ids_with_holes_are_transformers_4s_alone(tmp_path: Path) -> None:
    folder = write_layout("sd1", tmp_path / "holes")
    (folder / "added_tokens.json").write_text(json.dumps({"<cat-toy>": 1930}))
    assert 1930 in ours(folder, "transformers-4")(["a <cat-toy>"])[0]
    with pytest.raises(ExportError, match=r"give '<cat-toy>' the id 1930.* holes"):
        ours(folder)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("vocab.json", "[1]", r"vocab\.json cannot be read: no object"),
        ("vocab.json", "{", r"vocab\.json cannot be read"),
        ("merges.txt", None, r"merges\.txt cannot be read"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: str | None, why: str) -> None:
    folder = write_layout("sd1", tmp_path / "damaged")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ExportError, match=why):
        BundleTokenizer.from_files(folder, longest=77)
