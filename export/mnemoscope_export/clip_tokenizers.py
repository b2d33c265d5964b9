"""CLIP's tokenizer from its files, as transformers 4 and 5 read them; without transformers.

Both take vocabulary, merges and special tokens from the same files, but make other things of text.
The CLIPTokenizer of transformers 5 does what the fast one always did: NFC, lower case, CLIP's
pattern. That of transformers 4 is written in Python and works, without ftfy, through a
BasicTokenizer: characters that show nothing (categories C*) are dropped, CJK characters stand
alone, a sigma at the end of a word is a final one, and added tokens match as they are spelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models
from tokenizers import normalizers as norm
from tokenizers import pre_tokenizers as pre
from tokenizers import processors as post

from mnemoscope_runtime.errors import ExportError
from mnemoscope_runtime.manifest import Follows
from mnemoscope_runtime.reading import read_file
from mnemoscope_runtime.tokenizer_json import FINAL_SIGMA, MOST_BYTES, UNSEEN, WORDS, WORDS_4

__all__ = ["CHECKED", "ClipFiles", "clip_tokenizer"]

# whose CLIPTokenizer gave the same ids for the odd prompts of the tests
CHECKED: dict[Follows, str] = {"transformers-4": "4.57.6", "transformers-5": "5.23.0"}

_START, _END = "<|startoftext|>", "<|endoftext|>"
_SPECIAL = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
_OTHERS = ("sep_token", "cls_token", "mask_token")
_MERGES = 49152 - 256 - 2  # of CLIP's file; transformers 4 reads no more


@dataclass(frozen=True)
class ClipFiles:
    """What the files of a CLIP tokenizer say.

    Attributes:
        vocab: Id of each token.
        merges: Pairs, the first to be merged first.
        special: Start, end, unknown, padding and others, by their names in the config.
        added: Tokens that were added, by id.
        more: Special tokens besides.
        longest: `model_max_length`; None where there is none.
    """

    vocab: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    special: Mapping[str, AddedToken | str]
    added: Mapping[int, AddedToken] = field(default_factory=dict)
    more: tuple[AddedToken | str, ...] = ()
    longest: int | None = None

    @property
    def pad_token(self) -> str:
        """What short prompts are filled up with."""
        return _content(self.special["pad_token"])

    @classmethod
    def read(cls, folder: Path, follows: Follows) -> ClipFiles:
        """Read a folder in any layout that transformers reads.

        Vocabulary and merges come from `vocab.json` and `merges.txt` or, with transformers 5, from
        `tokenizer.json` where there is one. Added tokens come from `added_tokens_decoder` in
        `tokenizer_config.json`; without it from `added_tokens.json` and `tokenizer.json`, and then
        what `special_tokens_map.json` says goes before the config.

        Raises:
            ExportError: a file is missing or damaged.
        """
        ready = folder / "tokenizer.json"
        definition = _read(ready) if ready.is_file() else {}
        config: dict[str, Any] = {
            name: _added(value) if _is_token(value) else value
            for name, value in _read(folder / "tokenizer_config.json", {}).items()
        }
        if definition and follows == "transformers-5":
            model = definition.get("model", {})
            vocab, merges = model.get("vocab"), model.get("merges")
        else:
            vocab, merges = _read(folder / "vocab.json"), _merges(folder / "merges.txt")
        if follows == "transformers-4":
            merges = merges[:_MERGES]
        added: dict[int, AddedToken] = {}
        if "added_tokens_decoder" in config:
            given = config["added_tokens_decoder"]
            added = {int(id): _added(token) for id, token in given.items()}
        else:
            config |= {
                name: _added(token, special=True) if _is_token(token) else token
                for name, token in _read(folder / "special_tokens_map.json", {}).items()
            }
            named = {_content(config[name]) for name in (*_SPECIAL, *_OTHERS) if config.get(name)}
            named |= {_content(token) for token in _more(config)}
            for text, id in _read(folder / "added_tokens.json", {}).items():
                is_special = text in named
                added[id] = AddedToken(text, normalized=not is_special, special=is_special)
            for token in definition.get("added_tokens", []):
                added[token["id"]] = _added({k: v for k, v in token.items() if k != "id"})
        by_text = {token.content: token for token in added.values()}
        special = {
            name: _flagged(token, by_text)
            for name in (*_SPECIAL, *_OTHERS)
            if (token := config.get(name) or _SPECIAL.get(name))
        }
        longest = config.get("model_max_length")
        return cls(
            {str(text): int(id) for text, id in dict(vocab).items()},
            tuple((str(a), str(b)) for a, b in _pairs(merges)),
            special,
            added,
            tuple(_flagged(token, by_text) for token in _more(config)),
            int(longest) if longest is not None and longest < 2**16 else None,
        )


def clip_tokenizer(files: ClipFiles, follows: Follows) -> bytes:
    """The `tokenizer.json` that gives the ids of transformers' CLIPTokenizer.

    Raises:
        ExportError: there are tokens whose ids or flags cannot be had.
    """
    old = follows == "transformers-4"
    vocab = dict(files.vocab)
    if old:  # ids are those of the files, holes or not
        vocab |= {token.content: id for id, token in sorted(files.added.items())}
    tokenizer = Tokenizer(
        models.BPE(
            vocab,
            list(files.merges),
            unk_token=_content(files.special["unk_token"]),
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
        )
    )
    split = pre.Split(Regex(WORDS_4 if old else WORDS), "removed", invert=True)
    # GPT-2's pattern, which parts no word of CLIP's but `<|endoftext|>`, is transformers 5's alone
    to_bytes = pre.ByteLevel(add_prefix_space=False, use_regex=not old)
    tokenizer.pre_tokenizer = pre.Sequence([split, to_bytes])
    spaces = norm.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = norm.Sequence(
        [*_basic(), norm.NFC(), spaces, norm.Replace(Regex(FINAL_SIGMA), "ς"), norm.Lowercase()]
        if old
        else [norm.NFC(), spaces, norm.Lowercase()]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([_exact(token) if old else token for token in _to_add(files)])
    for id, token in files.added.items():
        if tokenizer.token_to_id(token.content) != id:
            raise ExportError(
                f"The tokenizer's files give {token.content!r} the id {id}, but transformers 5 "
                f"reads it as {tokenizer.token_to_id(token.content)}: the ids before it have "
                "holes. Save the tokenizer again with the transformers that your pipeline runs on."
            )
    ends = (_content(files.special[name]) for name in ("eos_token", "bos_token"))
    end, start = ((text, _id(tokenizer, text)) for text in ends)
    tokenizer.post_processor = post.RobertaProcessing(
        end, start, add_prefix_space=False, trim_offsets=False
    )
    definition = tokenizer.to_str(pretty=True)
    return (_with_spelled_ends(definition, tokenizer) if old else definition).encode()


def _basic() -> list[norm.Normalizer]:
    """transformers 4's BasicTokenizer up to NFC: unseen characters, then CJK."""
    chinese = norm.BertNormalizer(
        clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    return [norm.Replace(Regex(UNSEEN), ""), chinese]


def _to_add(files: ClipFiles) -> list[AddedToken]:
    """Added tokens by id, then special ones that are none of them, as transformers orders them.

    The same text may come twice, as a token with flags and as a string: the last one counts.
    """
    named = {_content(token) for token in files.special.values()}
    found: list[AddedToken | str] = []
    for _, token in sorted(files.added.items()):
        token.special = token.special or token.content in named
        found.append(token)
    known = {_content(token) for token in found}
    order = ("bos_token", "eos_token", "unk_token", *_OTHERS[:1], "pad_token", *_OTHERS[1:])
    for each in (*(files.special[n] for n in order if n in files.special), *files.more):
        if _content(each) not in known and each not in found:
            found.append(each)
    return [AddedToken(t, special=True) if isinstance(t, str) else t for t in found]


def _exact(token: AddedToken) -> AddedToken:
    """The token as transformers 4 finds it: as it is spelled, before anything is normalized."""
    if token.single_word:
        raise ExportError(
            f"{token.content!r} is an added token that stands alone (single_word), which "
            "transformers 4 and bundles take differently. Save the tokenizer without that flag."
        )
    # spaces beside it are no tokens, so whether it takes them changes nothing
    return AddedToken(token.content, normalized=False, special=token.special)


def _with_spelled_ends(definition: str, tokenizer: Tokenizer) -> str:
    """Let `<|ENDOFTEXT|>` be the end itself: transformers 4 looks its lower case up in a cache.

    The pattern takes such a spelling for one word, and no other word holds punctuation beside a
    letter. So merges of such pieces, behind all others, concern no other word.
    """
    fields = json.loads(definition)
    model = fields["model"]
    # or they would get new ids, behind those that are written here, when this is read
    model["vocab"] |= {token["content"]: token["id"] for token in fields["added_tokens"]}
    for text in (_START, _END):
        parts = [piece.value for piece in tokenizer.model.tokenize(text)]
        first = next(k for k, part in enumerate(parts) if part[0].isalpha())
        joined, left = parts[first - 1], parts[: first - 1]
        pairs = [("right", part) for part in parts[first:]]
        pairs += [("left", part) for part in reversed(left)]
        for side, part in pairs:
            pair = [joined, part] if side == "right" else [part, joined]
            joined = "".join(pair)
            model["vocab"].setdefault(joined, _id(tokenizer, text))
            model["merges"].append(pair)
    return json.dumps(fields, ensure_ascii=False, indent=2)


def _more(config: Mapping[str, Any]) -> list[AddedToken | str]:
    """Special tokens without a place of their own, under the names of both versions."""
    found = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    given = found.values() if isinstance(found, dict) else found
    own = [
        token
        for name, token in config.items()
        if name.endswith("_token") and name not in (*_SPECIAL, *_OTHERS) and isinstance(token, str)
    ]
    return [_added(token, special=True) if _is_token(token) else token for token in (*own, *given)]


def _flagged(token: AddedToken | str, known: Mapping[str, AddedToken]) -> AddedToken | str:
    return known.get(_content(token), token)


def _is_token(value: object) -> bool:
    return isinstance(value, dict) and "content" in value


def _added(fields: Mapping[str, Any], **more: bool) -> AddedToken:
    names = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(**{name: fields[name] for name in names if name in fields} | more)


def _content(token: AddedToken | str) -> str:
    return token if isinstance(token, str) else str(token.content)


def _id(tokenizer: Tokenizer, text: str) -> int:
    found = tokenizer.token_to_id(text)
    assert found is not None
    return int(found)


def _pairs(merges: Any) -> Iterator[tuple[str, str]]:
    for merge in merges:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        yield first, second


def _merges(path: Path) -> list[str]:
    try:
        lines = read_file(path, MOST_BYTES).decode().strip().split("\n")
    except (OSError, ValueError) as error:
        raise ExportError(_unreadable(path, error)) from None
    return lines[1:]  # the first is a version


def _read(path: Path, default: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    if default is not None and not path.exists():
        return default
    try:
        found = json.loads(read_file(path, MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(_unreadable(path, error)) from None
    if not isinstance(found, dict):
        raise ExportError(_unreadable(path, "no object"))
    return found


def _unreadable(path: Path, why: object) -> str:
    return (
        f"{path} cannot be read: {why}. A tokenizer needs tokenizer.json, or vocab.json and "
        "merges.txt, of a CLIP tokenizer."
    )
