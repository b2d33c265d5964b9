"""The gate between a staged bundle and the world: every graph must agree with its oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mnemoscope_runtime import Bundle, Screener, open_backend
from mnemoscope_runtime.agreement import relative_error
from mnemoscope_runtime.backends.onnxruntime import OnnxRuntime
from mnemoscope_runtime.errors import BackendUnavailable, ParityError
from mnemoscope_runtime.manifest import Precision
from mnemoscope_runtime.wording import counted

from .oracle import PROMPTS, Coverage, Reference, Tolerance

__all__ = ["CHECKED_ON", "check_backend", "check_parity"]

_REMEDIES = {
    True: "Rounding explains up to 1e-4 of any magnitude, so the graph computes something else: "
    "export with the versions in constraints.txt, which the tests ran with; or accept it with "
    "--tolerance, and see with `mnemoscope parity OUT --backend torch --model MODEL` what it does "
    "to verdicts.",
    False: "Export in float32 or the other half precision; or accept it with --tolerance, and "
    "see with `mnemoscope parity OUT --reference FLOAT32_BUNDLE` what it does to verdicts.",
}
Measure = Callable[[list[str], int], np.ndarray]
# the backend that runs graphs of each precision here
CHECKED_ON: Mapping[Precision, str] = {
    "float32": "onnxruntime",
    "float16": "onnxruntime",
    "bfloat16": "openvino",
}


def check_backend(precision: Precision) -> None:
    """Make sure that the graphs can be run and compared before any work is done for them.

    Raises:
        BackendUnavailable: the backend of the parity gate is not installed, or does not work.
    """
    try:
        open_backend(CHECKED_ON[precision]).close()
    except BackendUnavailable as error:
        raise BackendUnavailable(
            f"Graphs in {precision} are checked on the backend {CHECKED_ON[precision]!r}. {error}"
        ) from None


def check_parity(
    bundle: Path, precision: Precision, reference: Reference, tolerance: Tolerance
) -> dict[str, dict[str, float]]:
    """Compare every graph of a staged bundle with the oracle, on several batch sizes.

    Args:
        bundle: Opened more than once, so that only one engine with the network's weights is in
            memory at a time.
        precision: Of its graphs.
        reference: What the oracle measured.
        tolerance: What is accepted.

    Returns:
        The largest relative error of each graph and what it was measured on.

    Raises:
        ParityError: a graph differs by more than the tolerance.
    """
    coverage, first = reference.coverage, reference.screening[:, :, None]
    report = {}

    def check(graph: str, measure: Measure, expected: np.ndarray, names: Sequence[str]) -> None:
        report[graph] = _worst(graph, names, measure, expected, reference, tolerance, precision)

    with _opened(bundle, precision, coverage) as screener:
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
        with _opened(bundle, precision, coverage) as screener:
            check("taps", tap_norms, first[..., 1:], taps)
    with _opened(bundle, precision, coverage) as other:

        def trajectory(prompts: list[str], noises: int) -> np.ndarray:
            count, steps = other.counts(noises, coverage.steps)
            found = np.empty((len(prompts), count, steps, 1 + len(taps)), np.float32)
            for part in other.parts(prompts, noises=noises):
                for k, seen in enumerate(other.walk(part, other.timesteps[:steps])):
                    found[*part.where, k] = np.dstack([seen.magnitude, seen.taps])
            return found

        check("step", trajectory, reference.sampling, taps)
        report["text_encoder"] = _embedding_error(other, reference, tolerance)
    return report


def _opened(bundle: Path, precision: Precision, coverage: Coverage) -> Screener:
    """A bundle on the backend that the gate runs graphs of this precision on."""
    if CHECKED_ON[precision] == "onnxruntime":
        return Screener(Bundle.open(bundle), OnnxRuntime(lean=coverage.is_large))
    return Screener(Bundle.open(bundle), open_backend(CHECKED_ON[precision]))


def _worst(
    graph: str,
    taps: Sequence[str],
    measure: Measure,
    expected: np.ndarray,  # [prompt, noise, step, quantity]: the magnitude, taps, or both
    reference: Reference,
    tolerance: Tolerance,
    precision: Precision,
) -> dict[str, float]:
    coverage, worst = reference.coverage, 0.0
    floors = reference.floors[-expected.shape[-1] :] if taps else reference.floors[:1]
    for batch in coverage.batches:
        for noises in {min(most, expected.shape[1]) for most in coverage.noises}:
            wanted = expected[:batch, :noises]
            found = measure(list(PROMPTS[:batch]), noises)
            errors = relative_error(found, wanted, floors).max((0, 1, 2))  # [quantity]
            error, which = float(errors.max()), int(errors.argmax())
            if not error <= tolerance.magnitude:
                tap = which - len(errors) + len(taps)  # the magnitude, if it is there, is first
                where = f" in the tap {taps[tap]}" if tap >= 0 else ""
                raise ParityError(
                    f"The {graph} graph differs from {reference.oracle} by {error:.1e}{where} "
                    f"(relative, batch {batch}, {counted(noises, 'noise')}); "
                    f"{tolerance.magnitude:.0e} is allowed. Nothing was written. "
                    f"{_REMEDIES[precision == 'float32']}"
                )
            worst = max(worst, error)
    return {
        "max_relative_error": worst,
        "prompts": coverage.prompts,
        "batches": len(coverage.batches),
    }


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
