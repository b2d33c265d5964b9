"""A CLIP tokenizer's files in the layouts that there are; written without transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from mnemoscope import embedded

_MODEL = embedded.MODEL / "tokenizer"
_SIZE = 1924  # of the embedded vocabulary: the first id that is free
_ADDED = ["<cat-toy>", "<x>", "<x>_1", "<x>_2"]
_START, _END = "<|startoftext|>", "<|endoftext|>"


def _token(content: str, **flags: bool) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False} | flags
    return {"content": content, **flags}


def _map(pad: str, *, normalized: bool = True) -> dict[str, Any]:
    ends = {"bos_token": _START, "eos_token": _END, "unk_token": _END}
    tokens = {name: _token(text, normalized=normalized) for name, text in ends.items()}
    return tokens | {"pad_token": pad}


_OLD_CONFIG = {
    "add_prefix_space": False,
    "bos_token": {"__type": "AddedToken", **_token(_START, normalized=True)},
    "do_lower_case": True,
    "eos_token": {"__type": "AddedToken", **_token(_END, normalized=True)},
    "errors": "replace",
    "model_max_length": 77,
    "pad_token": _END,
    "tokenizer_class": "CLIPTokenizer",
    "unk_token": {"__type": "AddedToken", **_token(_END, normalized=True)},
}


def _decoder(**flags: bool) -> dict[str, Any]:
    ends = {
        str(id): _token(text, normalized=text == _START) | {"special": True}
        for text, id in _vocab().items()
        if text in (_START, _END)
    }
    added = {str(_SIZE + k): _token(t, **flags) | {"special": False} for k, t in enumerate(_ADDED)}
    return ends | added


def _vocab() -> dict[str, int]:
    found: dict[str, int] = json.loads((_MODEL / "vocab.json").read_bytes())
    return found


def _ready(*added: str) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads((_MODEL / "tokenizer.json").read_bytes())
    definition["added_tokens"] += [
        {"id": _SIZE + k, **_token(text, normalized=True), "special": False}
        for k, text in enumerate(added)
    ]
    return definition


# what each layout has beside vocab.json and merges.txt, by file
LAYOUTS: dict[str, dict[str, Any]] = {
    "sd1": {"tokenizer_config.json": _OLD_CONFIG, "special_tokens_map.json": _map(_END)},
    "sd2": {"tokenizer_config.json": _OLD_CONFIG, "special_tokens_map.json": _map("!")},
    "inversion": {
        "tokenizer_config.json": _OLD_CONFIG,
        "special_tokens_map.json": _map(_END),
        "added_tokens.json": {text: _SIZE + k for k, text in enumerate(_ADDED)},
    },
    "decoder": {
        "tokenizer_config.json": _OLD_CONFIG
        | {"added_tokens_decoder": _decoder(), "bos_token": _START, "eos_token": _END}
        | {"unk_token": _END, "clean_up_tokenization_spaces": False},
        "special_tokens_map.json": _map("!"),  # which the decoder overrules
    },
    "flags": {
        "tokenizer_config.json": _OLD_CONFIG
        | {"added_tokens_decoder": _decoder(lstrip=True, rstrip=True, normalized=True)},
    },
    "more": {
        "tokenizer_config.json": _OLD_CONFIG | {"additional_special_tokens": ["<flag>"]},
        "special_tokens_map.json": _map(_END) | {"additional_special_tokens": ["<flag>"]},
    },
    "both": {
        "tokenizer_config.json": _OLD_CONFIG,
        "tokenizer.json": _ready(*_ADDED),
    },
    "ready": {"tokenizer_config.json": _OLD_CONFIG, "tokenizer.json": _ready(*_ADDED)},
    "bare": {"tokenizer_config.json": {}},
}
TRANSFORMERS_5 = ("ready",)  # without vocab.json and merges.txt, which 4 needs


def write_layout(name: str, folder: Path) -> Path:
    """Write one of `LAYOUTS`."""
    folder.mkdir(parents=True)
    for file in () if name in TRANSFORMERS_5 else ("vocab.json", "merges.txt"):
        shutil.copy(_MODEL / file, folder)
    for file, fields in LAYOUTS[name].items():
        (folder / file).write_text(json.dumps(fields))
    return folder
