"""Pictures as drawn and mitigated, with what was measured of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..prompts.printable import counted
from ..templates import render
from .studio import Drawing

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..mitigate import Picture

__all__ = ["drawing_card", "heat_map"]

_LONG = 600  # characters of a prompt that a card shows
_HOT = (255, 112, 67)
_FULL = 0.95  # share of the pixels of the unmitigated picture that have less than the full colour


@dataclass(frozen=True)
class _Figure:
    """A picture as PNG, what it is, what is known of it, and where the prompt decided it."""

    picture: bytes
    caption: str
    facts: tuple[str, ...]
    heat: bytes | None = None


def drawing_card(drawing: Drawing) -> str:
    """What came of drawing a prompt."""
    found = drawing.mitigation
    if found.flagged is False:
        kind, title = "clean", "Drawn as ever"
        sentence = "The prompt was not flagged, and its pictures do not agree more than usual."
    elif found.verified:
        kind, title = "clean", "Mitigated: the training picture does not come out"
        sentence = (
            "The mitigated pictures are no copies, and score as benign prompts do. Look at them: "
            "no copy does not mean a good picture."
        )
    else:
        kind = "flagged" if found.verified is False else "none"
        title = "Do not use it" if found.verified is False else "Drawn, and not verified"
        sentence = f"{found.why}."[:1].upper() + f"{found.why}."[1:]
    return render(
        "ui/drawing.html",
        kind=kind,
        title=title,
        sentence=sentence,
        prompt=found.prompt,
        longest=_LONG,
        rows=list(_rows(drawing)),
        meaning=_meaning(drawing),
    )


def heat_map(picture: Image, where: NDArray[np.float32], most: float) -> Image:
    """A picture in grey, with colour where the prompt decided it.

    Args:
        picture: The picture.
        where: Squared differences of the predictions at the last step. # [H, W] of latents
        most: The difference that has the full colour.
    """
    from PIL import Image

    heat = np.clip(where / most if most > 0 else np.zeros_like(where), 0, 1) * 255
    mask = Image.fromarray(heat.astype(np.uint8)).resize(picture.size, Image.Resampling.BILINEAR)
    grey = picture.convert("L").point(lambda value: value // 2 + 96).convert("RGB")
    return Image.composite(Image.new("RGB", picture.size, _HOT), grey, mask)


def _rows(drawing: Drawing) -> Iterator[list[_Figure]]:
    """For each seed what belongs together."""
    found = drawing.mitigation
    for k, (before, after) in enumerate(zip(found.originals, found.pictures, strict=True)):
        figures = []
        if k == 0 and drawing.training is not None:
            like = f"{drawing.training.similarity:.3f}"
            facts = (f"copy similarity {like} with the drawing on its right",)
            picture = _png(drawing.training.picture)
            figures.append(_Figure(picture, "nearest training picture", facts))
        most = 0.0 if before.recited is None else float(np.quantile(before.recited, _FULL))
        figures.append(_figure(before, "as drawn", most))
        if found.flagged is not False:
            figures.append(_figure(after, "mitigated", most))
        yield figures


def _figure(picture: Picture, name: str, most: float) -> _Figure:
    heat = None
    if picture.recited is not None:
        heat = _png(heat_map(picture.image, picture.recited, most))
    return _Figure(_png(picture.image), f"{name}, seed {picture.seed}", _facts(picture), heat)


def _facts(picture: Picture) -> tuple[str, ...]:
    judged = picture.judged
    facts = []
    if judged.copy_similarity is not None:
        facts.append(f"copy similarity {judged.copy_similarity:.3f}")
    if judged.unmitigated_similarity is not None:
        facts.append(f"with the unmitigated picture {judged.unmitigated_similarity:.3f}")
    if judged.alignment is not None:
        facts.append(f"alignment {judged.alignment:.3f}")
    facts.append(f"score {judged.score:.3f}")
    if picture.strategy != "none":
        facts.append(f"by {picture.strategy}")
    return tuple(facts)


def _meaning(drawing: Drawing) -> list[str]:
    found = drawing.mitigation
    above = drawing.copied_above
    copies = (
        "what makes a copy is not known for it"
        if above is None
        else f"above {above:.3g} a picture counts as a copy"
    )
    cosine = "Copy similarity is the cosine with the training picture that is most similar. "
    return [
        f"{'' if drawing.training is None else cosine}A mitigated picture is compared with the "
        f"unmitigated ones too. Cosines are by {found.descriptor}; {copies}. Alignment is the CLIP "
        "score of picture and prompt.",
        "Colour shows where the prompt decided the pixels at the last step (the squared "
        "difference of the two noise predictions). In a recited picture those are the parts that "
        "are copied. Both maps have one scale.",
        f"Score here is the mean over the first {counted(drawing.scored_steps, 'step')} on the "
        "picture's own noise; it is not comparable with the verdict's.",
        f"It took {found.seconds:.0f} s.",
    ]


def _png(picture: Image) -> bytes:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "PNG")
    return file.getvalue()
