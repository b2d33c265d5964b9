"""`python -m benchmarks.mitigation_transfer DIR --descriptor FILE`: on a model by the recipes.

DIR is what `python -m recipes.embedded` packed: model, bundle, prompts.jsonl, memorized.png; or
`embedded-flow`, whose captions and pictures are the embedded model's, and so is what judges how
well pictures follow them. Copies of the training pictures as they are get a column too.
Captions that it memorised are drawn from some seeds by every strategy, and by `auto` as a user of
that model has it, who knows no training picture: once with SSCD, once with nothing but the model's
own VAE, both without a CLIP, and with benign prompts of random words. SSCD then says what is a copy
of the caption's training picture as the VAE renders it; beside it a stand-in, the cosine of the
VAE's latents.

SSCD's threshold is for large pictures. How much of what it calls a copy here is none is told by a
row of captions that were never trained on: their pictures from one seed against those from the
next. So captions are counted above a higher one too.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mnemoscope import CalibrationFile, Detector, embedded
from mnemoscope.drawing.alignment import EmbeddedAlignment
from mnemoscope.drawing.copy_detection import (
    CopyDescriptor,
    EmbeddedDescriptor,
    LatentDescriptor,
    load_descriptor,
)
from mnemoscope.mitigate import (
    LADDER,
    STRATEGIES,
    Kit,
    Mitigation,
    Mitigator,
    Painter,
    Plain,
    Sampling,
    Yardstick,
)
from mnemoscope.outputs import write_files
from mnemoscope.prompts.printable import json_text
from mnemoscope_runtime import Bundle
from mnemoscope_runtime.errors import InputError

from .descriptors import likeness
from .running import run_main
from .second_opinion import CUTS

BENIGN = "held-out, one seed against the next"


class Judges:
    """What nobody who mitigates has: the training pictures, and a CLIP of the captions' model."""

    def __init__(self, folder: Path, sscd: CopyDescriptor, painter: Painter) -> None:
        self.pictures = embedded.memorized_pictures(_found(folder, "memorized.png"))
        self._rendered = painter.rendered(self.pictures)
        self._copies = {
            "SSCD": sscd,
            "stand-in": EmbeddedDescriptor(folder / "model", self.pictures),
        }
        self._alignment = EmbeddedAlignment(_found(folder, "model/image_encoder").parent)

    def row(
        self, prompts: Sequence[str], images: Sequence[Image], against: Sequence[Image]
    ) -> dict[str, Any]:
        """Figures of pictures, those of a prompt one after another, each against its own."""
        found: dict[str, Any] = {"pictures": len(images)}
        owners = np.unique(prompts, return_inverse=True)[1]
        for name, each in self._copies.items():
            cosines = likeness(each, images, [against])
            highest = np.array([cosines[owners == i].max() for i in set(owners)])
            cut = each.copied_above or 1
            found[name] = {
                "copies": float((cosines > cut).mean()),
                "captions": float((highest > cut).mean()),
                "captions_higher": float((highest > CUTS[1]).mean()) if name == "SSCD" else None,
                "cosines": cosines.round(4).tolist(),
            }
        found["alignment"] = float(self._alignment.score(prompts, images).mean())
        return found

    def rendered(self, rows: Sequence[int], seeds: int) -> list[Image]:
        """What the pictures of these captions must not be like, one for each seed."""
        return [self._rendered[i] for i in rows for _ in range(seeds)]

    def raw(self, rows: Sequence[int], seeds: int, images: Sequence[Image]) -> list[float]:
        """SSCD's cosine of each picture with its caption's training picture as it is."""
        against = [self.pictures[i] for i in rows for _ in range(seeds)]
        found: list[float] = likeness(self._copies["SSCD"], images, [against]).round(4).tolist()
        return found


def _found(folder: Path, name: str) -> Path:
    """A model's own, or the embedded model's."""
    own = folder / name
    return own if own.exists() else embedded.MODEL.parent / name


def auto(
    mitigator: Mitigator, kit: Kit, detector: Detector, prompts: Sequence[str], seeds: Sequence[int]
) -> list[Mitigation]:
    """What `mnemoscope mitigate` makes of every prompt."""
    console = Console(stderr=True)
    return [
        mitigator.auto(prompt, map(kit.make, LADDER), detector, seeds)
        for prompt in track(prompts, f"auto, {mitigator.descriptor.name}", console=console)
    ]


