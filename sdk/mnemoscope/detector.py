"""The detector: prompts in, verdicts out."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Backend, Bundle, InputError, NumericsError, Screener, Tokens
from mnemoscope_runtime.options import check_options
from mnemoscope_runtime.selection import fastest, try_backends

from . import embedded
from .calibration import Calibration

__all__ = ["Detection", "Detector"]

CALIBRATION = "calibration.json"
_BATCH = 32


@dataclass(frozen=True)
class Detection:
    """What was measured for one prompt.

    Attributes:
        prompt: The prompt.
        score: Mean magnitude over noises and steps, in eps units, >= 0.
        scores: The same for each noise.
        rms: score / sqrt(C H W): the difference per latent element, comparable between models
            whose latents differ in size.
        threshold: Above it a prompt counts as memorized; None until calibrated.
        memorized: score > threshold; None until calibrated.
        truncated: Whether the prompt has more tokens than the model reads: its end was not
            screened, and the model will not see it either.
        backend: The backend that ran.
        bundle: Id of the bundle.
        steps: Denoising steps that were measured.
        seconds: Time per prompt, shared evenly within a batch.
    """

    prompt: str
    score: float
    scores: tuple[float, ...]
    rms: float
    threshold: float | None
    memorized: bool | None
    truncated: bool
    backend: str
    bundle: str
    steps: int
    seconds: float


class Detector:
    """Screens prompts with a bundle. Safe to share between threads."""

    def __init__(self, screener: Screener, calibration: Calibration | None = None) -> None:
        if calibration is not None:
            calibration.check(screener.bundle.id)
        self.screener = screener
        self.calibration = calibration

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        *,
        backend: str | Backend = "onnxruntime",
        threads: int | None = None,
        calibration: str | Path | None = None,
    ) -> Detector:
        """Open a bundle: the embedded one by default.

        Args:
            bundle: Directory that `mnemoscope export` wrote.
            backend: Which backend runs it, this one or none; "auto" tries all that are installed
                and takes the fastest that agrees with PyTorch within the bundle's budget.
            threads: CPU threads an engine may use.
            calibration: A calibration file; by default the bundle's own, if it has one.

        Raises:
            BundleError: the bundle cannot be used.
            BackendError: the backend cannot be used.
            CalibrationError: the calibration belongs to another bundle.
            InputError: there is no such backend, or an option is of a wrong type.
        """
        check_options("a path or None", bundle=bundle, calibration=calibration)
        path = Path(bundle) if bundle is not None else embedded.BUNDLE
        own = path / CALIBRATION
        file = Path(calibration) if calibration is not None else own if own.exists() else None
        if backend == "auto":
            budget = Bundle.open(path).manifest.budget
            backend = fastest(list(try_backends(path, threads=threads)), budget).backend
        screener = Screener.open(path, backend=backend, threads=threads)
        try:
            return cls(screener, None if file is None else Calibration.read(file))
        except BaseException:
            screener.close()
            raise

    @property
    def bundle_id(self) -> str:
        """Id of the bundle: sha256 of its manifest."""
        return self.screener.bundle.id

    def magnitudes(
        self, prompts: Sequence[str] | Tokens, *, steps: int = 1, noises: int | None = None
    ) -> NDArray[np.float32]:
        """The paper's m_t for each prompt, noise and step.

        Returns:
            # [prompt, noise, step], >= 0, in eps units
        """
        check_options("a whole number", steps=steps)
        if steps == 1:  # the screening engine: half the work of a sampling step
            return self.screener.first_step(prompts, noises=noises)[..., None]
        return self.screener.trajectory(prompts, steps=steps, noises=noises)

    def screen(
        self, prompts: Sequence[str], *, steps: int = 1, noises: int | None = None
    ) -> list[Detection]:
        """Screen prompts.

        Args:
            prompts: A list of prompts.
            steps: Denoising steps to measure: 1 is cheapest, more is surer.
            noises: How many noises of the bundle's bank; all by default.

        Returns:
            One detection for each prompt, in order.

        Raises:
            InputError: a prompt, steps or noises cannot be used.
            NumericsError: a magnitude is NaN or infinite.
        """
        return list(self.stream(prompts, steps=steps, noises=noises))

    def stream(
        self, prompts: Iterable[str], *, steps: int = 1, noises: int | None = None
    ) -> Iterator[Detection]:
        """Screen any number of prompts in constant memory; see `screen`."""
        if isinstance(prompts, str) or not isinstance(prompts, Iterable):
            raise InputError(
                f"Prompts come in a list, not as {type(prompts).__name__}. "
                "Wrap the one you have: [prompt]."
            )
        remaining = iter(prompts)
        done = 0
        while batch := list(itertools.islice(remaining, _BATCH)):
            try:
                yield from self._screen_batch(batch, steps, noises)
            except (InputError, NumericsError) as error:
                if not done:
                    raise
                where = f"(Counted from prompt {done}, where this batch begins.)"
                raise type(error)(f"{error} {where}") from None
            done += len(batch)

    def _screen_batch(
        self, prompts: list[str], steps: int, noises: int | None
    ) -> Iterator[Detection]:
        start = time.perf_counter()
        tokens = self.screener.tokenizer.encode(prompts)
        magnitudes = self.magnitudes(tokens, steps=steps, noises=noises)
        seconds = (time.perf_counter() - start) / len(prompts)
        used = magnitudes.shape[1]
        threshold = None
        if self.calibration is not None:
            threshold = self.calibration.threshold(noises=used, steps=steps)
        scale = self.screener.latent_elements**-0.5
        # one array operation: on small models each costs as much as a percent of the UNet
        each = magnitudes.mean(2, dtype=np.float64).tolist()
        for prompt, scores, truncated in zip(prompts, each, tokens.truncated, strict=True):
            score = math.fsum(scores) / used
            yield Detection(
                prompt=prompt,
                score=score,
                scores=tuple(scores),
                rms=scale * score,
                threshold=threshold,
                memorized=None if threshold is None else score > threshold,
                truncated=truncated,
                backend=self.screener.backend.name,
                bundle=self.screener.bundle.id,
                steps=steps,
                seconds=seconds,
            )

    def close(self) -> None:
        """Let go of the engines; further calls raise."""
        self.screener.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
