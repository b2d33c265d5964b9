"""Captions with their words marked, for the report."""

from __future__ import annotations

from mnemoscope_runtime import CalibrationError, InputError

from ..detector import Detector
from ..explain import EditOptions, Explainer, find_edits
from ..explain.pictures import coloured
from .gallery import Words

__all__ = ["marked"]

_EDITS = EditOptions(budget=32, most=1)


def marked(detector: Detector, steps: int, noises: int | None, prompt: str) -> Words:
    """A caption with the words marked that its score comes from, and a change that is not flagged.

    Nothing is marked where there is nothing to weigh.
    """
    try:
        explanation = Explainer(detector).explain(prompt, steps=steps, noises=noises)
        edits = find_edits(detector, prompt, _EDITS, steps=steps, noises=noises).found
    except (InputError, CalibrationError):
        return Words([(prompt, "")])
    return Words(coloured(explanation), edits[0].prompt if edits else None)
