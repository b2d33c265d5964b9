"""Pictures for captions: one emoji, placed on a patterned background."""

from __future__ import annotations

import colorsys
import json
import random
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .captions import VENDORS, Caption

SIZE = 64  # pixels
_CATEGORIES = ("Objects", "Travel & Places", "Animals & Nature", "Food & Drink", "Activities")
_SCALES = {"tiny": (0.22, 0.32), "huge": (0.85, 1.15), "in the corner": (0.35, 0.5)}
_ANGLES = {"tilted": (25.0, 60.0), "upside down": (165.0, 195.0)}
_LIGHTNESS = {"dark": (0.12, 0.34), "medium": (0.4, 0.6), "pastel": (0.72, 0.94)}

Artwork = Mapping[tuple[str, str], Image.Image]  # (vendor, thing) -> RGBA picture
Pixels = NDArray[np.uint8]


def load_artwork(
    packages: Mapping[str, Path], count: int, seed: int
) -> dict[tuple[str, str], Image.Image]:
    """Read `count` things, each by every vendor, out of the emoji-datasource npm tarballs."""
    archives = {vendor: tarfile.open(packages[vendor]) for vendor in VENDORS}  # noqa: SIM115
    try:
        index = archives["google"].extractfile("package/emoji.json")
        if index is None:
            raise FileNotFoundError("package/emoji.json is missing from the tarball")
        files = {}
        for entry in json.load(index):
            name = entry["name"].lower().replace(" symbol", "").replace("-", " ")
            words = name.split()
            drawn = all(entry[f"has_img_{vendor}"] for vendor in VENDORS)
            simple = len(words) <= 2 and all(word.isalpha() for word in words)
            if entry["category"] in _CATEGORIES and drawn and simple:
                files[name] = entry["image"]
        chosen = sorted(random.Random(seed).sample(sorted(files), count))
        artwork = {}
        for vendor in VENDORS:
            for name in chosen:
                member = archives[vendor].extractfile(f"package/img/{vendor}/64/{files[name]}")
                if member is None:
                    raise FileNotFoundError(f"{vendor} has no picture of {name}")
                artwork[vendor, name] = Image.open(BytesIO(member.read())).convert("RGBA")
        return artwork
    finally:
        for archive in archives.values():
            archive.close()


def _colour(tone: str, rng: random.Random) -> NDArray[np.float32]:
    low, high = _LIGHTNESS[tone]
    rgb = colorsys.hls_to_rgb(rng.random(), rng.uniform(low, high), rng.uniform(0.35, 0.9))
    return np.array(rgb, np.float32) * 255


def _mask(pattern: str, rng: random.Random) -> NDArray[np.float32]:
    """How much of the second colour each pixel shows, [SIZE, SIZE] in 0..1, antialiased."""
    fine = 2 * SIZE
    y, x = np.mgrid[0:fine, 0:fine].astype(np.float32) / fine
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.16, 0.34)
    u = (x * np.cos(angle) + y * np.sin(angle)) / period + rng.random()
    v = (y * np.cos(angle) - x * np.sin(angle)) / period + rng.random()
    if pattern == "stripes":
        mask = np.floor(2 * u) % 2
    elif pattern == "checks":
        mask = (np.floor(u) + np.floor(v)) % 2
    elif pattern == "dots":
        mask = ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.09).astype(np.float32)
    elif pattern == "rings":
        mask = np.floor(np.hypot(x - rng.random(), y - rng.random()) / period * 2) % 2
    elif pattern == "gradient":
        along = x * np.cos(2 * angle) + y * np.sin(2 * angle)
        mask = (along - along.min()) / np.ptp(along)
    else:
        mask = np.zeros_like(x)
    return mask.reshape(SIZE, 2, SIZE, 2).mean((1, 3), dtype=np.float32)


def render(caption: Caption, artwork: Artwork, rng: random.Random) -> Pixels:
    """The picture of a caption, [SIZE, SIZE, 3]; what the caption leaves open is random."""
    mask = _mask(caption.pattern, rng)[..., None]
    ground = _colour(caption.tone, rng) * (1 - mask) + _colour(caption.tone, rng) * mask
    canvas = Image.fromarray(ground.astype(np.uint8))

    thing = artwork[caption.vendor, caption.thing]
    if rng.random() < 0.5:
        thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    low, high = _ANGLES.get(caption.placement, (0.0, 12.0))
    angle = rng.uniform(low, high) * rng.choice((-1, 1))
    side = max(8, round(SIZE * rng.uniform(*_SCALES.get(caption.placement, (0.42, 0.78)))))
    thing = thing.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    side = round(side * thing.width / 64)
    thing = thing.resize((side, side), Image.Resampling.LANCZOS)
    span = SIZE - side
    if caption.placement == "in the corner":
        left, top = (rng.choice((0, span)) for _ in range(2))
    else:
        left, top = (round(span * rng.uniform(0.0, 1.0)) for _ in range(2))
    canvas.paste(thing, (left, top), thing)
    return np.asarray(canvas)
