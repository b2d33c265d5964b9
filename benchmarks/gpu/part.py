"""One part of a run, in the process that it has to itself: `python -m benchmarks.gpu.part ...`."""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mnemoscope_runtime import BackendUnavailable

from .setting import Part, Setting

__all__ = ["measure", "write"]


def measure(part: Part, setting: Setting, file: Path) -> None:
    """Write what a part finds as soon as it finds it, and how it ended."""
    module, _, name = part.measure.partition(":")
    start, found = time.monotonic(), dict[str, Any]()

    def note(status: str, reason: str | None = None) -> None:
        took = {"took_seconds": time.monotonic() - start}
        write(file, {"status": status, **({"reason": reason} if reason else {}), **took, **found})

    note("running")
    try:
        function: Callable[..., Iterator[dict[str, Any]]]
        function = getattr(importlib.import_module(module), name)
        for each in function(setting, **part.told):
            found |= each
            note("running")
    except BackendUnavailable as error:
        note("not available", str(error))
    except Exception as error:  # whatever a library raises, it is this part's alone
        traceback.print_exc()
        note("failed", f"{type(error).__name__}: {error}")
    else:
        note("done")


def write(file: Path, content: dict[str, Any]) -> None:
    """Write JSON, so that whoever reads the file at any time finds the old or the new."""
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(file)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    measure(Part(**told["part"]), Setting(**told["setting"]), Path(told["file"]))
