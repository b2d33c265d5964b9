"""The gate between a staged bundle and the world: every graph must agree with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mnemoscope_runtime import Screener
from mnemoscope_runtime.errors import ParityError
from mnemoscope_runtime.manifest import Precision, Probe

from .models import StableDiffusion
from .reference import magnitudes

__all__ = ["PROMPTS", "Reference", "Tolerance", "check_parity"]

PROMPTS = (
    "a photo of a cat on a windowsill",
    "The quick brown fox, oil painting, 1889",
    "icon of rocket",
    "portrait of a woman with a red hat in the style of an old master, highly detailed, canvas",
    "x",
)
_LARGE = 200_000_000  # parameters of a UNet above which a pass takes seconds
_HUGE = 2_000_000_000  # and tens of seconds


@dataclass(frozen=True)
class Plan:
    """What is measured: `prompts` of PROMPTS, at every batch size and number of noises."""

    prompts: int = 5
    batches: tuple[int, ...] = (1, 2, 3, 5)
    noises: tuple[int, ...] = (1, 64)  # as many as the bank has, at most
    steps: int = 3
    is_large: bool = False

    @classmethod
    def of(cls, model: StableDiffusion) -> Plan:
        """All of it for a small model; for a large one what takes minutes."""
        parameters = model.unet.num_parameters()
        if parameters < _LARGE:
            return cls()
        if parameters < _HUGE:
            return cls(prompts=2, batches=(1, 2), noises=(1, 2), steps=2, is_large=True)
        return cls(prompts=2, batches=(1, 2), noises=(1,), steps=2, is_large=True)


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted relative error of a magnitude, |engine - torch| / torch."""

    magnitude: float = 1e-4

    @classmethod
    def of(cls, precision: Precision) -> Tolerance:
        """What rounding explains: a few units in the last place of a few hundred layers."""
        return cls({"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}[precision])


@dataclass(frozen=True)
class Reference:
    """What PyTorch measured: all that the gate needs of a model, which can then be let go.

    Attributes:
        plan: What is compared.
        magnitudes: Of the plan's prompts on every noise, at the first steps.
            # [prompt, noise, step]
        embeds: Of PROMPTS. # [prompt, ...] each
    """

    plan: Plan
    magnitudes: NDArray[np.float32]
    embeds: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(
        cls, model: StableDiffusion, bank: Tensor, *, inference_steps: int, guidance: float
    ) -> Reference:
        """Measure a model, in float32, on a noise bank [n, C, H, W]."""
        plan = Plan.of(model)
        found = magnitudes(
            model,
            PROMPTS[: plan.prompts],
            bank,
            steps=plan.steps,
            inference_steps=inference_steps,
            guidance=guidance,
        )
        return cls(plan, found.numpy(), tuple(e.float().numpy() for e in model.embed(PROMPTS)))

    def probes(self) -> tuple[Probe, ...]:
        """The first step, for the manifest."""
        rows = zip(PROMPTS, self.magnitudes[..., 0].tolist(), strict=False)
        return tuple(Probe(prompt, tuple(values)) for prompt, values in rows)


def check_parity(
    open_screener: Callable[[], Screener], reference: Reference, tolerance: Tolerance
) -> dict[str, dict[str, float]]:
    """Compare every graph of a staged bundle with the reference, on several batch sizes.

    Args:
        open_screener: Opens the staged bundle, with no engine loaded yet; called more than once,
            so that only one engine with the UNet's weights is in memory at a time.
        reference: Of the model it was exported from.
        tolerance: What is accepted.

    Returns:
        The largest relative error of each graph and what it was measured on.

    Raises:
        ParityError: a graph differs by more than the tolerance.
    """
    plan, expected = reference.plan, reference.magnitudes
    report = {}
    with open_screener() as screener:

        def first_step(prompts: list[str], noises: int) -> np.ndarray:
            return screener.first_step(prompts, noises=noises)[..., None]

        report["screen"] = _worst("screen", first_step, expected[..., :1], plan, tolerance)
    with open_screener() as other:

        def trajectory(prompts: list[str], noises: int) -> np.ndarray:
            return other.trajectory(prompts, steps=plan.steps, noises=noises)

        report["step"] = _worst("step", trajectory, expected, plan, tolerance)
        report["text_encoder"] = _embedding_error(other, reference.embeds, tolerance)
    return report


def _worst(
    graph: str,
    measure: Callable[[list[str], int], np.ndarray],
    expected: np.ndarray,  # [prompt, noise, step]
    plan: Plan,
    tolerance: Tolerance,
) -> dict[str, float]:
    worst = 0.0
    for batch in plan.batches:
        for noises in {min(most, expected.shape[1]) for most in plan.noises}:
            wanted = expected[:batch, :noises]
            found = measure(list(PROMPTS[:batch]), noises)
            error = float((np.abs(found - wanted) / wanted).max())
            if not error <= tolerance.magnitude:
                raise ParityError(
                    f"The {graph} graph differs from PyTorch by {error:.1e} (relative, batch "
                    f"{batch}, {noises} noises); {tolerance.magnitude:.0e} is allowed. Nothing was "
                    "written. Export in float32, with the versions in constraints.txt."
                )
            worst = max(worst, error)
    return {"max_relative_error": worst, "prompts": plan.prompts, "batches": len(plan.batches)}


def _embedding_error(
    screener: Screener, expected: tuple[NDArray[np.float32], ...], tolerance: Tolerance
) -> dict[str, float]:
    errors = [
        float(np.abs(found - wanted).max() / np.abs(wanted).max())
        for found, wanted in zip(screener.embed(PROMPTS), expected, strict=True)
    ]
    error = max(errors)
    if not error <= tolerance.magnitude:
        raise ParityError(
            f"The text_encoder graph differs from PyTorch by {error:.1e} (relative to the largest "
            f"value); {tolerance.magnitude:.0e} is allowed. Nothing was written."
        )
    return {"max_relative_error": error, "prompts": len(PROMPTS)}
