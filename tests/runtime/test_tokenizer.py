from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odd_prompts import odd_strings
from tokenizers import Tokenizer, models
from transformers import CLIPTokenizer

from mnemoscope import embedded
from mnemoscope_export import StableDiffusion
from mnemoscope_runtime import Bundle, ClipTokenizer, InputError, IntegrityError, tokenizer_of
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT

ODD = odd_strings()
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def definition(tokenizer: CLIPTokenizer, folder: Path) -> bytes:
    tokenizer.save_pretrained(folder)
    return (folder / "tokenizer.json").read_bytes()


def expected(tokenizer: CLIPTokenizer, prompts: list[str], length: int = 77) -> NDArray[np.int64]:
    ids = tokenizer(prompts, padding="max_length", truncation=True, max_length=length).input_ids
    return np.array(ids, np.int64)


@pytest.fixture(scope="module")
def theirs() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")


@pytest.fixture(scope="module")
def ours(theirs: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> ClipTokenizer:
    return ClipTokenizer(definition(theirs, tmp_path_factory.mktemp("tokenizer")))


def different(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> list[str]:
    return [text for text, a, b in zip(ODD, ours, theirs, strict=True) if not np.array_equal(a, b)]


def test_odd_strings_are_many_and_odd() -> None:
    assert len(set(ODD)) >= 500
    assert any(unicodedata.normalize("NFC", text) != text for text in ODD)
    assert any(unicodedata.normalize("NFD", text) != text for text in ODD)
    assert any("\0" in text for text in ODD)
    assert odd_strings() == ODD


def test_parity_with_transformers(model: StableDiffusion, tmp_path: Path) -> None:
    ours = ClipTokenizer(definition(model.tokenizer, tmp_path))
    ids = ours(ODD)
    assert ids.shape == (len(ODD), 77)
    assert ids.dtype == np.int64
    wanted = expected(model.tokenizer, ODD)
    assert not different(ids, wanted)
    assert (wanted[:, 0] == model.tokenizer.bos_token_id).all()
    assert len(np.unique(wanted, axis=0)) > 400  # the comparison is not between blanks


def test_parity_of_a_bundle(bundle_dir: Path, model: StableDiffusion) -> None:
    ours = tokenizer_of(Bundle.open(bundle_dir))
    assert not different(ours(ODD), expected(model.tokenizer, ODD))


def test_parity_with_the_padding_of_stable_diffusion_2(tmp_path: Path) -> None:
    theirs = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer", pad_token="!")
    ours = ClipTokenizer(definition(theirs, tmp_path), pad_token="!")
    ids = ours(ODD)
    assert not different(ids, expected(theirs, ODD))
    assert theirs.pad_token_id != theirs.eos_token_id
    assert (ours([""])[0, 2:] == theirs.pad_token_id).all()


@pytest.mark.parametrize("length", [2, 3, 16, 248])
def test_parity_at_other_lengths(theirs: CLIPTokenizer, length: int, tmp_path: Path) -> None:
    ours = ClipTokenizer(definition(theirs, tmp_path), length=length)
    assert ours.length == length
    assert not different(ours(ODD), expected(theirs, ODD, length))


@unhurried
@given(st.lists(st.text(max_size=200), min_size=1, max_size=5))
@example(["a\u0301", "\u00e1"])
@example(["\u1e9b\u0323", "\ufb01"])
def test_parity_on_any_text(ours: ClipTokenizer, theirs: CLIPTokenizer, prompts: list[str]) -> None:
    wanted = expected(theirs, prompts).reshape(len(prompts), 77)
    np.testing.assert_array_equal(ours(prompts), wanted)


def test_rows_do_not_depend_on_each_other(ours: ClipTokenizer) -> None:
    together = ours(ODD[:50])
    for text, row in zip(ODD[:50], together, strict=True):
        np.testing.assert_array_equal(ours([text])[0], row)


def test_no_prompts(ours: ClipTokenizer) -> None:
    ids = ours([])
    assert ids.shape == (0, 77)
    assert ids.dtype == np.int64


def test_what_does_not_fit_is_known(ours: ClipTokenizer, theirs: CLIPTokenizer) -> None:
    tokens = ours.encode(ODD)
    lengths = [len(ids) for ids in theirs(ODD).input_ids]  # with start and end, nothing cut
    assert tokens.truncated == tuple(length > 77 for length in lengths)
    assert {76, 77, 78, 79} <= set(lengths)
    assert {True, False} == set(tokens.truncated)
    np.testing.assert_array_equal(tokens.ids, ours(ODD))


def test_any_sequence_of_texts(ours: ClipTokenizer) -> None:
    np.testing.assert_array_equal(ours(("a", "b")), ours(["a", "b"]))


@pytest.mark.parametrize("text", ["\ud800", "cat \udcff", "\ude00\ud83d", "a" * 50 + "\udfff"])
def test_lone_surrogate(ours: ClipTokenizer, text: str) -> None:
    with pytest.raises(InputError, match=r"Prompt 1 is not valid Unicode.*Decode it"):
        ours(["fine", text])


@pytest.mark.parametrize("prompt", [None, 3, b"cat", ["cat"], Path("cat")])
def test_not_text(ours: ClipTokenizer, prompt: object) -> None:
    with pytest.raises(InputError, match=f"Prompt 1 is {type(prompt).__name__}, not str"):
        ours(["fine", prompt])  # type: ignore[list-item]


def test_one_text_instead_of_a_list(ours: ClipTokenizer) -> None:
    with pytest.raises(InputError, match=r"\[prompt\]"):
        ours("a cat")


def test_longest_prompt(ours: ClipTokenizer, theirs: CLIPTokenizer) -> None:
    longest = ("cat " * LONGEST_PROMPT)[:LONGEST_PROMPT]
    np.testing.assert_array_equal(ours([longest]), expected(theirs, [longest]))
    with pytest.raises(InputError, match=r"Prompt 0 has 100,001 characters.*Cut the prompt"):
        ours([longest + "s"])


def test_error_does_not_repeat_the_prompt(ours: ClipTokenizer) -> None:
    with pytest.raises(InputError) as caught:
        ours(["secret" * LONGEST_PROMPT])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"null", b"\xff\xfe", b"not json", b"[" * 10_000, b'{"version": "1.0"}'],
    ids=lambda content: repr(content[:8]),
)
def test_not_a_tokenizer(content: bytes) -> None:
    with pytest.raises(IntegrityError, match="is no tokenizer"):
        ClipTokenizer(content)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_tokenizer(theirs: CLIPTokenizer, tmp_path: Path, share: float) -> None:
    whole = definition(theirs, tmp_path)
    with pytest.raises(IntegrityError, match="is no tokenizer"):
        ClipTokenizer(whole[: int(share * len(whole))])


def test_other_tokenizer() -> None:
    other = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "cat": 1}, unk_token="<|endoftext|>"))
    with pytest.raises(IntegrityError, match="is no tokenizer of CLIP's kind"):
        ClipTokenizer(other.to_str().encode())


def test_unknown_padding(theirs: CLIPTokenizer, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is not CLIP's"):
        ClipTokenizer(definition(theirs, tmp_path), pad_token="<pad>")
