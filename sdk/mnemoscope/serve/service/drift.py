"""Whether what models are asked still scores as what they were calibrated on."""

from __future__ import annotations

import importlib.util
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from mnemoscope_runtime.errors import BackendUnavailable, InputError

from ...calibration import Calibration, Drift

__all__ = ["WINDOW", "Traffic", "is_watched"]

WINDOW = 1000  # prompts


def is_watched() -> bool:
    """Whether there is what the test takes: SciPy, which a service does not need for verdicts."""
    return importlib.util.find_spec("scipy") is not None


@dataclass
class _Recent:
    """The last scores of one model, all measured as one calibration was."""

    calibration: Calibration
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))


class Traffic:
    """The last thousand scores of each model. Safe to share between threads."""

    def __init__(self) -> None:
        self._recent: dict[str, _Recent] = {}
        self._lock = threading.Lock()

    def add(self, model: str, calibration: Calibration, scores: Iterable[float]) -> None:
        """Take scores in; those of another calibration than the last are forgotten."""
        with self._lock:
            recent = self._recent.get(model)
            if recent is None or recent.calibration is not calibration:
                recent = self._recent[model] = _Recent(calibration)
            recent.scores.extend(scores)

    def tested(self) -> dict[str, Drift]:
        """The test of each model that has been asked often enough; none without SciPy."""
        with self._lock:
            known = {
                model: (each.calibration, list(each.scores)) for model, each in self._recent.items()
            }
        found = {}
        for model, (calibration, scores) in known.items():
            try:
                found[model] = calibration.drift(scores)
            except InputError:  # too few
                continue
            except BackendUnavailable:
                break
        return found