def decided(found: Sequence[Mitigation]) -> dict[str, Any]:
    """How `auto` came to its pictures."""
    by = Counter(picture.strategy for each in found for picture in each.pictures)
    return {
        "flagged by": dict(Counter(str(each.flagged_by) for each in found)),
        "verified": dict(Counter(str(each.verified) for each in found)),
        "strategies": dict(by),
        "passes": float(np.mean([p.passes for each in found for p in each.pictures])),
        "pictures": [
            {
                **picture.as_json(),
                "prompt": each.prompt,
                "flagged by": each.flagged_by,
                "agreement": None if each.agreement is None else each.agreement.highest,
            }
            for each in found
            for picture in each.pictures
        ],
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what the recipe packed")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument(
        "--descriptor",
        default="sscd",
        help="sscd, or a file (default: sscd): see docs/mitigation.md#sscd for where it is from",
    )
    parser.add_argument("--captions", type=int, default=20, help="memorised ones")
    parser.add_argument("--held-out", type=int, default=20, help="captions that it never saw")
    parser.add_argument("--skip", type=int, default=0, help="captions that settings were chosen on")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--strategies", help="with commas (default: all)")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    folder, seeds = args.folder, list(range(args.seeds))
    name = folder.parent.name
    if str(folder) == "embedded-flow":
        folder, name = embedded.FLOW_MODEL.parent, "embedded-flow"
    rows = range(args.skip, args.skip + args.captions)

    painter, sscd = Painter.load(str(folder / "model")), load_descriptor(args.descriptor)
    captions = _found(folder, "prompts.jsonl")
    known = embedded.read_prompts("memorized", file=captions)
    prompts = [known[i].prompt for i in rows]
    others = embedded.read_prompts("held_out", file=captions)[: args.held_out]
    benign = [each.prompt for each in others]
    bundle = Bundle.open(folder / "bundle")
    file = CalibrationFile.read(folder / "bundle" / "calibration.json")
    sampling = Sampling.of(bundle.manifest)
    mitigator = Mitigator(painter, sscd, None, Yardstick.of(file, bundle, sampling), sampling)
    judges = Judges(folder, sscd, painter)
    told = [prompt for prompt in prompts for _ in seeds]
    against = judges.rendered(rows, args.seeds)
    report: dict[str, Any] = {}
    kit = Kit(painter, mitigator.yardstick, sampling=sampling)
    names = [*STRATEGIES] if args.strategies is None else args.strategies.split(",")
    for each in track(["none", *names], "strategies", console=Console(stderr=True)):
        strategy = Plain() if each == "none" else kit.make(each)
        try:
            drawn = mitigator.draw(told, seeds * len(prompts), strategy)
        except InputError as error:  # it is for another family
            Console(stderr=True).print(str(error))
            continue
        images = [picture.image for picture in drawn]
        report[each] = judges.row(told, images, against)
        report[each]["raw"] = judges.raw(rows, args.seeds, images)
    blind = replace(mitigator, descriptor=LatentDescriptor(painter.vae, painter.side))
    with Detector.load(folder / "bundle") as detector:
        for what, judging in (("auto, SSCD", mitigator), ("auto, own VAE", blind)):
            found = auto(judging, kit, detector, prompts, seeds)
            images = [picture.image for one in found for picture in one.pictures]
            report[what] = judges.row(told, images, against) | {"auto": decided(found)}
            report[what]["raw"] = judges.raw(rows, args.seeds, images)
        plain = [prompt for prompt in benign for _ in seeds]
        drawn = mitigator.draw(plain, seeds * len(benign), Plain())
        images = [each.image for each in drawn]
        others_of = np.arange(len(images)).reshape(-1, len(seeds))
        following = np.roll(others_of, -1, axis=1).ravel()
        report[BENIGN] = judges.row(plain, images, [images[i] for i in following])
        report["auto on held-out"] = {
            each.descriptor.name: decided(auto(each, kit, detector, benign, seeds))
            for each in (mitigator, blind)
        }
    show(report)
    contents = json_text({"folder": folder.name, "rows": report}, indent=1).encode()
    (path,) = write_files(args.output, {f"mitigation-transfer-{name}.json": contents})
    Console().print(f"figures {path}")


def show(report: Mapping[str, Any]) -> None:
    """The table."""
    console = Console(width=130)
    told = "SSCD: copies", "captions", f"captions > {CUTS[1]}", "stand-in: copies", "captions"
    table = Table("drawn", *told, "alignment", "SSCD, raw")
    for name, row in report.items():
        if "SSCD" in row:
            sscd, other = row["SSCD"], row["stand-in"]
            cells = [sscd[what] for what in ("copies", "captions", "captions_higher")]
            cells += [other[what] for what in ("copies", "captions")]
            raw = "" if "raw" not in row else f"{np.mean(np.array(row['raw']) > CUTS[0]):.0%}"
            table.add_row(name, *(f"{x:.0%}" for x in cells), f"{row['alignment']:.3f}", raw)
    console.print(table)
    for name, row in report.items():
        for what, found in ({name: row["auto"]} if "auto" in row else {}).items():
            console.print(what, {k: v for k, v in found.items() if k != "pictures"})
    for what, found in report["auto on held-out"].items():
        console.print("on held-out,", what, {k: v for k, v in found.items() if k != "pictures"})


if __name__ == "__main__":
    run_main(main)
