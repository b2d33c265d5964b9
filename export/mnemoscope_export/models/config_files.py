"""The config files of a pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mnemoscope_runtime.errors import ExportError

from ..configs import PARTS
from .contents import lfs_pointer

__all__ = ["read_configs"]

_BOM = "\ufeff"


def read_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """What every config file says that there is: `model_index`, and the names of `PARTS`.

    Raises:
        ExportError: one is damaged.
    """
    files = {"model_index": "model_index.json", **PARTS}
    found = {part: folder / name for part, name in files.items() if (folder / name).is_file()}
    return {part: _read(path) for part, path in found.items()}


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
