"""The gate between a staged bundle and the world: every graph must agree with its oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Bundle, Screener, open_backend
from mnemoscope_runtime.agreement import relative_error
from mnemoscope_runtime.backends.onnxruntime import OnnxRuntime
from mnemoscope_runtime.errors import BackendUnavailable, ExportError, ParityError
from mnemoscope_runtime.manifest import Precision, Probe

__all__ = [
    "ORACLES",
    "PROMPTS",
    "Plan",
    "Reference",
    "Tolerance",
    "check_backend",
    "check_parity",
]

PROMPTS = (
    "a photo of a cat on a windowsill",
    "The quick brown fox, oil painting, 1889",
    "icon of rocket",
    "portrait of a woman with a red hat in the style of an old master, highly detailed, canvas",
    "x",
)
_REMEDIES = {
    True: "Rounding explains up to 1e-4 of any magnitude, so the graph computes something else: "
    "export with the versions in constraints.txt, which the tests ran with; or accept it with "
    "--tolerance, and see with `mnemoscope parity OUT --backend torch --model MODEL` what it does "
    "to verdicts.",
    False: "Export in float32 or the other half precision; or accept it with --tolerance, and "
    "see with `mnemoscope parity OUT --reference FLOAT32_BUNDLE` what it does to verdicts.",
}
Measure = Callable[[list[str], int], np.ndarray]
_RESOLVED = 1e-4  # what `floors` are measured to
_TOLD = 100.0  # times what rounding makes: an engine that is a hundredth wrong is told from it
_LARGE = 200_000_000  # parameters of a UNet above which a pass takes seconds
_HUGE = 2_000_000_000  # and tens of seconds
ORACLES: dict[Precision, str] = {
    "float32": "onnxruntime",
    "float16": "onnxruntime",
    "bfloat16": "openvino",
}


@dataclass(frozen=True)
class Plan:
    """What is measured: `prompts` of PROMPTS, at every batch size and number of noises."""

    prompts: int = 5
    batches: tuple[int, ...] = (1, 2, 3, 5)
    noises: tuple[int, ...] = (1, 64)  # as many as the bank has, at most
    steps: int = 3
    is_large: bool = False

    @classmethod
    def of(cls, parameters: int) -> Plan:
        """All of it for a small UNet; for a large one what takes minutes."""
        if parameters < _LARGE:
            return cls()
        if parameters < _HUGE:
            return cls(prompts=2, batches=(1, 2), noises=(1, 2), steps=2, is_large=True)
        return cls(prompts=2, batches=(1, 2), noises=(1,), steps=2, is_large=True)


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted error of a magnitude, relative as in `agreement`."""

    magnitude: float = 1e-4

    @classmethod
    def of(cls, precision: Precision) -> Tolerance:
        """What rounding explains: a few units in the last place of a few hundred layers."""
        return cls({"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}[precision])


@dataclass(frozen=True)
class Reference:
    """What the oracle measured: all that the gate needs of a model, which can then be let go.

    Attributes:
        oracle: What errors call it.
        plan: What is compared.
        screening: Of the plan's prompts on every noise, at the screening timestep: the magnitude,
            then the norms of the bundle's taps. # [prompt, noise, 1 + K]
        sampling: Likewise along the first steps of sampling. # [prompt, noise, step, 1 + K]
        embeds: Of PROMPTS. # [5, ...] each
        floors: What errors of the magnitude and of each tap count relative to, where it is larger
            than what is measured; see `agreement`. # [1 + K]
    """

    oracle: str
    plan: Plan
    screening: NDArray[np.float32]
    sampling: NDArray[np.float32]
    embeds: tuple[NDArray[np.float32], ...]
    floors: tuple[float, ...]

    def check(self) -> None:
        """Make sure that there is something to compare: prompts move the prediction measurably.

        Raises:
            ExportError: they do not.
        """
        largest, least = float(self.screening[..., 0].max()), float(self.screening[..., 0].min())
        rounding = self.floors[0] * _RESOLVED
        if not (largest > _TOLD * rounding and least > 0):
            raise ExportError(
                f"Prompts hardly move what this model predicts: magnitudes are {least:.1e} to "
                f"{largest:.1e}, and rounding alone makes up to {rounding:.1e}. Nothing could be "
                "screened with it. See whether its cross-attention is trained, and its text "
                "encoder its own."
            )

    def probes(self) -> tuple[Probe, ...]:
        """Magnitudes at the screening timestep, for the manifest."""
        rows = zip(PROMPTS, self.screening[..., 0].tolist(), strict=False)
        return tuple(Probe(prompt, tuple(values)) for prompt, values in rows)


def check_backend(precision: Precision) -> None:
    """Make sure that the graphs can be run and compared before any work is done for them.

    Raises:
        BackendUnavailable: the backend of the parity gate is not installed, or does not work.
    """
    try:
        open_backend(ORACLES[precision]).close()
    except BackendUnavailable as error:
        raise BackendUnavailable(
            f"Graphs in {precision} are checked on the backend {ORACLES[precision]!r}. {error}"
        ) from None


def check_parity(
    bundle: Path, precision: Precision, reference: Reference, tolerance: Tolerance
) -> dict[str, dict[str, float]]:
    """Compare every graph of a staged bundle with the oracle, on several batch sizes.

    Args:
        bundle: Opened more than once, so that only one engine with the UNet's weights is in memory
            at a time.
        precision: Of its graphs.
        reference: What the oracle measured.
        tolerance: What is accepted.

    Returns:
        The largest relative error of each graph and what it was measured on.

    Raises:
        ParityError: a graph differs by more than the tolerance.
    """
    plan, first = reference.plan, reference.screening[:, :, None]
    report = {}

    def check(graph: str, measure: Measure, expected: np.ndarray, names: Sequence[str]) -> None:
        report[graph] = _worst(graph, names, measure, expected, reference, tolerance, precision)

    with _opened(bundle, precision, plan) as screener:
        taps, stops = screener.taps, "taps" in screener.bundle.manifest.graphs

        def magnitude(prompts: list[str], noises: int) -> np.ndarray:
            return screener.first_step(prompts, noises=noises)[:, :, None, None]

        def tap_norms(prompts: list[str], noises: int) -> np.ndarray:
            return screener.first_step_taps(prompts, noises=noises)[:, :, None]

        def both(prompts: list[str], noises: int) -> np.ndarray:
            return np.concatenate([f(prompts, noises) for f in (magnitude, tap_norms)], -1)

        if taps and not stops:
            check("screen", both, first, taps)
        else:
            check("screen", magnitude, first[..., :1], ())
    if stops:
        with _opened(bundle, precision, plan) as screener:
            check("taps", tap_norms, first[..., 1:], taps)
    with _opened(bundle, precision, plan) as other:

        def trajectory(prompts: list[str], noises: int) -> np.ndarray:
            count, steps = other.counts(noises, plan.steps)
            found = np.empty((len(prompts), count, steps, 1 + len(taps)), np.float32)
            for tile in other.tiles(prompts, noises=noises):
                for k, seen in enumerate(other.walk(tile, other.timesteps[:steps])):
                    found[*tile.where, k] = np.dstack([seen.magnitude, seen.taps])
            return found

        check("step", trajectory, reference.sampling, taps)
        report["text_encoder"] = _embedding_error(other, reference, tolerance)
    return report


def _opened(bundle: Path, precision: Precision, plan: Plan) -> Screener:
    """A bundle on the backend that the gate runs graphs of this precision on."""
    if ORACLES[precision] == "onnxruntime":
        return Screener(Bundle.open(bundle), OnnxRuntime(lean=plan.is_large))
    return Screener(Bundle.open(bundle), open_backend(ORACLES[precision]))


def _worst(
    graph: str,
    taps: Sequence[str],
    measure: Measure,
    expected: np.ndarray,  # [prompt, noise, step, quantity]: the magnitude, taps, or both
    reference: Reference,
    tolerance: Tolerance,
    precision: Precision,
) -> dict[str, float]:
    plan, worst = reference.plan, 0.0
    floors = reference.floors[-expected.shape[-1] :] if taps else reference.floors[:1]
    for batch in plan.batches:
        for noises in {min(most, expected.shape[1]) for most in plan.noises}:
            wanted = expected[:batch, :noises]
            found = measure(list(PROMPTS[:batch]), noises)
            errors = relative_error(found, wanted, floors).max((0, 1, 2))  # [quantity]
            error, which = float(errors.max()), int(errors.argmax())
            if not error <= tolerance.magnitude:
                tap = which - len(errors) + len(taps)  # the magnitude, if it is there, is first
                where = f" in the tap {taps[tap]}" if tap >= 0 else ""
                raise ParityError(
                    f"The {graph} graph differs from {reference.oracle} by {error:.1e}{where} "
                    f"(relative, batch {batch}, {noises} noises); {tolerance.magnitude:.0e} is "
                    f"allowed. Nothing was written. {_REMEDIES[precision == 'float32']}"
                )
            worst = max(worst, error)
    return {"max_relative_error": worst, "prompts": plan.prompts, "batches": len(plan.batches)}


def _embedding_error(
    screener: Screener, reference: Reference, tolerance: Tolerance
) -> dict[str, float]:
    errors = [
        float(np.abs(found - wanted).max() / np.abs(wanted).max())
        for found, wanted in zip(screener.embed(PROMPTS), reference.embeds, strict=True)
    ]
    error = max(errors)
    if not error <= tolerance.magnitude:
        raise ParityError(
            f"The text_encoder graph differs from {reference.oracle} by {error:.1e} (relative to "
            f"the largest value); {tolerance.magnitude:.0e} is allowed. Nothing was written."
        )
    return {"max_relative_error": error, "prompts": len(PROMPTS)}
