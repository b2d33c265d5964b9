"""The embedded model: a tiny Stable Diffusion that memorised a hundred captions.

It is real (diffusers' layout, trained by `make embedded-model`) and small enough to ship, so
everything works offline from the first minute. See docs/embedded-model.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from mnemoscope_runtime.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "BUNDLE",
    "FLOW_BUNDLE",
    "FLOW_MODEL",
    "LEXICON",
    "MEMORIZED",
    "MODEL",
    "PROMPTS",
    "SHIPPED",
    "EmbeddedPrompt",
    "Shipped",
    "Split",
    "memorized_pictures",
    "read_prompts",
]

_HERE = Path(__file__).parent
MODEL = _HERE / "model"
"""The embedded model, a folder in diffusers' layout."""
BUNDLE = _HERE / "bundle"
"""Its bundle, calibrated."""
FLOW_MODEL = _HERE / "flow" / "model"
"""The embedded flow, a Stable Diffusion 3 that memorised the same captions."""
FLOW_BUNDLE = _HERE / "flow" / "bundle"
"""Its bundle, calibrated."""
PROMPTS = _HERE / "prompts.jsonl"
"""Its captions, a JSON object a line; `read_prompts` reads them."""
LEXICON = _HERE / "lexicon.txt"
"""Of which kind the words of its captions are: a file for `read_lexicon`."""
MEMORIZED = _HERE / "memorized.png"
"""The training pictures of its memorised captions, 64x64, ten a row, in order."""

_SIDE = 64


@dataclass(frozen=True)
class Shipped:
    """A model that ships.

    Attributes:
        model: Its folder, in diffusers' layout.
        bundle: Its bundle, calibrated.
    """

    model: Path
    bundle: Path


SHIPPED: Mapping[str, Shipped] = {
    "embedded": Shipped(MODEL, BUNDLE),
    "embedded-flow": Shipped(FLOW_MODEL, FLOW_BUNDLE),
}
"""By what the command line calls them, wherever it takes a bundle or a model."""

Split = Literal["memorized", "seen", "held_out", "calibration"]
"""Which captions: memorised, seen in training, never seen, or those that the threshold is of."""


@dataclass(frozen=True)
class EmbeddedPrompt:
    """A caption of the embedded model's world.

    Attributes:
        prompt: The caption.
        split: "memorized" (trained on hundreds of times), "seen" (a few times), "held_out" and
            "calibration" (never).
        tone: Whether it says how light the picture is ("dark", "pastel"): the hard negatives.
    """

    prompt: str
    split: Split
    tone: bool


def read_prompts(*splits: Split, file: Path = PROMPTS) -> list[EmbeddedPrompt]:
    """The embedded prompt set, or the named splits of it; of another model by the recipe.

    Raises:
        InputError: there is no such split.
    """
    for split in splits:
        if split not in get_args(Split):
            raise InputError(
                f"There are no prompts that are {split!r:.40}. Choose some of: "
                f"{', '.join(get_args(Split))}."
            )
    decoder = msgspec.json.Decoder(EmbeddedPrompt)
    rows = decoder.decode_lines(file.read_bytes())
    return [row for row in rows if not splits or row.split in splits]


def memorized_pictures(file: Path = MEMORIZED) -> list[Image]:
    """The training pictures of the memorised captions, in their order; needs Pillow."""
    from PIL import Image

    with Image.open(file) as sheet:
        pictures = sheet.convert("RGB")
    side = _SIDE
    return [
        pictures.crop((x, y, x + side, y + side))
        for y in range(0, pictures.height, side)
        for x in range(0, pictures.width, side)
    ]
