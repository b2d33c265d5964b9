"""The config files of a pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnemoscope_runtime.errors import ExportError

from .contents import lfs_pointer

__all__ = ["read_configs", "read_index"]

_BOM = "\ufeff"


def read_index(folder: Path) -> dict[str, Any]:
    """What `model_index.json` says; nothing, if it is not there.

    Raises:
        ExportError: it is damaged.
    """
    path = folder / "model_index.json"
    return _read(path) if path.is_file() else {}


def read_configs(folder: Path, files: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What config files say, those that there are, and `model_index.json` as "model_index".

    Args:
        folder: Of a pipeline.
        files: Each part's file, below that.

    Raises:
        ExportError: one is damaged.
    """
    found = {part: folder / name for part, name in files.items() if (folder / name).is_file()}
    return {"model_index": read_index(folder), **{part: _read(p) for part, p in found.items()}}


def _read(path: Path) -> dict[str, Any]:
    lfs_pointer(path)
    try:
        text = path.read_bytes().decode()
        if text.startswith(_BOM):
            raise ExportError(
                f"{path} begins with a byte-order mark, which diffusers and transformers do not "
                "read. Save it as UTF-8 without one."
            )
        config = json.loads(text)
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is no JSON in UTF-8: {error}. Copy the model again.") from None
    if not isinstance(config, dict):
        raise ExportError(f"{path} is no config, but a {type(config).__name__}. Copy it again.")
    return config
