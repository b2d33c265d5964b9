"""Which backends work here, how far they are from PyTorch, and how fast they are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .backends import BACKENDS, BackendOptions
from .errors import BackendError, BackendUnavailable
from .screener import Screener

__all__ = ["CANDIDATES", "Trial", "fastest", "try_backends"]

CANDIDATES = (
    *BACKENDS,
    *(f"{name}:{precision}" for name, spec in BACKENDS.items() for precision in spec.lower),
)
_ROUNDS = 5


@dataclass(frozen=True)
class Trial:
    """One backend on one bundle, on this machine.

    Attributes:
        backend: Its name, for `open_backend`.
        problem: Why it cannot be used, or None.
        error: Largest relative error on the bundle's probes, or None.
        seconds: Median time of one prompt on one noise, or None.
    """

    backend: str
    problem: str | None = None
    error: float | None = None
    seconds: float | None = None


def try_backends(
    path: str | Path,
    names: Sequence[str] = CANDIDATES,
    options: BackendOptions = BackendOptions(),  # noqa: B008  # frozen
    trust: str | Path | None = None,
) -> Iterator[Trial]:
    """Screen the bundle's probes on each backend, with those of the options that it takes.

    Raises:
        BundleError: the bundle cannot be used.
        SignatureError: it is not signed by the key that is trusted, if one is.
        InputError: no such backend, or an option that cannot be used.
    """
    for name in names:
        try:
            taken = asdict(options.taken_by(name))
            with Screener.open(path, backend=name, trust=trust, **taken) as screener:
                error = screener.probe()
                yield Trial(name, error=error, seconds=_seconds(screener))
        except BackendError as problem:
            yield Trial(name, problem=str(problem))


def fastest(trials: Sequence[Trial], budget: float) -> Trial:
    """The fastest backend whose error is within the budget.

    Raises:
        BackendUnavailable: there is none; says what is wrong with each.
    """
    usable = [t for t in trials if t.error is not None and t.error <= budget]
    if not usable:
        reasons = "; ".join(
            f"{t.backend}: {t.problem or f'relative error {t.error:.1e}'}" for t in trials
        )
        raise BackendUnavailable(
            f"No backend measures this bundle to {budget:.0e} (relative) here. {reasons}"
        )
    return min(usable, key=lambda trial: trial.seconds or 0.0)


def _seconds(screener: Screener) -> float:
    prompt = screener.bundle.manifest.probes[0].prompt
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        screener.first_step([prompt], noises=1)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
