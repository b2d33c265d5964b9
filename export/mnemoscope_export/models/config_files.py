"""The config files of a pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mnemoscope_runtime.errors import ExportError

from ..configs import PARTS

__all__ = ["read_configs"]


def read_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """What every config file says that there is: `model_index`, and the names of `PARTS`.

    Raises:
        ExportError: one is damaged.
    """
    files = {"model_index": "model_index.json", **PARTS}
    found = {part: folder / name for part, name in files.items() if (folder / name).is_file()}
    return {part: _read(path) for part, path in found.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is no JSON: {error}. Copy the model again.") from None
    if not isinstance(config, dict):
        raise ExportError(f"{path} is no config, but a {type(config).__name__}. Copy it again.")
    return config
