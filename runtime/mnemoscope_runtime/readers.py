"""Readers by the kind of their tokenizer, and those of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .bundle import Bundle
from .clip_tokenizer import ClipTokenizer
from .errors import IntegrityError
from .gemma_tokenizer import GemmaTokenizer
from .manifest import TokenizerKind, TokenizerRecord
from .qwen_tokenizer import QwenTokenizer
from .t5_tokenizer import T5Tokenizer
from .tokenizer import Reader, Tokenizer

__all__ = ["reader", "tokenizer_of"]


def _clip(definition: bytes, record: TokenizerRecord, origin: str) -> Reader:
    length, pad = record.length, record.pad_token
    return ClipTokenizer(definition, length=length, pad_token=pad, origin=origin)


def _t5(definition: bytes, record: TokenizerRecord, origin: str) -> Reader:
    return T5Tokenizer(definition, length=record.length, lowercase=record.lowercase, origin=origin)


def _qwen2(definition: bytes, record: TokenizerRecord, origin: str) -> Reader:
    return QwenTokenizer(
        definition,
        length=record.length,
        pad_token=record.pad_token,
        template=record.template or "{}",
        dropped=record.dropped,
        origin=origin,
    )


def _gemma(definition: bytes, record: TokenizerRecord, origin: str) -> Reader:
    return GemmaTokenizer(
        definition,
        length=record.length,
        pad_token=record.pad_token,
        template=record.template or "{}",
        lowercase=record.lowercase,
        origin=origin,
    )


_READERS: Mapping[TokenizerKind, Callable[[bytes, TokenizerRecord, str], Reader]] = {
    "clip": _clip,
    "t5": _t5,
    "qwen2": _qwen2,
    "gemma": _gemma,
}


def reader(definition: bytes, record: TokenizerRecord, origin: str) -> Reader:
    """What reads prompts with a `tokenizer.json`, which may be hostile.

    Args:
        definition: The contents of the file.
        record: How prompts become ids.
        origin: What errors call the file.

    Raises:
        IntegrityError: it is no tokenizer of that kind.
    """
    return _READERS[record.kind](definition, record, origin)


def tokenizer_of(bundle: Bundle) -> Tokenizer:
    """The tokenizer of a bundle, of all that its text encoders read.

    Raises:
        IntegrityError: one is damaged, or does not fit its text encoder.
    """
    manifest, found = bundle.manifest, []
    if manifest.tokenizer_2 is None and "pooled_embeds" in manifest.embeddings:
        raise IntegrityError(
            f"{bundle.path} holds one tokenizer for the two text encoders of Stable Diffusion "
            "XL, whose second one reads other ids where its padding token stands in a prompt. "
            "Export the model again with this version."
        )
    for name, record in manifest.tokenizers.items():
        file = f"{name}/tokenizer.json"
        found.append(reader(bundle.read(file), record, file))
        found[-1].check_rows(record.rows, f"{bundle.path / file}")
    lengths = [each.length for each in found if each.kind == ClipTokenizer.kind]
    if len(set(lengths)) > 1:
        raise IntegrityError(
            f"The tokenizers of {bundle.path} read {lengths[0]} tokens and {lengths[1]}: the "
            "network is told both side by side. Export the model again."
        )
    return Tokenizer(found)
