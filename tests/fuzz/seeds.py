"""Files that have not been changed yet, and folders to put changed ones into."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import onnx
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram

from mnemoscope import Calibration, First, Gate, Setting, embedded
from mnemoscope.calibration import Carried
from mnemoscope.detectors import Fit
from mnemoscope.signing import make_keys, private_key, sign
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.qwen_json import WORDS

from ..support.attack_support import plant
from ..support.calibrations import SETTING, again, made
from ..support.charsmaps import charsmap

__all__ = [
    "bpe_file",
    "calibrations",
    "light",
    "one_row",
    "prompt_files",
    "signed_file",
    "unigram_file",
]


def light(folder: Path) -> Path:
    """The shipped bundle with a page of weights."""
    path = folder / "bundle"
    shutil.copytree(embedded.BUNDLE, path, ignore=shutil.ignore_patterns("model.weights"))
    content = bytes(4096)
    (path / "model.weights").write_bytes(content)
    plant(path, "model.weights", content)
    return path


def calibrations() -> tuple[Calibration, ...]:
    """A plain one, one that learned, a cascade, and one that was carried over."""
    fit, plain = Fit(((0.5, 1.0),), ((1.0, 2.0),), (1.0, 0.5)), made(count=300)

    def other(**parts: Any) -> Setting:
        return Setting(**{**vars(SETTING), **parts})

    return (
        plain,
        again(plain, setting=other(detector="taps"), fit=fit),
        again(plain, setting=other(first=First("taps")), gate=Gate(0.1, plain.scores[7], fit)),
        again(plain, setting=other(backend="x"), carried=Carried("y", 10, 1e-7)),
    )


def one_row(model: onnx.ModelProto) -> None:
    """The magnitude of one prompt and one noise."""
    model.graph.initializer[0].dims[:] = [8, 8]
    model.graph.node[0].attribute[0].i = 1  # keepdims


def unigram_file() -> bytes:
    """A `tokenizer.json` of T5's kind, of a few pieces, with a table of spellings."""
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", "\u2581a", "\u2581cat", *"catKze\u4eac"]
    library = Tokenizer(Unigram([(each, -float(k)) for k, each in enumerate(pieces)], 2, False))
    library.normalizer = normalizers.Precompiled(charsmap())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    library.add_special_tokens(["<pad>", "</s>"])
    return library.to_str().encode()


def bpe_file() -> bytes:
    """A `tokenizer.json` of Qwen2's kind: bytes, and a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {each: k for k, each in enumerate([*alphabet, "ca", "cat"])}
    library = Tokenizer(BPE(vocab, [("c", "a"), ("ca", "t")]))
    library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    return library.to_str().encode()


def gemma_file() -> bytes:
    """A `tokenizer.json` of Gemma's kind: bytes for what is unknown, and a few merges."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{k:02X}>" for k in range(256))]
    tokens += ["\u2581", *"act", "ca", "cat", "\u2581cat"]
    vocab = {each: k for k, each in enumerate(tokens)}
    merges = [("c", "a"), ("ca", "t"), ("\u2581", "cat")]
    model = BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    library = Tokenizer(model)
    library.normalizer = normalizers.Replace(" ", "\u2581")
    library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    library.add_special_tokens(["<pad>", "<bos>"])
    return library.to_str().encode()


def prompt_files(ending: str) -> list[bytes]:
    """Files of a few prompts in a format."""
    texts = ["a cat, sitting", 'the "big" one', "eine Katze — 猫 😀", " spaced  out ", "x" * 50]
    if ending == ".txt":
        return ["\n".join(texts).encode()]
    if ending == ".csv":
        rows = ['"' + each.replace('"', '""') + '"' for each in texts]
        return ["\n".join(["n,prompt", *(f"1,{row}" for row in rows)]).encode()]
    if ending == ".jsonl":
        return ["\n".join(f'{{"prompt":"{each}"}}' for each in ("a cat", "猫", "x")).encode()]
    import pyarrow as pa
    from pyarrow import parquet

    table, found = pa.table({"prompt": texts * 20, "n": range(100)}), []
    for options in ({}, {"compression": "zstd"}, {"use_dictionary": False}):
        file = BytesIO()
        parquet.write_table(table, file, **options)
        found.append(file.getvalue())
    return found


def signed_file(folder: Path) -> tuple[Path, Path]:
    """A file with its signature beside it, and the public key."""
    file, key = folder / "file", folder / "key"
    file.write_bytes((embedded.BUNDLE / MANIFEST).read_bytes())
    public = make_keys(key)
    sign(file, file.read_bytes(), private_key(key))
    return file, public
