"""Tokenizer files against transformers' own reading of them; transformers 4 is in tests/interop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import transformers
from diffusers.loaders import TextualInversionLoaderMixin
from odd_prompts import odd_strings
from tokenizer_layouts import LAYOUTS, write_layout
from transformers import CLIPTokenizer

from mnemoscope_export.clip_tokenizers import CHECKED, ClipFiles, clip_tokenizer
from mnemoscope_runtime import ClipTokenizer

ODD = odd_strings()


def ours(folder: Path, follows: str = "transformers-5") -> ClipTokenizer:
    files = ClipFiles.read(folder, follows)  # type: ignore[arg-type]
    definition = clip_tokenizer(files, follows)  # type: ignore[arg-type]
    return ClipTokenizer(definition, pad_token=files.pad_token)


def test_a_thousand_odd_prompts() -> None:
    assert len(set(ODD)) >= 1000


def test_the_version_that_is_recorded_is_the_one_that_is_tested() -> None:
    assert CHECKED["transformers-5"] == transformers.__version__


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
