"""The gate between a staged bundle and the world: every graph must agree with its oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Screener
from mnemoscope_runtime.errors import ParityError
from mnemoscope_runtime.manifest import Precision, Probe

__all__ = ["PROMPTS", "Plan", "Tolerance", "compare", "probes"]

PROMPTS = (
    "a photo of a cat on a windowsill",
    "The quick brown fox, oil painting, 1889",
    "icon of rocket",
    "portrait of a woman with a red hat in the style of an old master, highly detailed, canvas",
    "x",
)
_LARGE = 200_000_000  # parameters of a UNet above which a pass takes seconds


@dataclass(frozen=True)
class Plan:
    """What is measured: `prompts` of PROMPTS, at every batch size and number of noises."""

    prompts: int = 5
    batches: tuple[int, ...] = (1, 2, 3, 5)
    noises: tuple[int, ...] = (1, 64)  # as many as the bank has, at most
    steps: int = 3

    @classmethod
    def of(cls, parameters: int) -> Plan:
        """All of it for a small UNet; for a large one what takes minutes."""
        if parameters < _LARGE:
            return cls()
        return cls(prompts=2, batches=(1, 2), noises=(1, 2), steps=2)


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted relative error of a magnitude, |engine - oracle| / oracle."""

    magnitude: float = 1e-4

    @classmethod
    def of(cls, precision: Precision) -> Tolerance:
        """What rounding explains: a few units in the last place of a few hundred layers."""
        return cls({"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}[precision])


def probes(expected: NDArray[np.float32]) -> tuple[Probe, ...]:
    """The first step of what the oracle measured, for the manifest."""
    rows = zip(PROMPTS, expected[..., 0].tolist(), strict=False)
    return tuple(Probe(prompt, tuple(values)) for prompt, values in rows)


def compare(
    open_screener: Callable[[], Screener],
    expected: NDArray[np.float32],
    embeds: NDArray[np.float32],
    plan: Plan,
    tolerance: Tolerance,
    oracle: str,
) -> dict[str, dict[str, float]]:
    """Compare every graph of a staged bundle with the oracle, on several batch sizes.

    Args:
        open_screener: Opens the staged bundle, with no engine loaded yet; called more than once,
            so that only one engine with the UNet's weights is in memory at a time.
        expected: The oracle's magnitudes of the plan's prompts. # [prompt, noise, step]
        embeds: The oracle's embeddings of PROMPTS. # [5, L, D]
        plan: What is measured.
        tolerance: What is accepted.
        oracle: What errors call the oracle.

    Returns:
        The largest relative error of each graph and what it was measured on.

    Raises:
        ParityError: a graph differs by more than the tolerance.
    """

    report = {}
    with open_screener() as screener:

        def first_step(prompts: list[str], noises: int) -> np.ndarray:
            return screener.first_step(prompts, noises=noises)[..., None]

        report["screen"] = _worst("screen", first_step, expected[..., :1], plan, tolerance, oracle)
    with open_screener() as other:

        def trajectory(prompts: list[str], noises: int) -> np.ndarray:
            return other.trajectory(prompts, steps=plan.steps, noises=noises)

        report["step"] = _worst("step", trajectory, expected, plan, tolerance, oracle)
        report["text_encoder"] = _embedding_error(other, embeds, tolerance, oracle)
    return report


def _worst(
    graph: str,
    measure: Callable[[list[str], int], np.ndarray],
    expected: np.ndarray,  # [prompt, noise, step]
    plan: Plan,
    tolerance: Tolerance,
    oracle: str,
) -> dict[str, float]:
    worst = 0.0
    for batch in plan.batches:
        for noises in {min(most, expected.shape[1]) for most in plan.noises}:
            wanted = expected[:batch, :noises]
            found = measure(list(PROMPTS[:batch]), noises)
            error = float((np.abs(found - wanted) / wanted).max())
            if not error <= tolerance.magnitude:
                raise ParityError(
                    f"The {graph} graph differs from {oracle} by {error:.1e} (relative, batch "
                    f"{batch}, {noises} noises); {tolerance.magnitude:.0e} is allowed. Nothing was "
                    "written. Export in float32, with the versions in constraints.txt."
                )
            worst = max(worst, error)
    return {"max_relative_error": worst, "prompts": plan.prompts, "batches": len(plan.batches)}


def _embedding_error(
    screener: Screener, expected: np.ndarray, tolerance: Tolerance, oracle: str
) -> dict[str, float]:
    error = float(np.abs(screener.embed(PROMPTS) - expected).max() / np.abs(expected).max())
    if not error <= tolerance.magnitude:
        raise ParityError(
            f"The text_encoder graph differs from {oracle} by {error:.1e} (relative to the largest "
            f"value); {tolerance.magnitude:.0e} is allowed. Nothing was written."
        )
    return {"max_relative_error": error, "prompts": len(PROMPTS)}
