"""Readers side by side, each against transformers' own tokenizer."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from t5_tokenizers import t5_tokenizer
from transformers import CLIPTokenizer

from mnemoscope import embedded
from mnemoscope_runtime import ClipTokenizer, InputError, IntegrityError
from mnemoscope_runtime.t5_tokenizer import T5Tokenizer
from mnemoscope_runtime.tokenizer import Tokenizer

LENGTHS = (77, 101, 101)
FITS, CLIPPED, CUT = "a cat", "word " * 90, "word " * 120
LOUD = "WORD " * 90  # more tokens than CLIPPED where its case is kept
PROMPTS = ["", FITS, CLIPPED, CUT, LOUD]


@pytest.fixture(scope="module")
def theirs() -> list[Any]:
    return [CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer"), t5_tokenizer()]


@pytest.fixture(scope="module")
def ours(theirs: list[Any]) -> Tokenizer:
    """CLIP's, T5's, and T5's of prompts in lower case."""
    clip, t5 = (each.backend_tokenizer.to_str().encode() for each in theirs)
    kept, lower = (
        T5Tokenizer(t5, length=101, lowercase=lowercase, origin="tokenizer_2/tokenizer.json")
        for lowercase in (False, True)
    )
    return Tokenizer([ClipTokenizer(clip), kept, lower])


def whole(theirs: list[Any], prompts: list[str]) -> list[list[list[int]]]:
    """All that each of transformers' tokenizers reads of each prompt."""
    clip, t5 = theirs
    lower = [prompt.lower().strip() for prompt in prompts]
    return [clip(prompts).input_ids, t5(prompts).input_ids, t5(lower).input_ids]


def cut(theirs: list[Any], prompts: list[str]) -> NDArray[np.int64]:
    """The same as pipelines have it, cut and filled up, side by side."""
    clip, t5 = theirs
    lower = [prompt.lower().strip() for prompt in prompts]
    parts = zip((clip, t5, t5), (prompts, prompts, lower), LENGTHS, strict=True)
    options = {"padding": "max_length", "truncation": True}
    return np.hstack([each(texts, max_length=n, **options).input_ids for each, texts, n in parts])


def test_ids_stand_side_by_side(ours: Tokenizer, theirs: list[Any]) -> None:
    wanted = cut(theirs, PROMPTS)
    tokens = ours.encode(PROMPTS)
    np.testing.assert_array_equal(tokens.ids, wanted)
    assert tokens.ids.dtype == np.int64
    np.testing.assert_array_equal(ours.empty, wanted[:1])
    assert ours.length == 77
    some = tokens.rows([3, 1])
    np.testing.assert_array_equal(some.ids, wanted[[3, 1]])
    assert some.truncated == (True, False)


def test_truncated_is_what_one_of_the_longest_has_not_read(
    ours: Tokenizer, theirs: list[Any]
) -> None:
    clip, kept, lower = ([len(ids) for ids in each] for each in whole(theirs, PROMPTS))
    assert clip[2] > 77
    assert kept[2] <= 101
    assert kept[4] > 101 >= lower[4]
    assert ours.encode(PROMPTS).truncated == (False, False, False, True, True)
    assert ours.cut_at == 100


def test_a_prompt_that_just_fits_is_whole(ours: Tokenizer) -> None:
    assert ours.encode(["word " * 100, "word " * 101]).truncated == (False, True)


@pytest.mark.parametrize("readers", [1, 3])
def test_prompts_are_told_apart_as_transformers_tells_them(
    ours: Tokenizer, theirs: list[Any], readers: int
) -> None:
    """CLIP folds case and spaces, T5 does not; what is behind the cut nobody reads."""
    some, width = Tokenizer(ours.readers[:readers]), sum(LENGTHS[:readers])
    texts = ["a cat", "A Cat", "a  cat", " a cat", "a cat ", "a cat\n", "a dog", "", " "]
    texts += [CLIPPED, CUT, CUT + "dog", "word " * 75, "word " * 75 + "dog", LOUD]
    wanted = [row.tobytes() for row in cut(theirs, texts)[:, :width]]
    found = some.digests(texts)
    assert [[a == b for b in found] for a in found] == [[a == b for b in wanted] for a in wanted]
    assert 1 < len(set(found)) < len(texts)
    first = [text for k, text in enumerate(texts) if wanted.index(wanted[k]) == k]
    assert some.distinct(texts) == first
    assert pickle.loads(pickle.dumps(some)).digests(texts) == found  # as a cluster's driver has it


