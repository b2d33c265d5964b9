"""Whether an engine measures here what PyTorch does: a readiness check that shows a measurement."""

from __future__ import annotations

from mnemoscope_runtime.errors import NumericsError

from ..detector import Detector

__all__ = ["check_probes"]


def check_probes(detector: Detector) -> float:
    """Measure the bundle's probes, and compare them with PyTorch's values of them.

    Returns:
        The largest error, relative.

    Raises:
        NumericsError: they are further from them than the bundle's budget, or no numbers.
        BackendError: the engine failed.
    """
    error, budget = detector.screener.probe(), detector.screener.bundle.manifest.budget
    if not error <= budget:  # NaN is no less than anything
        raise NumericsError(
            f"{detector.screener.backend.name} is {error:.1e} from PyTorch on this machine "
            f"(relative), and the bundle allows {budget:.0e}. Choose another --backend; "
            "`mnemoscope doctor` lists those that agree."
        )
    return error
