"""The tokenizers of a bundle: what is written, and what the manifest says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import Unigram

from mnemoscope_runtime.errors import BundleError, ExportError
from mnemoscope_runtime.manifest import Follows, TokenizerKind, TokenizerRecord
from mnemoscope_runtime.readers import reader
from mnemoscope_runtime.tokenizer import Reader

from .clip_tokenizers import CHECKED, ClipFiles, clip_tokenizer

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

__all__ = ["BundleTokenizer", "bundle_tokenizer"]


_NAMES: Mapping[TokenizerKind, str] = {"t5": "T5", "qwen2": "Qwen2", "gemma": "Gemma"}


@dataclass(frozen=True)
class BundleTokenizer:
    """A tokenizer as a bundle holds it.

    Attributes:
        definition: The contents of its `tokenizer.json`.
        record: How prompts become ids.
    """

    definition: bytes
    record: TokenizerRecord

    @classmethod
    def from_files(
        cls, folder: Path, *, longest: int, follows: Follows | None = None
    ) -> BundleTokenizer:
        """Read the files of a pipeline that runs on ONNX Runtime.

        Args:
            folder: Of the tokenizer.
            longest: How many ids the text encoder reads.
            follows: Whose ids; by default transformers 4's, which Optimum needs, where there is
                what its CLIPTokenizer reads (`vocab.json` and `merges.txt`), and else 5's.

        Raises:
            ExportError: the tokenizer cannot be used.
        """
        slow = all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))
        follows = follows or ("transformers-4" if slow else "transformers-5")

        def make() -> BundleTokenizer:
            files = ClipFiles.read(folder, follows)
            record = TokenizerRecord(
                min(files.longest or longest, longest),
                files.pad_token,
                follows=follows,
                version=CHECKED[follows],
            )
            return cls(clip_tokenizer(files, follows), record)

        return _usable(make, str(folder))

    @classmethod
    def from_transformers(
        cls, tokenizer: CLIPTokenizer, rows: int, follows: Follows | None = None
    ) -> BundleTokenizer:
        """Take over a tokenizer of transformers 5.

        Args:
            tokenizer: The pipeline's.
            rows: How many embeddings its text encoder has.
            follows: Whose ids; by default its own.

        Raises:
            ExportError: it cannot be used, or has tokens without an embedding.
        """

        def make() -> BundleTokenizer:
            definition = _definition(tokenizer)
            record = TokenizerRecord(
                tokenizer.model_max_length,
                str(tokenizer.pad_token),
                follows=follows or "transformers-5",
                version=CHECKED[follows]
                if follows == "transformers-4"
                else version("transformers"),
            )
            if record.follows == "transformers-4":
                definition = clip_tokenizer(_files(tokenizer, definition), record.follows)
            return cls(definition, record)

        return _usable(make, str(tokenizer.name_or_path)).fitting(rows)

    def fitting(self, rows: int | None) -> Self:
        """The same for a text encoder of so many embeddings.

        Raises:
            ExportError: there are tokens without one.
        """
        try:
            self.reader().check_rows(rows, "The tokenizer")
        except BundleError as error:
            raise ExportError(str(error)) from None
        return replace(self, record=replace(self.record, rows=rows))

    def reader(self) -> Reader:
        """The tokenizer as the runtime uses it."""
        return reader(self.definition, self.record, "tokenizer.json")

    def write(self, folder: Path) -> None:
        """Write it into a folder of its own, without configs: they record how it was loaded."""
        folder.mkdir()
        (folder / "tokenizer.json").write_bytes(self.definition)


def bundle_tokenizer(
    tokenizer: Any,
    rows: int,
    follows: Follows | None,
    reading: Mapping[str, Any] = MappingProxyType({}),
) -> BundleTokenizer:
    """A tokenizer of transformers 5, of any kind.

    Args:
        tokenizer: The pipeline's; it makes `model_max_length` ids.
        rows: How many embeddings its text encoder has.
        follows: Whose ids; by default its own.
        reading: What else the record says.

    Raises:
        ExportError: it cannot be used, or has tokens without an embedding.
    """
    kind = _kind(tokenizer)
    if kind == "clip":
        return BundleTokenizer.from_transformers(tokenizer, rows, follows)
    if follows == "transformers-4":
        raise ExportError(
            f"{_NAMES[kind]}'s ids are those of transformers 5, and nobody has compared them with "
            "those of 4. Leave --tokenizer (in Python `tokenizer`) out."
        )

    def make() -> BundleTokenizer:
        length, pad = tokenizer.model_max_length, str(tokenizer.pad_token)
        record = TokenizerRecord(length, pad, version=version("transformers"), kind=kind)
        return BundleTokenizer(_definition(tokenizer), replace(record, **reading))

    return _usable(make, str(tokenizer.name_or_path)).fitting(rows)


def _kind(tokenizer: Any) -> TokenizerKind:
    """By what it is made of: CLIP's words have an end of their own."""
    model = tokenizer.backend_tokenizer.model
    if isinstance(model, Unigram):
        return "t5"
    if model.end_of_word_suffix:
        return "clip"
    return "gemma" if model.byte_fallback else "qwen2"


def _definition(tokenizer: Any) -> bytes:
    """Its `tokenizer.json`, without how its last call cut and padded: the record says that."""
    own: Tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.no_truncation()
    own.no_padding()
    return own.to_str(pretty=True).encode()


def _files(tokenizer: CLIPTokenizer, definition: bytes) -> ClipFiles:
    """What the files of a tokenizer of transformers say, taken from itself."""
    fields = json.loads(definition)
    model = fields["model"]
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    return ClipFiles(
        model["vocab"],
        tuple((first, second) for first, second in model["merges"]),
        {name: str(getattr(tokenizer, name)) for name in names},
        {
            token["id"]: AddedToken(
                token["content"], single_word=token["single_word"], special=token["special"]
            )
            for token in fields["added_tokens"]
        },
    )


def _usable(make: Callable[[], BundleTokenizer], origin: str) -> BundleTokenizer:
    try:
        found = make()
        found.reader()
        return found
    except ExportError:
        raise
    except BundleError as error:
        raise ExportError(f"The tokenizer in {origin} cannot be used: {error}") from None
    except Exception as error:  # tokenizers raises bare Exception
        raise ExportError(
            f"The tokenizer in {origin} cannot be used: {error}. It needs tokenizer.json, or "
            "vocab.json and merges.txt, of a CLIP tokenizer."
        ) from None
