"""What a `tokenizer.json` of Gemma's kind may hold: see `tokenizer_json`.

The model is BPE over characters, spaces written as "▁" and unknown characters as their bytes. A
prompt is one word: it is cut where an added token stands, and nowhere else.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .tokenizer_json import File, Refused, check_merges, check_sizes, decoded

__all__ = ["checked"]

_MOST_BYTES = 64 * 2**20  # of a file
_MOST_TOKENS = 2**18  # in a vocabulary; Gemma 2's has 256,000
_MOST_MERGES = 2**20  # SentencePiece's tokens have several merges each

_Id = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class _Bpe(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="BPE"):
    vocab: dict[str, _Id]
    merges: list[tuple[str, str]]
    unk_token: str
    fuse_unk: Literal[True]
    byte_fallback: Literal[True]
    dropout: None = None
    continuing_subword_prefix: Literal[""] | None = None
    end_of_word_suffix: Literal[""] | None = None
    ignore_merges: Literal[False] = False


class _Space(msgspec.Struct, forbid_unknown_fields=True):
    String: Literal[" "]


class _Marks(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="Replace"):
    pattern: _Space
    content: Literal["▁"]


class _Split(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="Split"):
    """At spaces, of which there are none any more."""

    pattern: _Space
    behavior: Literal["MergedWithPrevious"]
    invert: Literal[False]


class _File(File, forbid_unknown_fields=True):
    normalizer: _Marks
    pre_tokenizer: _Split | None
    model: _Bpe


def checked(definition: bytes) -> bytes:
    """A `tokenizer.json` that may be parsed, without all that stands around a prompt's tokens.

    Args:
        definition: The contents of a file.

    Raises:
        Refused: it holds something else, or too much.
    """
    file = decoded(definition, _File, _MOST_BYTES)
    model = file.model
    check_sizes(model.vocab, (), file.added_tokens, _MOST_TOKENS)
    if len(model.merges) > _MOST_MERGES:
        raise Refused(f"it has {len(model.merges):,} merges; {_MOST_MERGES:,} are accepted")
    if model.unk_token not in model.vocab:
        raise Refused(f"its unk_token {model.unk_token!r:.80} is not in its vocabulary")
    check_merges(model.vocab, model.merges)
    return file.bare()
