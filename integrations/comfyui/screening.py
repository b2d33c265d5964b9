"""Screening a prompt with a bundle before anything is sampled, and saying what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from mnemoscope import Detection, Detector
from mnemoscope.explain import Explainer

from .decision import Blocked

__all__ = ["Screened", "check_clear", "screen"]

_WORDS = 5  # of an explanation


@dataclass(frozen=True)
class Screened:
    """What there is to say of a prompt.

    Attributes:
        detection: The detector's.
        explanation: Which words its score comes from; empty where that was not asked.
    """

    detection: Detection
    explanation: str = ""

    @property
    def clear(self) -> bool:
        """Whether all of it was read as ComfyUI reads it, judged, and not flagged."""
        return self.detection.memorized is False and not self.detection.notes

    def __str__(self) -> str:
        found = self.detection
        score = f"Score {found.score:.4g}"
        if found.memorized is None:
            why = "" if found.notes else "; nothing is calibrated in this setting"
            text = f"No verdict. {score}{why}."
        else:
            what = "Memorised" if found.memorized else "Not flagged"
            text = f"{what}. {score}, threshold {found.threshold:.4g}, p-value {found.p_value:.2g}."
        return " ".join([text, *found.notes])


def screen(
    detector: Detector, prompt: str, *, steps: int = 1, noises: int | None = None, explain: bool
) -> Screened:
    """Screen one prompt; if it is flagged, say which words it comes from.

    Args:
        detector: The bundle's.
        prompt: The prompt.
        steps: Denoising steps to measure.
        noises: How many noises of the bundle's bank; all by default.
        explain: Whether to weigh the words of a flagged prompt: a measurement for each.

    Raises:
        MnemoscopeError: as `Detector.screen` and `Explainer.explain`.
    """
    [detection] = detector.screen([prompt], steps=steps, noises=noises)
    if not explain or not detection.memorized:
        return Screened(detection)
    words = Explainer(detector).explain(prompt, steps=steps, noises=noises).ranked
    top = [f"{each.word} ({each.score:+.3g})" for each in words[:_WORDS] if each.score > 0]
    if not top:
        return Screened(detection, "Without any one of its words it scores as high.")
    return Screened(detection, f"By so much the score drops without: {', '.join(top)}.")


def check_clear(screened: Screened) -> None:
    """Let only prompts through that are clear.

    Raises:
        Blocked: it is flagged, or was not judged as a whole.
    """
    if not screened.clear:
        said = f"{screened} {screened.explanation}".rstrip()
        raise Blocked(f"This prompt is not drawn. {said}", [screened.detection])
