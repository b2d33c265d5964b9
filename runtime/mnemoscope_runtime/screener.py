"""The magnitude of the text-conditional noise prediction, on engines (Wen et al. 2024).

    m_t = || eps(x_t, t, e_prompt) - eps(x_t, t, e_empty) ||_2

and of flows the same of the predicted picture (`units`). `Screener.first_step` needs one pass of
the network per prompt and noise: the unconditional prediction of the noise bank is a constant of
the screening graph. `Screener.trajectory` follows the sampler and measures at every step. For other
statistics of the two predictions, `parts` cuts prompts and noises into pieces that fit an engine
call, `predict` looks at one timestep of a piece and `walk` follows the sampler (`Predictor`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .agreement import relative_error
from .backends.base import run
from .embeddings import Embeddings, Prompts
from .errors import InputError, NumericsError
from .options import check_options
from .predictions import Array, Embeds, Part, Prediction
from .predictor import PAIRS, Predictor
from .tokenizer import Tokens

__all__ = ["Embeds", "Part", "Prediction", "Screener", "checked_norms"]

_POSITIONS = 8192  # latent positions per engine call, so that 64x64 latents go two at a time


class Screener(Predictor):
    """A bundle on a backend, which measures.

    Safe to share between threads, and for the process that opened it.
    """

    def first_step(self, prompts: Prompts, *, noises: int | None = None) -> NDArray[np.float32]:
        """Magnitudes of pure noise at `timestep`, for the first `noises` noises of the bank.

        That is the first denoising step, unless the bundle was exported with another timestep.

        Args:
            prompts: Texts, what `tokenizer.encode` made of them, or `embeddings`.
            noises: All of the bank by default.

        Returns:
            # [B, noises], >= 0, in the bundle's `unit`

        Raises:
            InputError: a prompt or the number of noises cannot be used.
            NumericsError: a magnitude is NaN, infinite or negative.
        """
        if isinstance(prompts, Embeddings):
            return checked_norms(self._first_of(prompts, noises, "magnitude"))
        return checked_norms(self._first("screen", "magnitude", prompts, noises))

    def first_step_taps(
        self, prompts: Prompts, *, noises: int | None = None
    ) -> NDArray[np.float32]:
        """How far prompts move the features of every tapped layer, where `first_step` looks.

        The graph that stops at the last tap answers, where the bundle has one.

        Returns:
            # [B, noises, K], >= 0, in units of each layer

        Raises:
            InputError: the bundle has no taps; a prompt or the number of noises cannot be used.
            NumericsError: a norm is NaN, infinite or negative.
        """
        size = (len(self.require_taps()),)
        if isinstance(prompts, Embeddings):
            return checked_norms(self._first_of(prompts, noises, "taps", size), "A tap")
        return checked_norms(self._first(self.taps_graph, "taps", prompts, noises, size), "A tap")

    def trajectory(
        self, prompts: Prompts, *, steps: int, noises: int | None = None
    ) -> NDArray[np.float32]:
        """Magnitudes at the first `steps` steps of sampling with guidance.

        Returns:
            # [B, noises, steps], >= 0, in the bundle's `unit`

        Raises:
            InputError: a prompt, the number of noises or of steps cannot be used.
            NumericsError: a magnitude is NaN, infinite or negative.
        """
        count, steps = self.counts(noises, steps)
        told = prompts if isinstance(prompts, Embeddings) else self.tokenizer(prompts)
        magnitudes = np.empty((len(told), count, steps), np.float32)
        for part in self.parts(told, noises=noises):
            for k, prediction in enumerate(self.walk(part, self.timesteps[:steps])):
                magnitudes[*part.where, k] = prediction.magnitude
        return checked_norms(magnitudes)

    def parts(
        self, prompts: Prompts | NDArray[np.int64], *, noises: int | None = None
    ) -> Iterator[Part]:
        """Cut prompts on the first `noises` noises of the bank into pieces for `predict`.

        Raises:
            InputError: a prompt or the number of noises cannot be used.
        """
        count, _ = self.counts(noises)
        embeds = self.embed(prompts)
        empty = prompts.empty if isinstance(prompts, Embeddings) else None
        for rows, columns in self._parts(len(embeds[0]), count, samples=2):
            told = tuple(each[rows] for each in embeds)
            bank = self._bank[:count][columns]
            yield Part((rows, columns), told, np.stack([bank] * len(told[0])), empty)

    def probe(self) -> float:
        """Measure the manifest's probes: does this backend agree with PyTorch on this machine?

        Returns:
            The largest error of a magnitude of `first_step`, relative as in `agreement`.

        Raises:
            BackendError: the engine failed.
        """
        probes = self.bundle.manifest.probes
        expected = np.array([probe.magnitudes for probe in probes])
        found = self.first_step([probe.prompt for probe in probes])
        return float(relative_error(found, expected, self.smallest_magnitude).max())

    def counts(self, noises: int | None = None, steps: int = 1) -> tuple[int, int]:
        """How many noises (all by default) and steps that is.

        Raises:
            InputError: the bundle does not have as many.
            BackendError: this process is a fork of the one that opened the bundle.
        """
        self.backend.process.check()
        return self._count(noises, self.noises, "noises"), self._count(steps, self.steps, "steps")

    def _count(self, wanted: int | None, most: int, what: str) -> int:
        count = most if wanted is None else wanted
        if type(count) is not int:  # one of numpy's, or none at all
            check_options("a whole number", **{what: count})
        if not 1 <= count <= most:
            raise InputError(
                f"This bundle has {most} {what}, {count} cannot be used. "
                f"Give 1 to {most}, or export the model with more."
            )
        return count

    def _first(
        self,
        graph: str,
        output: str,
        prompts: Sequence[str] | Tokens,
        noises: int | None,
        size: tuple[int, ...] = (),
    ) -> Array:
        """An output of a graph of the first step, piece by piece. # [B, noises, *size]"""
        count, _ = self.counts(noises)
        engine, ids = self._load(self.bundle, graph), self.tokenizer(prompts)
        manifest = self.bundle.manifest
        told: dict[str, NDArray[np.generic]] = {"input_ids": ids}
        if manifest.encodes_apart:
            told = dict(zip(manifest.embeddings, self.embed(ids), strict=True))
        values = np.empty((len(ids), count, *size), np.float32)
        for rows, columns in self._parts(len(ids), count, samples=1):
            chosen = np.arange(count, dtype=np.int64)[columns]
            part = {name: each[rows] for name, each in told.items()}
            wanted = {output: (len(ids[rows]), len(chosen), *size)}
            (found,) = run(engine, {**part, "noise_index": chosen}, wanted)
            values[rows, columns] = found
        return values

    def _first_of(
        self,
        prompts: Embeddings,
        noises: int | None,
        name: Literal["magnitude", "taps"],
        size: tuple[int, ...] = (),
    ) -> Array:
        """The same of embeddings, by `step`, which takes any. # [B, noises, *size]"""
        count, _ = self.counts(noises)
        values = np.empty((len(prompts), count, *size), np.float32)
        for part in self.parts(prompts, noises=noises):
            found = self.predict(part.embeds, part.latents, self.timestep, part.empty)
            values[part.where] = getattr(found, name)
        return values

    def _parts(self, prompts: int, noises: int, *, samples: int) -> Iterator[tuple[slice, slice]]:
        """Cut prompts x noises into pieces of at most PAIRS samples, `samples` a pair."""
        height, width = self._bank.shape[2:]
        most = PAIRS if self.backend.cuts_calls else min(PAIRS, _POSITIONS // (height * width))
        pairs = max(1, most // samples)
        columns = min(noises, pairs)
        rows = max(1, pairs // columns)
        for top in range(0, prompts, rows):
            for left in range(0, noises, columns):
                yield slice(top, top + rows), slice(left, left + columns)


def checked_norms(values: Array, what: str = "The magnitude") -> Array:
    """Norms, if they can be some.

    Args:
        values: # [prompt, ...]
        what: What errors call them.

    Raises:
        NumericsError: one is NaN, infinite or negative; says of which prompt.
    """
    possible = (values >= 0) & (values < math.inf)
    if not possible.all():
        bad = int(np.argwhere(~possible)[0, 0])
        why = "negative" if np.isfinite(values[bad]).all() else "NaN or infinite"
        raise NumericsError(
            f"{what} of prompt {bad} is {why}: that is no verdict. "
            "Export the model in float32, or run the bundle on another backend."
        )
    return values
