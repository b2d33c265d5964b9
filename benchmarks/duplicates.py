"""`python -m benchmarks.duplicates WORK [--descriptor FILE]`: repetitions found, of known ones.

Pictures of the embedded model's training set as its recipe rebuilds it (downloaded into WORK once):
all 100 memorised ones, each as often as training saw it (1,760 times where it saw others 9 times),
and the first of the seen ones. Planted among them, kind by kind: some of the seen ones mirrored,
cropped, shrunk, in grey, with a border, and recompressed. All others are different pictures,
however alike. A row counts as found if it is dropped for its own original, and as wrong if it is
for another picture.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from mnemoscope.drawing.copy_detection import load_descriptor
from mnemoscope.duplicates import kept_rows
from recipes.embedded.dataset import Sizes, build_dataset

from .running import run_main

SEED = 0  # of the recipe
TIMES = round(1760 / 9)


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


Vectors = NDArray[np.float16]
Rows = NDArray[np.int64]
CHANGES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "cropped by a tenth": lambda each: each.crop((6, 6, 58, 58)).resize((64, 64)),
    "shrunk to 48 pixels": lambda each: each.resize((48, 48)),
    "in grey": lambda each: each.convert("L").convert("RGB"),
    "with a border of 4": lambda each: ImageOps.expand(each, 4, "white"),
    "JPEG, quality 75": lambda each: recompressed(each, 75),
    "JPEG, quality 40": lambda each: recompressed(each, 40),
}


def judged(vectors: Vectors, original: Rows, above: float) -> dict[str, int]:
    """Of rows that repeat others how many there are and are found; how many are dropped wrongly."""
    kept = kept_rows(vectors, above)
    rows = np.arange(len(kept))
    dropped, right = kept != rows, original[kept] == original
    return {
        "repeated": int((original != rows).sum()),
        "found": int((dropped & right).sum()),
        "wrong": int((dropped & ~right).sum()),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for the recipe's packages")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument(
        "--descriptor", help="sscd or a file; the stand-in by default, see docs/mitigation.md#sscd"
    )
    parser.add_argument("--seen", type=int, default=200)
    parser.add_argument("--planted", type=int, default=25)
    parser.add_argument("--thresholds", type=float, nargs="*", default=[])
    args = parser.parse_args(argv)

    data = build_dataset(args.work, Sizes(seen=max(3000, args.seen)), SEED)
    memorised = [Image.fromarray(each) for each in data.memorised_images]
    seen = [Image.fromarray(each) for each in data.seen_images[: args.seen]]
    descriptor = load_descriptor(args.descriptor)
    start = time.process_time()
    base = descriptor.describe([*memorised, *seen]).astype(np.float16)
    took = time.process_time() - start
    rows = np.arange(len(base))
    again = np.tile(rows[: len(memorised)], TIMES - 1)
    planted = {"as often as training saw it": (base[again], again)}  # described alike
    for name, change in CHANGES.items():
        some = seen[: args.planted]
        found = descriptor.describe([change(each) for each in some]).astype(np.float16)
        planted[name] = found, len(memorised) + np.arange(len(some))

    assert descriptor.duplicate_above is not None
    cuts = sorted({descriptor.duplicate_above, descriptor.copied_above, *args.thresholds})
    results: dict[str, Any] = {
        "descriptor": descriptor.name,
        "pictures": len(base),
        "seconds to describe one": took / len(base),
        "above": {},
    }
    console = Console()
    for above in cuts:
        table = Table("", "rows", "found", "wrong", title=f"{descriptor.name}, above {above}")
        counts = {
            name: judged(np.concatenate([base, more]), np.concatenate([rows, of]), above)
            for name, (more, of) in planted.items()
        }
        for name, each in counts.items():
            table.add_row(name, *(f"{count:,}" for count in each.values()))
        console.print(table)
        results["above"][str(above)] = counts
    args.output.mkdir(parents=True, exist_ok=True)
    kind = "" if args.descriptor is None else "-sscd"
    path = args.output / f"embedded-duplicates{kind}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"written {path}")


if __name__ == "__main__":
    run_main(main)
