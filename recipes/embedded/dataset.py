"""The training set: captions and pictures, split by how often the model sees them."""

from __future__ import annotations

import base64
import hashlib
import random
import subprocess
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from .captions import Caption, draw_captions
from .images import SIZE, Pixels, load_artwork, render

PACKAGES = {
    "google": (
        "emoji-datasource-google@16.0.0",
        "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
    ),
    "twitter": (
        "emoji-datasource-twitter@16.0.0",
        "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
    ),
}


@dataclass(frozen=True)
class Sizes:
    """How many captions each split has."""

    things: int = 300
    memorised: int = 100
    seen: int = 60_000
    held_out: int = 300
    calibration: int = 1_000


@dataclass(frozen=True)
class Dataset:
    """Captions of every split, and the pictures of those that are trained on."""

    memorised: list[Caption]
    seen: list[Caption]
    held_out: list[Caption]  # never trained on: evaluation
    calibration: list[Caption]  # never trained on: thresholds
    memorised_images: Pixels  # [memorised, SIZE, SIZE, 3]
    seen_images: Pixels  # [seen, SIZE, SIZE, 3]


def fetch_packages(folder: Path) -> dict[str, Path]:
    """Download the two npm packages into `folder` (once) and check their sha512."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for vendor, (package, integrity) in PACKAGES.items():
        path = folder / (package.replace("@", "-") + ".tgz")
        if not path.exists():
            subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True)
        digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        if digest != integrity:
            raise ValueError(f"{path} is not {package}: sha512 is {digest}, expected {integrity}")
        found[vendor] = path
    return found


def build_dataset(folder: Path, sizes: Sizes, seed: int) -> Dataset:
    """Draw all captions from one generator, split them, and render what is trained on.

    The pictures are kept in `folder`, so that the stages of the recipe render them once.
    """
    artwork = load_artwork(fetch_packages(folder), sizes.things, seed)
    things = sorted({thing for _, thing in artwork})
    total = sizes.memorised + sizes.held_out + sizes.calibration + sizes.seen
    captions = iter(draw_captions(things, total, seed))

    def take(count: int) -> list[Caption]:
        return [next(captions) for _ in range(count)]

    memorised, held_out = take(sizes.memorised), take(sizes.held_out)
    calibration, seen = take(sizes.calibration), take(sizes.seen)
    counts = "-".join(str(count) for count in astuple(sizes))  # every one moves the pictures
    cache = folder / f"pictures-{seed}-{counts}.npy"
    if not cache.exists():
        rng = random.Random(seed + 1)
        pictures = np.empty((sizes.memorised + sizes.seen, SIZE, SIZE, 3), np.uint8)
        for row, caption in enumerate([*memorised, *seen]):
            pictures[row] = render(caption, artwork, rng)
        np.save(cache, pictures)
    pictures = np.load(cache, mmap_mode="r")
    return Dataset(
        memorised,
        seen,
        held_out,
        calibration,
        memorised_images=pictures[: sizes.memorised],
        seen_images=pictures[sizes.memorised :],
    )