def test_ids_are_taken_as_texts_are(ours: Tokenizer) -> None:
    tokens = ours.encode(PROMPTS)
    assert ours(tokens.ids) is tokens.ids
    for given in (PROMPTS, tokens, tokens.ids.copy()):
        np.testing.assert_array_equal(ours(given), tokens.ids)
    assert ours(tokens.ids[:0]).shape == (0, 279)


@pytest.mark.parametrize("place", [0, 76, 77, 177, 178, 278])
def test_ids_that_no_text_encoder_knows(ours: Tokenizer, theirs: list[Any], place: int) -> None:
    known = len(theirs[0]) if place < 77 else len(theirs[1])
    ids = np.zeros((2, 279), np.int64)
    ids[1, place] = known - 1
    assert ours(ids) is ids
    for bad in (known, -1, 2**63 - 1, -(2**63)):
        ids[1, place] = bad
        with pytest.raises(InputError, match=f"beyond the {known} that a text encoder knows"):
            ours(ids)


@pytest.mark.parametrize(
    "ids",
    [
        np.zeros((1, 279), np.int32),
        np.zeros((1, 279)),
        np.zeros(279, np.int64),
        np.zeros((1, 279, 1), np.int64),
        np.zeros((1, 77), np.int64),
        np.zeros((279, 1), np.int64),
    ],
    ids=lambda ids: f"{ids.dtype}-{ids.ndim}-{ids.shape[-1]}",
)
def test_ids_of_another_shape(ours: Tokenizer, ids: Any) -> None:
    with pytest.raises(InputError, match=r"int64 \[prompts, 279\], not as"):
        ours(ids)


@pytest.mark.parametrize("prompts", ["a cat", iter(["a cat"]), ["fine", 1], ["fine", "\ud800"]])
def test_what_is_no_list_of_texts(ours: Tokenizer, prompts: Any) -> None:
    ours.check(PROMPTS)
    with pytest.raises(InputError):
        ours.check(prompts)


def test_pieces_are_the_first_readers(ours: Tokenizer, theirs: list[Any]) -> None:
    for prompt in PROMPTS:
        pieces = ours.pieces(prompt)
        [ids] = theirs[0]([prompt], padding="max_length", truncation=True, max_length=77).input_ids
        assert [piece.text for piece in pieces] == theirs[0].convert_ids_to_tokens(ids)
        for piece in pieces:
            spelled = piece.text.removesuffix("</w>")
            assert piece.span is None or prompt[slice(*piece.span)].lower() == spelled
        spans = [piece.span for piece in pieces]
        assert spans[0] is None
        assert spans[-1] is None
    with pytest.raises(InputError, match="Prompt 0 is not valid Unicode"):
        ours.pieces("\ud800")


@pytest.mark.parametrize(
    ("count", "chunks"), [(0, 1), (1, 1), (50, 1), (51, 2), (120, 3), (150, 3)]
)
def test_chunks_hold_all_of_a_prompt(
    ours: Tokenizer, theirs: list[Any], count: int, chunks: int
) -> None:
    """75 words fit for CLIP, which reads each as one token, and 50 for T5, of two."""
    words = [*"aegh" * 40][:count]
    assert all(len(each(word).input_ids) == 3 for each in theirs for word in "aegh")
    by_75, by_50 = ([" ".join(words[k * n :][:n]) for k in range(chunks)] for n in (75, 50))
    found = ours.chunks(" ".join(words))
    np.testing.assert_array_equal(found[:, :77], cut(theirs, by_75)[:, :77])
    np.testing.assert_array_equal(found[:, 77:], cut(theirs, by_50)[:, 77:])


def test_too_many_chunks(ours: Tokenizer) -> None:
    assert ours.chunks("a " * 50 * 32).shape == (32, 279)
    with pytest.raises(InputError, match=r"Prompt 0 is read in 33 chunks.*; 32 are accepted"):
        ours.chunks("a " * (50 * 32 + 1))


def test_tokens_without_an_embedding(ours: Tokenizer, theirs: list[Any]) -> None:
    rows = len(theirs[0])
    ours.first.check_rows(None, "it")
    ours.first.check_rows(rows, "it")
    first = theirs[0].convert_ids_to_tokens(rows - 3)
    with pytest.raises(IntegrityError, match="it has 3 tokens beyond") as caught:
        ours.first.check_rows(rows - 3, "it")
    assert f"{first!r} (id {rows - 3}) the first" in str(caught.value)
