"""What a `tokenizer.json` of T5's kind may hold: see `tokenizer_json`.

The model is SentencePiece's Unigram: pieces with scores, of which the best sequence is taken.
Before that a table of SentencePiece's spells characters anew (`precompiled_charsmap`). Which one
depends on SentencePiece's version: what is checked is that no table can do harm (`charsmap`).
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

import msgspec

from .charsmap import check_charsmap
from .tokenizer_json import File, Refused, check_sizes, decoded

__all__ = ["checked"]

_Score = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]


class _Unigram(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="Unigram"):
    unk_id: Annotated[int, msgspec.Meta(ge=0)]
    vocab: list[tuple[str, _Score]]
    byte_fallback: bool = False


class _Spelling(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="Precompiled"):
    precompiled_charsmap: str


class _Spaces(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="WhitespaceSplit"):
    pass


class _Marks(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="Metaspace"):
    replacement: Literal["▁"]
    prepend_scheme: Literal["always"] = "always"
    split: bool = True
    add_prefix_space: bool = True  # as older versions of the library write it


class _Words(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="Sequence"):
    pretokenizers: tuple[_Spaces, _Marks]


class _File(File, forbid_unknown_fields=True):
    normalizer: _Spelling | None
    pre_tokenizer: _Words
    model: _Unigram


def checked(definition: bytes) -> bytes:
    """A `tokenizer.json` that may be parsed, without all that stands around a prompt's tokens.

    Args:
        definition: The contents of a file.

    Raises:
        Refused: it holds something else, or too much.
    """
    file = decoded(definition, _File)
    marks = file.pre_tokenizer.pretokenizers[1]
    if not (marks.split and marks.add_prefix_space) or file.model.byte_fallback:
        raise Refused("its model or its pre_tokenizer has an option that is not known")
    _check_pieces(file)
    if file.normalizer is not None:
        try:
            table = base64.b64decode(file.normalizer.precompiled_charsmap, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused(f"its precompiled_charsmap is no base64: {error}") from None
        check_charsmap(table)
    marks.add_prefix_space = True
    return file.bare()


def _check_pieces(file: _File) -> None:
    pieces = file.model.vocab
    texts = [text for text, _ in pieces]
    check_sizes(texts, (), file.added_tokens)
    if file.model.unk_id >= len(pieces):
        raise Refused(f"its unk_id {file.model.unk_id} is not in its vocabulary")
    if "" in texts or len(set(texts)) < len(texts):
        raise Refused("its vocabulary has a token twice, or one without text")
