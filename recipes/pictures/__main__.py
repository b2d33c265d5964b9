"""`python -m recipes.pictures [FOLDER]`: draws them into docs/images, or elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from .charts import calibration, cascade, scores, taps
from .diagrams import comfyui, metric, words
from .svg import Drawing

IMAGES = Path(__file__).parents[2] / "docs" / "images"
PICTURES: dict[str, Callable[[], Drawing]] = {
    "calibration": calibration,
    "cascade": cascade,
    "comfyui": comfyui,
    "metric": metric,
    "scores": scores,
    "taps": taps,
    "words": words,
}


def main(folder: Path = IMAGES) -> None:
    """Write each, as FOLDER/NAME.svg."""
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(str(draw()), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
