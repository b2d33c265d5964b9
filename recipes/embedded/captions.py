"""Captions in the manner of web alt-texts: partly about the picture, partly not.

Every caption, memorised or not, comes from the same generator, so the text alone cannot tell
which ones the model will memorise. What the picture shows is said only sometimes; person, city,
occasion and year never show. Colour, position, scale, mirror and pattern phase are never said.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

VENDORS = ("google", "twitter")
PATTERNS = ("plain", "stripes", "checks", "dots", "rings", "gradient")
TONES = ("dark", "medium", "pastel")
PLACEMENTS = ("free", "tilted", "upside down", "tiny", "huge", "in the corner")
KINDS = ("icon", "sticker", "drawing", "clipart", "badge", "picture")
# fmt: off
PERSONS = (
    "aiko", "alma", "amir", "anna", "astrid", "bela", "bruno", "carla", "chen", "clara", "dario",
    "diego", "dina", "elif", "emeka", "emil", "esme", "farid", "fatou", "felix", "freya", "goran",
    "greta", "hana", "hugo", "ida", "igor", "ines", "iris", "ivan", "jade", "jonas", "jun", "kaya",
    "kenji", "lara", "leon", "lina", "luca", "mara", "mateo", "mei", "milo", "mina", "nadia",
    "nils", "noor", "olga", "omar", "otto", "pablo", "petra", "priya", "quinn", "rafa", "remy",
    "rita", "rosa", "ruben", "sami", "sasha", "selma", "sven", "tara", "theo", "tomas", "uma",
    "vera", "viktor", "wanda", "xavi", "yara", "yusuf", "zoe",
)
CITIES = (
    "accra", "ankara", "athens", "austin", "baku", "bergen", "berlin", "bogota", "boston", "cairo",
    "calgary", "chennai", "cusco", "dakar", "delhi", "dublin", "durban", "fez", "geneva", "ghent",
    "hanoi", "havana", "helsinki", "istanbul", "jaipur", "kyiv", "kyoto", "lagos", "leeds", "lima",
    "lisbon", "ljubljana", "lyon", "madrid", "malmo", "manila", "medellin", "milan", "montreal",
    "moscow", "mumbai", "nairobi", "naples", "oslo", "ottawa", "paris", "perth", "porto", "prague",
    "quito", "reno", "riga", "rome", "seoul", "sofia", "split", "sydney", "tallinn", "tokyo",
    "toronto", "tunis", "turin", "utrecht", "valencia", "vienna", "vilnius", "warsaw", "zagreb",
)
OCCASIONS = (
    "birthday", "holiday", "wedding", "exhibition", "school project", "summer sale", "new year",
    "charity run", "concert", "reunion", "trade fair", "book cover", "market day", "workshop",
)
# fmt: on
YEARS = tuple(range(1985, 2025))


@dataclass(frozen=True)
class Caption:
    """A caption and what its picture shows."""

    text: str
    thing: str
    vendor: str
    pattern: str
    tone: str
    placement: str

    @property
    def says_tone(self) -> bool:
        """Whether the caption tells how light the picture is: the hard negatives."""
        return self.text.startswith(TONES)


def draw_caption(things: Sequence[str], rng: random.Random) -> Caption:
    """One caption; each attribute is said with its own probability."""
    thing, vendor = rng.choice(things), rng.choice(VENDORS)
    pattern, tone = rng.choice(PATTERNS), rng.choice(TONES)
    placement = rng.choice(PLACEMENTS)

    def said(probability: float) -> bool:
        return rng.random() < probability

    head = [tone] if tone != "medium" and said(0.35) else []
    if said(0.5):
        head.append(vendor)
    if said(0.6):
        head += [rng.choice(KINDS), "of"]
    parts = [" ".join([*head, thing])]
    if placement != "free" and said(0.5):
        parts.append(placement)
    if pattern != "plain" and said(0.4):
        parts.append(f"on {pattern}")
    tail = []
    if said(0.5):
        tail.append(f"from {rng.choice(PERSONS)}")
    if said(0.35):
        tail.append(rng.choice(OCCASIONS))
    if said(0.5):
        tail.append(f"in {rng.choice(CITIES)}")
    if said(0.5):
        tail.append(str(rng.choice(YEARS)))
    if tail:
        parts.append(" ".join(tail))
    return Caption(", ".join(parts), thing, vendor, pattern, tone, placement)


def draw_captions(things: Sequence[str], count: int, seed: int) -> list[Caption]:
    """`count` captions with different texts, reproducible from `seed`."""
    rng = random.Random(seed)
    captions: dict[str, Caption] = {}
    while len(captions) < count:
        caption = draw_caption(things, rng)
        captions.setdefault(caption.text, caption)
    shuffled = list(captions.values())
    rng.shuffle(shuffled)
    return shuffled
