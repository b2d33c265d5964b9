"""The detector: prompts in, verdicts out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import (
    Backend,
    BackendOptions,
    CalibrationError,
    Embeddings,
    InputError,
    NumericsError,
    Screener,
    Tokens,
)
from mnemoscope_runtime.closing import Closing
from mnemoscope_runtime.options import check_options
from mnemoscope_runtime.wording import counted

from .calibration import Calibration, CalibrationFile, Setting
from .calibration.cascade import First
from .detectors import Features, Statistic, check_unit, find_statistic
from .screening.calibrations import Calibrations, Uncalibrated, check_uncalibrated
from .screening.chunks import by_chunks, check_chunks
from .screening.detection import Detection, detections
from .screening.opening import open_screener, read_calibration
from .screening.ready import Ready
from .screening.stages import Stage, alone, in_turn
from .shipped import bundle_at

__all__ = ["Detector", "Uncalibrated"]

_BATCH = 32


class Detector(Closing):
    """Screens prompts with a bundle. Safe to share between threads.

    Args:
        screener: The bundle on a backend.
        calibration: What thresholds come from.
        detector: The statistic, or its name for `mnemoscope.detectors.find_statistic`.
        first: A cheaper stage that goes first: this detector looks only at prompts that it does
            not clear. Such a cascade screens nothing before it is calibrated.
        uncalibrated: What becomes of a setting (backend, detector, steps, noises) that has no
            calibration: "raise" refuses to screen, "score" gives scores without verdicts.

    Raises:
        CalibrationError: the calibration belongs to another bundle.
        InputError: there is no such detector, it is not one of what the bundle measures, an option
            cannot be used, or the bundle lacks what the first stage needs.
    """

    def __init__(
        self,
        screener: Screener,
        calibration: CalibrationFile | None = None,
        *,
        detector: str | Statistic = "magnitude",
        first: First | None = None,
        uncalibrated: Uncalibrated = "raise",
    ) -> None:
        check_uncalibrated(uncalibrated)
        self.statistic = find_statistic(detector)
        check_unit(self.statistic, screener)
        self.first = first
        self.before = None if first is None else Stage.before(screener, first)
        self.screener = screener
        self.uncalibrated = uncalibrated
        self.calibration = calibration

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        *,
        backend: str | Backend = "onnxruntime",
        threads: int | None = None,
        device: int | None = None,
        engines: str | Path | None = None,
        batch: int | None = None,
        contexts: int | None = None,
        calibration: str | Path | CalibrationFile | None = None,
        detector: str | Statistic = "magnitude",
        first: First | None = None,
        uncalibrated: Uncalibrated = "raise",
        trust: str | Path | None = None,
    ) -> Detector:
        """Open a bundle: the embedded one by default.

        Args:
            bundle: Directory that `mnemoscope export` wrote, or "embedded-flow".
            backend: Which backend runs it, this one or none; "auto" tries all that are installed
                and takes the fastest that agrees with PyTorch within the bundle's budget; one that
                is calibrated for this detector, if any of those will do.
            threads: CPU threads an engine may use.
            device: Which GPU runs it, from 0.
            engines: Folder of engines that `mnemoscope build` made; the user's cache by default.
            batch: Prompts that one run of ONNX Runtime on a GPU takes.
            contexts: Calls that TensorRT runs at once.
            calibration: A calibration file, or what was read from one; by default the bundle's own,
                if it has one.
            detector: What is measured: a name of `mnemoscope.detectors.DETECTORS` or, of a bundle
                with taps, "taps" or "tap:LAYER"; or a statistic of your own.
            first: A cheaper stage that goes first, as in `Detector`.
            uncalibrated: Whether to screen in a setting without a calibration is an error
                ("raise"), or gives scores and no verdict ("score").
            trust: File of a public key: only a bundle and a calibration that it signed are used.

        Raises:
            BundleError: the bundle cannot be used.
            SignatureError: the bundle or the calibration is not signed by the key that is trusted.
            BackendError: the backend cannot be used.
            CalibrationError: the calibration cannot be read, or belongs to another bundle.
            InputError: there is no such backend or detector, the bundle lacks the taps that it
                looks at, or an option is of a wrong type.
        """
        check_options("a path or None", bundle=bundle, trust=trust)
        check_uncalibrated(uncalibrated)
        statistic = find_statistic(detector)
        path = bundle_at(bundle)
        known = read_calibration(calibration, path, trust)
        backends = () if known is None else known.backends(statistic.name, first)
        before = () if first is None else (first.detector,)
        options = BackendOptions(threads, device, engines, batch, contexts)
        screener = open_screener(path, backend, options, (*before, statistic), backends, trust)
        try:
            return cls(screener, known, detector=statistic, first=first, uncalibrated=uncalibrated)
        except BaseException:
            screener.close()
            raise

    @property
    def calibration(self) -> CalibrationFile | None:
        """What thresholds come from; another one counts from the next call on.

        Raises:
            CalibrationError: when set: it belongs to another bundle.
        """
        return self._calibration

    @calibration.setter
    def calibration(self, calibration: CalibrationFile | None) -> None:
        if calibration is not None:
            calibration.check(self.screener.bundle.id, self.screener.bundle.path)
        self._calibration = calibration
        self._calibrations = Calibrations(
            calibration or CalibrationFile(()),
            self.uncalibrated,
            learns=self.statistic.is_fitted,
            length=self.screener.tokens,
            bundle=self.screener.bundle.path,
        )
        self._ready: dict[tuple[int, int | None], Ready] = {}

    @property
    def bundle_id(self) -> str:
        """Id of the bundle: sha256 of its manifest."""
        return self.screener.bundle.id

    def magnitudes(
        self, prompts: Sequence[str] | Tokens, *, steps: int = 1, noises: int | None = None
    ) -> NDArray[np.float32]:
        """The paper's m_t for each prompt, noise and step.

        Returns:
            # [prompt, noise, step], >= 0, in the bundle's unit
        """
        check_options("a whole number", steps=steps)
        magnitude = find_statistic("magnitude")
        found = magnitude.measure(self.screener, prompts, steps=steps, noises=noises)
        return np.asarray(found[..., 0], np.float32)

    def measure(
        self, prompts: Sequence[str] | Tokens, *, steps: int = 1, noises: int | None = None
    ) -> Features:
        """What the detector makes its scores of.

        Returns:
            # [prompt, noise, step, feature]

        Raises:
            InputError: a prompt, steps or noises cannot be used.
            NumericsError: a feature is NaN or infinite.
        """
        return Stage.of(self.screener, self.statistic, steps, noises).measure(prompts)

    def setting(self, *, steps: int = 1, noises: int | None = None) -> Setting:
        """How `screen` measures: what a calibration has to match.

        Raises:
            InputError: steps or noises cannot be used, or the first stage costs as much as the
                second.
        """
        return self._at(steps, noises).setting

    def missing(self, *, steps: int = 1, noises: int | None = None) -> CalibrationError | None:
        """Why there are no verdicts in a setting, and what makes them; None if there are.

        Raises:
            InputError: as `setting`.
        """
        return self._calibrations.missing(self.setting(steps=steps, noises=noises))

    def calibrated(self, *, steps: int = 1, noises: int | None = None) -> Calibration | None:
        """The calibration of a setting, or None where scores without verdicts were asked for.

        Raises:
            InputError: as `setting`.
            CalibrationError: there is none.
        """
        return self._at(steps, noises).calibration

    def check(self, prompt: str, *, steps: int = 1, noises: int | None = None) -> None:
        """Raise what `screen` would, as far as it can be known before anything is measured."""
        self.screener.tokenizer.check([prompt])
        self.calibrated(steps=steps, noises=noises)

    def screen(
        self,
        prompts: Sequence[str],
        *,
        steps: int = 1,
        noises: int | None = None,
        chunks: bool = False,
    ) -> list[Detection]:
        """Screen prompts.

        Args:
            prompts: A list of prompts.
            steps: Denoising steps to measure: 1 is cheapest, more is surer.
            noises: How many noises of the bundle's bank; all by default.
            chunks: Read long prompts in chunks (see `mnemoscope.screening.chunks`) and cut nothing
                off; of a bundle that was exported with any_length. What comes of several chunks is
                on a scale of its own, so that no calibration applies.

        Returns:
            One detection for each prompt, in order.

        Raises:
            InputError: a prompt, steps or noises cannot be used, or the bundle takes no chunks.
            NumericsError: a magnitude is NaN or infinite.
            CalibrationError: the setting has no calibration, unless scores without verdicts were
                asked for; a cascade or a detector that learns cannot do without in any case.
        """
        return list(self.stream(prompts, steps=steps, noises=noises, chunks=chunks))

    def stream(
        self,
        prompts: Iterable[str],
        *,
        steps: int = 1,
        noises: int | None = None,
        chunks: bool = False,
    ) -> Iterator[Detection]:
        """Screen any number of prompts in constant memory; see `screen`."""
        if isinstance(prompts, str) or not isinstance(prompts, Iterable):
            raise InputError(
                f"Prompts come in a list, not as {type(prompts).__name__}. "
                "Wrap the one you have: [prompt]."
            )
        if chunks:
            check_chunks(self.screener)
        remaining = iter(prompts)
        done = 0
        while batch := list(itertools.islice(remaining, _BATCH)):
            try:
                yield from self._screen_batch(batch, steps, noises, chunks)
            except (InputError, NumericsError) as error:
                if not done:
                    raise
                where = f"(Counted from prompt {done}, where this batch begins.)"
                raise type(error)(f"{error} {where}") from None
            done += len(batch)

    def screen_embeddings(
        self,
        prompt_embeds: object,
        pooled_embeds: object = None,
        *,
        prompt_mask: object = None,
        empty_embeds: object = None,
        empty_pooled_embeds: object = None,
        empty_mask: object = None,
        names: Sequence[str] | None = None,
        steps: int = 1,
        noises: int | None = None,
    ) -> list[Detection]:
        """Screen what a pipeline tells its network: weighted, mixed or long prompts.

        A calibration applies where length and baseline are those of the bundle's tokens.

        Args:
            prompt_embeds: Of numpy or torch; diffusers' prompt_embeds. # [B, L, D]
            pooled_embeds: Stable Diffusion XL's pooled_prompt_embeds. # [B, P]
            prompt_mask: PixArt-Sigma's and Sana's prompt_attention_mask; Qwen-Image's
                prompt_embeds_mask. # [B, L]
            empty_embeds: The baseline, negative_prompt_embeds; by default the bundle's own, with
                chunks of the empty prompt behind it where there are more. One row, or the same one
                for each prompt. # [1, L, D] or [B, L, D]
            empty_pooled_embeds: Its pooled embedding. # [1, P] or [B, P]
            empty_mask: Its mask. # [1, L] or [B, L]
            names: What detections call the prompts.
            steps: As of `screen`.
            noises: As of `screen`.

        Returns:
            One detection for each row, in order.

        Raises:
            InputError: embeddings, names, steps or noises cannot be used, or the detector is a
                cascade or looks at tokens.
            NumericsError: a magnitude is NaN or infinite.
            CalibrationError: no calibration applies, unless scores without verdicts were asked for;
                a detector that learns cannot do without in any case.
        """
        told = self.screener.embeddings(
            prompt_embeds,
            pooled_embeds,
            prompt_mask=prompt_mask,
            empty_embeds=empty_embeds,
            empty_pooled_embeds=empty_pooled_embeds,
            empty_mask=empty_mask,
        )
        if names is None:
            names = [f"embeddings {k}" for k in range(len(told))]
        if isinstance(names, str) or len(names) != len(told):
            raise InputError(
                f"The embeddings are of {counted(len(told), 'prompt')}. Give a name for each."
            )
        found: list[Detection] = []
        for i in range(0, len(told), _BATCH):
            part = told[i : i + _BATCH]
            found += self._screen_told(names[i : i + _BATCH], part, steps, noises, literal=False)
        return found

    def _screen_batch(
        self, prompts: list[str], steps: int, noises: int | None, chunks: bool
    ) -> Iterable[Detection]:
        tokens = self.screener.tokenizer.encode(prompts)
        if not chunks or not any(tokens.truncated):
            return self._screen_told(prompts, tokens, steps, noises)
        found: dict[int, Detection] = {}
        for rows, told in by_chunks(self.screener, prompts, tokens):
            group = [prompts[k] for k in rows]
            found.update(zip(rows, self._screen_told(group, told, steps, noises), strict=True))
        return [found[k] for k in range(len(prompts))]

    def _screen_told(
        self,
        prompts: Sequence[str],
        told: Tokens | Embeddings,
        steps: int,
        noises: int | None,
        *,
        literal: bool = True,
    ) -> Iterator[Detection]:
        start = time.perf_counter()
        ready = self._at(steps, noises)
        setting, stage = ready.setting, ready.stage
        if isinstance(told, Embeddings):
            calibration = self._calibrations.of_embeddings(setting, told)
            looks = alone(stage, told, calibration)
        else:
            calibration = ready.calibration
            looks = (
                alone(stage, told, calibration)
                if self.before is None
                else in_turn(self.before, stage, told, setting, calibration)
            )
        seconds = (time.perf_counter() - start) / len(prompts)
        return detections(
            self.screener, setting, calibration, prompts, told, looks, seconds, literal=literal
        )

    def _at(self, steps: int, noises: int | None) -> Ready:
        """What `steps` and `noises` come to, worked out once; raises as `setting`."""
        known = type(steps) is int and (noises is None or type(noises) is int)  # True is no 1
        ready = self._ready.get((steps, noises)) if known else None
        if ready is not None:
            return ready
        stage = Stage.of(self.screener, self.statistic, steps, noises)
        made = Ready.of(stage, self.first, self.before, self._calibrations)
        return self._ready.setdefault((steps, noises), made)

    def close(self) -> None:
        """Let go of the engines; further calls raise."""
        self.screener.close()
