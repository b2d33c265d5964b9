"""What a `tokenizer.json` may hold: the library that parses it is not made for hostile files.

A regular expression may run for ever, a normalizer make gigabytes of a prompt, a name that is not
there stop the process. So each part has to be one that the family's tokenizers are made of, as a
whole and with its very patterns, and what can be counted has limits. The library is handed what was
checked, written anew: two parsers may read one text in two ways.

T5's are of another kind, a Unigram model: `unigram_json`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec

__all__ = [
    "CLIP",
    "FINAL_SIGMA",
    "LONGEST_TOKEN",
    "MOST_ADDED",
    "MOST_BYTES",
    "MOST_TOKENS",
    "UNSEEN",
    "WORDS",
    "WORDS_4",
    "Added",
    "File",
    "Parts",
    "Refused",
    "check_merges",
    "check_sizes",
    "checked",
    "decoded",
    "spelled",
]

MOST_BYTES = 16 * 2**20  # of a file; CLIP's has 4 MiB
MOST_TOKENS = 2**17  # in a vocabulary, and merges; CLIP's has 49,408
MOST_ADDED = 2**13  # tokens besides, as of textual inversion
LONGEST_TOKEN = 512  # bytes

# CLIP's own pattern (Radford et al. 2021), as transformers 5 writes it
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
# the same where case is ignored: of lower case that adds the long s, and a subscript iota is of
# no kind, since its capital is a letter
WORDS_4 = (
    WORDS.replace(r"\|s", r"\|[s\x{17F}]")
    .replace("'s", r"'[s\x{17F}]")
    .replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{N}\x{345}]")
)
UNSEEN = r"[\x{FFFD}[\p{C}&&[^\t\n\r]]]"  # transformers 4's BasicTokenizer._clean_text
# where Python's str.lower writes a final sigma; possessive, so that its time is that of the text
FINAL_SIGMA = (
    r"[\p{Cased}&&[^\p{Case_Ignorable}]]\p{Case_Ignorable}*+\KΣ"
    r"(?!\p{Case_Ignorable}*+\p{Cased})"
)


class Refused(Exception):
    """A file holds what no tokenizer of the family does; says what."""


@dataclass(frozen=True)
class Parts:
    """What the tokenizers of a family are made of: each part is one of these values of JSON.

    Attributes:
        normalizers: What they may make of a text first.
        pre_tokenizers: How they may cut it into words.
        decoders: How they may make text of tokens again.
    """

    normalizers: tuple[dict[str, Any], ...]
    pre_tokenizers: tuple[dict[str, Any], ...]
    decoders: tuple[dict[str, Any], ...]


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _normalizers(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(parts)}


def _words(pattern: str, use_regex: bool) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    spaces = {"add_prefix_space": False, "trim_offsets": True}
    to_bytes = {"type": "ByteLevel", **spaces, "use_regex": use_regex}
    return {"type": "Sequence", "pretokenizers": [split, to_bytes]}


_NFC, _LOWER, _SPACES = {"type": "NFC"}, {"type": "Lowercase"}, _replace(r"\s+", " ")
_CHINESE = {
    "type": "BertNormalizer",
    "clean_text": False,
    "handle_chinese_chars": True,
    "strip_accents": False,
    "lowercase": False,
}
CLIP = Parts(
    normalizers=(
        _normalizers(_NFC, _SPACES, _LOWER),  # of transformers 5; then of 4
        _normalizers(
            _replace(UNSEEN, ""), _CHINESE, _NFC, _SPACES, _replace(FINAL_SIGMA, "ς"), _LOWER
        ),
    ),
    pre_tokenizers=(_words(WORDS, True), _words(WORDS_4, False)),
    decoders=(
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    ),
)

_Id = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class _Bpe(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="BPE"):
    vocab: dict[str, _Id]
    merges: list[tuple[str, str]]
    unk_token: str
    dropout: None
    continuing_subword_prefix: Literal[""]
    end_of_word_suffix: Literal["</w>"]
    fuse_unk: bool
    byte_fallback: bool
    ignore_merges: bool


class Added(msgspec.Struct, forbid_unknown_fields=True):
    """A token beside the vocabulary."""

    id: _Id
    content: Annotated[str, msgspec.Meta(min_length=1)]
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class _Ends(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="RobertaProcessing"):
    sep: tuple[str, _Id]
    cls: tuple[str, _Id]
    trim_offsets: bool
    add_prefix_space: bool


class File(msgspec.Struct, forbid_unknown_fields=True):
    """All that a file holds; each kind has a model of its own, and parts."""

    version: Literal["1.0"]
    truncation: Any
    padding: Any
    added_tokens: list[Added]
    normalizer: Any
    pre_tokenizer: Any
    post_processor: Any
    decoder: Any
    model: Any

    def bare(self) -> bytes:
        """The file without all that stands around a prompt's tokens, and what makes text of them.

        Those of a bundle stand in its manifest.
        """
        self.truncation = self.padding = self.post_processor = self.decoder = None
        return msgspec.json.encode(self)


class _File(File, forbid_unknown_fields=True):
    post_processor: _Ends
    model: _Bpe


Kind = TypeVar("Kind", bound=File)


def decoded(definition: bytes, kind: type[Kind], most_bytes: int = MOST_BYTES) -> Kind:
    """A file of a kind.

    Args:
        definition: Its contents.
        kind: What it may hold.
        most_bytes: How many there may be.

    Raises:
        Refused: it holds something else, or too much.
    """
    if len(definition) > most_bytes:
        raise Refused(f"it has {len(definition):,} bytes; {most_bytes:,} are accepted")
    try:
        return msgspec.json.decode(definition, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"{error}") from None


def checked(definition: bytes, parts: Parts = CLIP) -> bytes:
    """A `tokenizer.json` that may be parsed, without its truncation and padding.

    Args:
        definition: The contents of a file.
        parts: What its tokenizer may be made of.

    Raises:
        Refused: it holds something else, or too much.
    """
    file = decoded(definition, _File)
    for name, known in (
        ("normalizer", parts.normalizers),
        ("pre_tokenizer", parts.pre_tokenizers),
        ("decoder", parts.decoders),
    ):
        found = spelled(getattr(file, name))
        if found not in map(spelled, known):
            raise Refused(f"its {name} is another: {found.decode():.120}")
    model = file.model
    if model.fuse_unk or model.byte_fallback or model.ignore_merges:
        raise Refused("its model has an option that is not known")
    if file.post_processor.trim_offsets or file.post_processor.add_prefix_space:
        raise Refused("its post_processor has an option that is not known")
    check_sizes(model.vocab, model.merges, file.added_tokens)
    if model.unk_token not in model.vocab:
        raise Refused(f"its unk_token {model.unk_token!r:.80} is not in its vocabulary")
    check_merges(model.vocab, model.merges)
    file.truncation = file.padding = None  # those of a bundle stand in its manifest
    return msgspec.json.encode(file)


def check_sizes(
    vocab: Collection[str],
    merges: Collection[object],
    added: Collection[Added],
    most_tokens: int = MOST_TOKENS,
) -> None:
    """Make sure that there is not too much of anything.

    Raises:
        Refused: there is.
    """
    for count, most, what in (
        (len(vocab), most_tokens, "tokens"),
        (len(merges), most_tokens, "merges"),
        (len(added), MOST_ADDED, "added tokens"),
    ):
        if count > most:
            raise Refused(f"it has {count:,} {what}; {most:,} are accepted")
    for text in (*vocab, *(token.content for token in added)):
        if len(text.encode()) > LONGEST_TOKEN:
            raise Refused(f"its token {text!r:.40} has more than {LONGEST_TOKEN} bytes")


def check_merges(vocab: Collection[str], merges: Iterable[tuple[str, str]]) -> None:
    """Make sure that merges are of tokens that there are: the library panics at some.

    Raises:
        Refused: one is not.
    """
    for first, second in merges:
        if not (first in vocab and second in vocab and first + second in vocab):
            raise Refused(f"its merge {[first, second]!s:.80} is of tokens that it does not have")


def spelled(value: Any) -> bytes:
    """JSON by which values compare as JSON: 1 is not true.

    Raises:
        Refused: there is too much within each other.
    """
    try:
        return msgspec.json.encode(value, order="sorted")
    except RecursionError as error:
        raise Refused(f"{error}") from None
