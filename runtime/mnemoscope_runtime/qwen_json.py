"""What a `tokenizer.json` of Qwen2's kind may hold: see `tokenizer_json`.

The model is byte-level BPE, whose words are cut by Qwen2's own pattern.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .tokenizer_json import File, Refused, check_merges, check_sizes, decoded, spelled

__all__ = ["WORDS", "checked"]

_MOST_TOKENS = 2**18  # in a vocabulary, and merges; Qwen2's has 151,643

# Qwen2's own pattern (Yang et al. 2024), as transformers 5 writes it
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
_PRE_TOKENIZERS = tuple(
    spelled({"type": "Sequence", "pretokenizers": [
        _SPLIT,
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": trim, "use_regex": False},
    ]})
    for trim in (True, False)
)  # fmt: skip

_Id = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class _Bpe(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="BPE"):
    vocab: dict[str, _Id]
    merges: list[tuple[str, str]]
    unk_token: None = None
    dropout: None = None
    continuing_subword_prefix: Literal[""] | None = None
    end_of_word_suffix: Literal[""] | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


class _Nfc(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="NFC"):
    pass


class _File(File, forbid_unknown_fields=True):
    normalizer: _Nfc
    model: _Bpe


def checked(definition: bytes) -> bytes:
    """A `tokenizer.json` that may be parsed, without all that stands around a prompt's tokens.

    Args:
        definition: The contents of a file.

    Raises:
        Refused: it holds something else, or too much.
    """
    file = decoded(definition, _File)
    found = spelled(file.pre_tokenizer)
    if found not in _PRE_TOKENIZERS:
        raise Refused(f"its pre_tokenizer is another: {found.decode():.120}")
    model = file.model
    if model.fuse_unk or model.byte_fallback or model.ignore_merges:
        raise Refused("its model has an option that is not known")
    check_sizes(model.vocab, model.merges, file.added_tokens, _MOST_TOKENS)
    check_merges(model.vocab, model.merges)
    return file.bare()
