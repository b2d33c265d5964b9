"""`python -m benchmarks.descriptors [--descriptor FILE]`: what SSCD and the stand-in call a copy.

On the embedded model's pictures, which are 64 pixels wide. First each descriptor by itself: a
memorised picture against itself, against itself mirrored, shifted, blurred, cropped, in grey, as
the model's VAE renders it, and against the others. Then both on what is drawn: every other
memorised caption from some seeds, as it is and by strategies that leave some copies, each against
the caption's training picture, as it is or as the VAE renders it, whichever it is more like; and
the held-out captions against the memorised picture that each is most like.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageChops, ImageFilter, ImageOps
from PIL.Image import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mnemoscope import CalibrationFile, embedded
from mnemoscope.drawing.copy_detection import CopyDescriptor, copy_similarity, load_descriptor
from mnemoscope.mitigate import Kit, Painter, Plain, Sampling, Strategy, Yardstick
from mnemoscope.mitigate.sampling import sample
from mnemoscope_runtime import Bundle

from .running import run_main

CHANGES: Mapping[str, Callable[[Image], Image]] = {
    "itself": lambda each: each,
    "mirrored": ImageOps.mirror,
    "shifted by 4 of 64 pixels": lambda each: ImageChops.offset(each, 4, 0),
    "by 8, and 8 down": lambda each: ImageChops.offset(each, 8, 8),
    "blurred": lambda each: each.filter(ImageFilter.GaussianBlur(1)),
    "cropped by a tenth": lambda each: each.crop((6, 6, 58, 58)).resize((64, 64)),
    "in grey": lambda each: each.convert("L"),
}
STRATEGIES = ("none", "embedding", "guidance", "padding", "random-words")
BATCH = 20
Cosines = NDArray[np.float32]


def changed(
    descriptor: CopyDescriptor, pictures: Sequence[Image], rendered: Sequence[Image]
) -> dict[str, Any]:
    """Cosines of pictures with themselves changed, and with each other."""
    sets = {name: [change(each) for each in pictures] for name, change in CHANGES.items()}
    sets["as the VAE renders it"] = list(rendered)
    found: dict[str, Any] = {}
    for name, images in sets.items():
        cosines = copy_similarity(descriptor, images, pictures)
        found[name] = summary(cosines.diagonal(), descriptor.copied_above)
    between = copy_similarity(descriptor, pictures, pictures)
    others = between[~np.eye(len(pictures), dtype=np.bool_)]
    return found | {"another picture": summary(others, descriptor.copied_above)}


def likeness(
    descriptor: CopyDescriptor, images: Sequence[Image], kinds: Sequence[Sequence[Image]]
) -> Cosines:
    """Of each picture with its own reference, of several kinds the one that it is most like."""
    vectors = descriptor.describe(images)
    found: Cosines = np.max(
        [(vectors * descriptor.describe(each)).sum(1) for each in kinds], axis=0
    )
    return found


def summary(cosines: Cosines, copied_above: float) -> dict[str, float]:
    """Least, median, most, and the share of copies."""
    low, middle, high = np.quantile(cosines, (0, 0.5, 1)).tolist()
    copied = float((cosines > copied_above).mean())
    return {"least": low, "median": middle, "most": high, "copied": copied}


def agreement(stand_in: Cosines, sscd: Cosines, cuts: tuple[float, float]) -> dict[str, float]:
    """How two descriptors judge the same pictures."""
    one, other = stand_in > cuts[0], sscd > cuts[1]
    constant = min(stand_in.std(), sscd.std()) == 0
    return {
        "pictures": len(one),
        "correlation": float("nan") if constant else float(np.corrcoef(stand_in, sscd)[0, 1]),
        "both": int((one & other).sum()),
        "stand-in alone": int((one & ~other).sum()),
        "SSCD alone": int((~one & other).sum()),
        "neither": int((~one & ~other).sum()),
    }


def draw(
    painter: Painter, strategy: Strategy, prompts: Sequence[str], seeds: int
) -> tuple[list[Image], NDArray[np.int64]]:
    """Pictures, and which prompt each is of."""
    owners = np.repeat(np.arange(len(prompts)), seeds)
    images: list[Image] = []
    for start in track(range(0, len(owners), BATCH), strategy.name, console=Console(stderr=True)):
        part = owners[start : start + BATCH]
        numbers = [(start + i) % seeds for i in range(len(part))]
        task = painter.task([prompts[i] for i in part], numbers)
        images += painter.pictures(sample(strategy.plan(task), task.sampling).latents)
    return images, owners


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument(
        "--descriptor",
        default="sscd",
        help="sscd, or a file (default: sscd): see docs/mitigation.md#sscd for where it is from",
    )
    parser.add_argument("--limit", type=int, help="captions of each kind (default: 50)")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    both = {"stand-in": load_descriptor(), "SSCD": load_descriptor(args.descriptor)}
    cuts = (both["stand-in"].copied_above, both["SSCD"].copied_above)
    console = Console(width=110)

    painter, sampling = Painter.load(), Sampling()
    pictures = embedded.memorized_pictures()
    rendered = painter.rendered(pictures)
    alone = {name: changed(each, pictures, rendered) for name, each in both.items()}
    for name, rows in alone.items():
        table = Table(name, "least", "median", "most", "copies, %")
        for what, row in rows.items():
            cells = (f"{row[key]:.3f}" for key in ("least", "median", "most"))
            table.add_row(what, *cells, f"{100 * row['copied']:.2f}")
        console.print(table)

    prompts = [row.prompt for row in embedded.read_prompts("memorized")][1::2][: args.limit]
    others = [row.prompt for row in embedded.read_prompts("held_out")][:50][: args.limit]
    calibration = CalibrationFile.read(embedded.BUNDLE / "calibration.json")
    kit = Kit(painter, Yardstick.of(calibration, Bundle.open(embedded.BUNDLE), sampling))
    drawn: dict[str, tuple[Cosines, Cosines]] = {}
    as_it_is: dict[str, int] = {}
    for name in STRATEGIES:
        strategy = Plain() if name == "none" else kit.make(name)
        images, owners = draw(painter, strategy, prompts, args.seeds)
        kinds = [[each[1::2][i] for i in owners] for each in (pictures, rendered)]
        as_it_is[name] = int((likeness(both["SSCD"], images, kinds[:1]) > cuts[1]).sum())
        stand_in, sscd = (likeness(each, images, kinds) for each in both.values())
        drawn[name] = stand_in, sscd
    together = tuple(np.concatenate(each) for each in zip(*drawn.values(), strict=True))
    images, _ = draw(painter, Plain(), others, args.seeds)
    stand_in, sscd = (
        copy_similarity(each, images, [*pictures, *rendered]).max(1) for each in both.values()
    )
    rows = {name: agreement(*cosines, cuts) for name, cosines in drawn.items()}
    rows["all of these"] = agreement(together[0], together[1], cuts)
    rows["held-out captions"] = agreement(stand_in, sscd, cuts)
    table = Table("drawn", *next(iter(rows.values())))
    for name, found in rows.items():
        correlation = f"{found['correlation']:.2f}"
        table.add_row(
            name, *(correlation if k == "correlation" else str(v) for k, v in found.items())
        )
    console.print(table)
    best = {
        f"{cut:.2f}": int(((together[0] > cuts[0]) == (together[1] > cut)).sum())
        for cut in np.arange(0.3, 0.95, 0.05)
    }
    console.print("same verdict as the stand-in's, by SSCD's threshold:", best)
    console.print("copies by SSCD against training pictures as they are:", as_it_is)
    path = args.output / "descriptors.json"
    report = {
        "descriptors": {name: each.name for name, each in both.items()},
        "copied_above": dict(zip(both, cuts, strict=True)),
        "changed": alone,
        "drawn": rows,
        "copies_by_sscd_of_pictures_as_they_are": as_it_is,
        "same_verdict_by_threshold": best,
        "cosines": {
            name: [each.round(4).tolist() for each in pair] for name, pair in drawn.items()
        },
    }
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)
