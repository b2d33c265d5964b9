"""`python in_datasets.py FOLDER`: sets as `datasets` and `webdataset` write them, and read them.

Writes sets of every layout into FOLDER, and prints as JSON which they are, with `--images` of
each, and what the libraries read of them: captions, and a digest of each picture's pixels.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import webdataset
from PIL import Image

COUNT = 10
CAPTIONS = [f'caption "{k}", ünï\u2028x' for k in range(COUNT)]
DICE = np.random.default_rng(0)


def noise() -> Image.Image:
    return Image.fromarray(DICE.integers(0, 255, (9, 7, 3), np.uint8))


def seen(rows: Iterable[Mapping[str, Any]], caption: str, image: str) -> list[tuple[str, str]]:
    digests = (hashlib.sha256(np.asarray(row[image]).tobytes()).hexdigest() for row in rows)
    return [(row[caption], digest) for row, digest in zip(rows, digests, strict=True)]


def folders(root: Path) -> Iterator[tuple[str, str | None, list[tuple[str, str]]]]:
    names = [f"{'sub/' * (k % 2)}{k}.png" for k in range(COUNT)]
    for kind in ("jsonl", "csv"):
        folder = root / kind
        (folder / "sub").mkdir(parents=True)
        for name in names:
            noise().save(folder / name)
        rows = [{"file_name": n, "text": c} for n, c in zip(names, CAPTIONS, strict=True)]
        with (folder / f"metadata.{kind}").open("w", newline="", encoding="utf-8") as file:
            if kind == "jsonl":
                file.writelines(json.dumps(row) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(file, ["file_name", "text"])
                writer.writeheader()
                writer.writerows(rows)
        read = datasets.load_dataset(
            "imagefolder", data_dir=str(folder), split="train", cache_dir=str(root / "cache")
        )
        yield str(folder), None, seen(read, "text", "image")


def parquet(root: Path) -> Iterator[tuple[str, str | None, list[tuple[str, str]]]]:
    features = datasets.Features(
        {"text": datasets.Value("string"), "image": datasets.Image()}  # bytes and path
    )
    rows = {"text": [*CAPTIONS] * 25, "image": [noise() for _ in range(25 * COUNT)]}
    written = datasets.Dataset.from_dict(rows, features=features)
    written.to_parquet(root / "p.parquet", batch_size=100)  # of a row group
    yield str(root / "p.parquet"), "image", seen(written, "text", "image")


def tars(root: Path) -> Iterator[tuple[str, str | None, list[tuple[str, str]]]]:
    folder = root / "tars"
    folder.mkdir()
    pattern = str(folder / "s-%03d.tar")
    with webdataset.ShardWriter(pattern, maxcount=4, verbose=0) as sink:
        for k, caption in enumerate(CAPTIONS):
            sample = {"png": noise(), "txt": caption, "json": {"caption": "not read"}}
            sink.write({"__key__": f"dir{k % 2}/{k:04}", **sample})
    several = str(folder / "s-{000..002}.tar")
    read = list(webdataset.WebDataset(several, shardshuffle=False).decode("pil"))
    yield several, None, seen(read, "txt", "png")
    files = [str(file) for file in sorted(folder.iterdir())]
    same = datasets.load_dataset(
        "webdataset", data_files=files, split="train", cache_dir=str(root / "cache")
    )
    yield str(folder), None, seen(same, "txt", "png")


def main() -> None:
    datasets.disable_progress_bars()
    root = Path(sys.argv[1])
    print(json.dumps([*folders(root), *parquet(root), *tars(root)]))


if __name__ == "__main__":
    main()
