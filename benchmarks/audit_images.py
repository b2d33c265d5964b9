"""`python -m benchmarks.audit_images WORK`: an audit with pictures, where the truth is known.

The embedded model's training set as its recipe rebuilds it (downloaded into WORK once): all 100
memorised captions with their pictures, and the first of the seen ones. The audit is told nothing of
which is which. Then every memorised caption that it did not draw is drawn too, so that its recall
is known and not estimated; of seen captions the recipe's own check draws none as its picture.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from mnemoscope import Detector, embedded
from mnemoscope.audit import Artist, Confirming, Finding, audit
from recipes.embedded.dataset import Dataset, Sizes, build_dataset

from .running import run_main

SEED = 0  # of the recipe


def write_set(data: Dataset, seen: int, folder: Path) -> list[str]:
    """The set as a folder of pictures with metadata; the captions, the memorised first."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = [each.text for each in [*data.memorised, *data.seen[:seen]]]
    pictures = np.concatenate([data.memorised_images, data.seen_images[:seen]])
    rows = []
    for number, (caption, pixels) in enumerate(zip(captions, pictures, strict=True)):
        name = f"{number:05}.png"
        Image.fromarray(pixels).save(folder / name)
        rows.append(json.dumps({"file_name": name, "caption": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return captions


def drawn_otherwise(artist: Artist, missing: Sequence[str], seeds: int) -> int:
    """How many captions that the audit did not draw recite their own pictures."""
    if not missing:
        return 0
    pictures = dict(
        zip(
            (row.prompt for row in embedded.read_prompts("memorized")),
            embedded.memorized_pictures(),
            strict=True,
        )
    )
    count = 0
    for prompt, images in zip(missing, artist.draw(missing, range(seeds)), strict=True):
        (own,) = artist.describe([pictures[prompt]]).astype(np.float32)
        cosines = artist.descriptor.describe(images) @ own.T
        count += bool(cosines.max() > artist.descriptor.copied_above)
    return count


def watched(clocks: dict[str, float]) -> Callable[[int, int], None]:
    """Processor seconds of each stage, by how many items it has."""
    start = [time.process_time()]

    def progress(done: int, count: int) -> None:
        now = time.process_time()
        if done:
            clocks[f"{count:,} items"] = clocks.get(f"{count:,} items", 0.0) + now - start[0]
        start[0] = now

    return progress


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for the recipe's packages and the set")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--seen", type=int, default=2000, help="captions (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--unflagged", type=int, default=100)
    parser.add_argument(
        "--descriptor", help="sscd, or a file (default: the stand-in), see docs/mitigation.md#sscd"
    )
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    data = build_dataset(args.work, Sizes(), SEED)
    captions = write_set(data, args.seen, args.work / f"set-{args.seen}")
    memorised = [row.prompt for row in embedded.read_prompts("memorized")]
    assert captions[: len(memorised)] == memorised, "the recipe's captions are others"

    artist = Artist.load(descriptor=args.descriptor)
    confirming = Confirming(artist, seeds=args.seeds, unflagged=args.unflagged)
    clocks: dict[str, float] = {}
    console = Console(width=110)
    with Detector.load() as detector:
        found = audit(
            detector,
            args.work / f"set-{args.seen}",
            args.output / f"audit-images-{artist.descriptor.name}.jsonl",
            confirming=confirming,
            progress=watched(clocks),
            tell=console.print,
        )
    confirmation = found.confirmation
    assert confirmation is not None
    drawn = {each.prompt: each for each in confirmation.captions}
    confirmed = {p for p, each in drawn.items() if each.finding is Finding.confirmed}
    flagged = {each.prompt for each in confirmation.captions if each.flagged}
    missing = [prompt for prompt in memorised if prompt not in drawn]
    more = drawn_otherwise(artist, missing, args.seeds)
    truth = len(confirmed & set(memorised)) + more
    report: dict[str, Any] = {
        "descriptor": artist.descriptor.name,
        "copied_above": confirmation.copied_above,
        "usual_up_to": confirmation.usual_up_to,
        "captions": found.distinct,
        "memorised": len(memorised),
        "flagged": found.flagged,
        "flagged_memorised": len(flagged & set(memorised)),
        "findings": {
            name: dict(confirmation.counts(flagged=which))
            for name, which in (("flagged", True), ("not flagged", False))
        },
        "findings_of_memorised": {
            str(each): sum(drawn[p].finding is each for p in memorised if p in drawn)
            for each in Finding
        },
        "share": confirmation.share and asdict(confirmation.share),
        "missed": confirmation.missed and asdict(confirmation.missed),
        "recall": confirmation.recall and asdict(confirmation.recall),
        "memorised_that_recite": truth,
        "true_recall": len(confirmed & flagged & set(memorised)) / truth,
        "processor_seconds": {name: round(value, 1) for name, value in clocks.items()},
        "captions_drawn": [
            {
                "caption": each.prompt,
                "memorised": each.prompt in memorised,
                "flagged": each.flagged,
                "finding": each.finding,
                "own": each.own.round(3).tolist(),
                "other": each.other.round(3).tolist(),
            }
            for each in confirmation.captions
        ],
    }
    table = Table("", "")
    for name, value in report.items():
        if name != "captions_drawn":
            table.add_row(name, str(value))
    console.print(table)
    for sentence in confirmation.sentences():
        console.print(sentence)
    path = args.output / f"audit-images-{artist.descriptor.name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)
