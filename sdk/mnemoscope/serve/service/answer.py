"""What may be told of a detection, by name: one table for every protocol, and for Triton."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError, MnemoscopeError, NumericsError

from ...screening.detection import Detection

__all__ = ["DEFAULT", "OUTPUTS", "Column", "Output", "columns", "judged", "outputs"]

Datatype = Literal["FP32", "INT32", "BOOL", "BYTES"]
_DTYPES = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "BOOL": np.dtype(np.bool_)}


@dataclass(frozen=True)
class Output:
    """One thing that may be told.

    Attributes:
        name: As of `Detection`.
        datatype: As the Open Inference Protocol calls it.
        of: Takes it from a detection; None where it has none.
        score: Whether it is a score, or helps to find out which prompts are just not flagged.
    """

    name: str
    datatype: Datatype
    of: Callable[[Detection], float | bool | str | None]
    score: bool = False


OUTPUTS = {
    each.name: each
    for each in (
        Output("score", "FP32", lambda found: found.score, score=True),
        Output("p_value", "FP32", lambda found: found.p_value, score=True),
        Output("memorized", "BOOL", lambda found: found.memorized),
        Output("truncated", "BOOL", lambda found: found.truncated),
        Output("threshold", "FP32", lambda found: found.threshold, score=True),
        Output("rms", "FP32", lambda found: found.rms, score=True),
        Output("cleared", "BOOL", lambda found: found.cleared, score=True),
        Output("detector", "BYTES", lambda found: found.detector),
        Output("backend", "BYTES", lambda found: found.backend),
        Output("bundle", "BYTES", lambda found: found.bundle),
        Output("steps", "INT32", lambda found: found.steps),
        Output("noises", "INT32", lambda found: found.noises),
        Output("passes", "INT32", lambda found: found.passes, score=True),  # fewer if cleared
        Output("first", "BYTES", lambda found: found.first or ""),
        Output("notes", "BYTES", lambda found: " ".join(found.notes)),
    )
}
DEFAULT = ("score", "p_value", "memorized", "truncated")  # where no outputs are named


_TOLD = {
    show_scores: {
        name: each
        for name, each in OUTPUTS.items()
        if show_scores or not each.score or each.datatype == "FP32"
    }
    for show_scores in (False, True)
}


def outputs(*, show_scores: bool) -> Mapping[str, Output]:
    """What may be asked for, by name: without scores only what can be NaN in their place."""
    return _TOLD[show_scores]


@dataclass(frozen=True)
class Column:
    """One output of several prompts.

    Attributes:
        output: Which.
        values: One for each prompt, in order; NaN for a number that is not there or not shown.
    """

    output: Output
    values: tuple[float | bool | str, ...]

    def array(self) -> NDArray[np.generic]:
        """As numpy has it: texts as objects, in UTF-8. # [n]"""
        if self.output.datatype == "BYTES":
            return np.array([str(each).encode() for each in self.values], np.object_)
        return np.array(self.values, _DTYPES[self.output.datatype])


def judged(found: Iterable[Detection | MnemoscopeError]) -> list[Detection]:
    """The detections, if each is a verdict: one that is none can look like an all-clear.

    Args:
        found: A detection of each prompt, or why there is none.

    Raises:
        MnemoscopeError: that of the first prompt that could not be measured.
        InputError: the first one that has no verdict, and why.
    """
    verdicts: list[Detection] = []
    for index, each in enumerate(found):
        if isinstance(each, (InputError, NumericsError)) and index:
            raise type(each)(f"{each} (Counted from prompt {index} of the request.)")
        if isinstance(each, MnemoscopeError):
            raise each
        if each.memorized is None:
            why = " ".join(each.notes) or "It was measured without a calibration."
            raise InputError(f"Prompt {index} (counted from 0) has no verdict. {why} Leave it out.")
        verdicts.append(each)
    return verdicts


def columns(
    detections: Sequence[Detection], names: Iterable[str] = DEFAULT, *, show_scores: bool
) -> list[Column]:
    """What is told of detections.

    Args:
        detections: Of each prompt.
        names: Outputs.
        show_scores: Whether scores are told, or NaN in their place.

    Raises:
        InputError: there is no output of that name, or it is named twice.
    """
    known = outputs(show_scores=show_scores)
    found: dict[str, Column] = {}
    for name in names:
        output = known.get(name)
        if output is None or name in found:
            raise InputError(
                f"{'There is no output' if output is None else 'Two outputs are called'} "
                f"{name!r:.80}. Ask for some of: {', '.join(known)}."
            )
        hidden = output.score and not show_scores
        values = (None if hidden else output.of(each) for each in detections)
        found[name] = Column(output, tuple(np.nan if each is None else each for each in values))
    return list(found.values())
