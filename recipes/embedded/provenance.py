"""Where a packed model comes from: its command, data, training and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .dataset import PACKAGES

__all__ = ["write_provenance"]


def write_provenance(
    folder: Path, work: Path, command: str, arguments: Mapping[str, Any], figures: Mapping[str, Any]
) -> None:
    """Write provenance.json into a model's folder, and print the figures.

    Args:
        folder: The packed model.
        work: Where its training wrote logs.
        command: What made it.
        arguments: Those that change what is trained.
        figures: What `judge` found.
    """
    told = folder / "provenance.json"
    provenance = {
        "command": command,
        "arguments": arguments,
        "data": {package: {"sha512": digest} for package, digest in PACKAGES.values()},
        "licences": "see NOTICE.md",
        "tools": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "training": {path.stem: _log(path) for path in sorted(work.glob("*.jsonl"))},
        "quality": figures,
        "files": {
            path.relative_to(folder.parent).as_posix(): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path != told
        },
    }
    told.write_text(json.dumps(provenance, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def _log(path: Path) -> list[dict[str, float]]:
    """Every tenth line of a training log, and the last."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [*lines[9::10], lines[-1]]
