"""The detector: prompts in, verdicts out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

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
from mnemoscope_runtime.options import check_options

from . import embedded
from .calibration import Calibration, CalibrationFile, Setting
from .cascade import First
from .chunks import check_chunks, embed_chunks
from .detection import Detection
from .detectors import Features, Statistic, find_statistic
from .notes import notes_on
from .opening import open_screener, own_calibration
from .stage import Stage, alone, in_turn

__all__ = ["Detector", "Uncalibrated"]

Uncalibrated = Literal["raise", "score"]
_WAY_OUT = (
    'Scores without verdicts come with uncalibrated="score" in Python, and without --calibration '
    "on the command line."
)
_BATCH = 32


class Detector:
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
        InputError: there is no such detector, an option cannot be used, or the bundle lacks what
            the first stage needs.
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
        _check_uncalibrated(uncalibrated)
        if calibration is not None:
            calibration.check(screener.bundle.id)
        self.statistic = find_statistic(detector)
        self.first = first
        self.before = None
        if first is not None:
            if not isinstance(first, First):
                raise InputError(f"first is {first!r:.80}, not a stage. Give First({first!r:.40}).")
            statistic = find_statistic(first.detector)
            self.before = Stage.of(screener, statistic, first.steps, first.noises)
        self.screener = screener
        self.calibration = calibration
        self.uncalibrated = uncalibrated
        self._found: dict[Setting, Calibration | None] = {}
        self._nothing = screener.tokenizer.encode([""]).ids  # [1, ids]

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        *,
        backend: str | Backend = "onnxruntime",
        threads: int | None = None,
        device: int | None = None,
        engines: str | Path | None = None,
        calibration: str | Path | None = None,
        detector: str | Statistic = "magnitude",
        first: First | None = None,
        uncalibrated: Uncalibrated = "raise",
    ) -> Detector:
        """Open a bundle: the embedded one by default.

        Args:
            bundle: Directory that `mnemoscope export` wrote.
            backend: Which backend runs it, this one or none; "auto" tries all that are installed
                and takes the fastest that agrees with PyTorch within the bundle's budget; one that
                is calibrated for this detector, if any of those will do.
            threads: CPU threads an engine may use.
            device: Which GPU runs it, from 0.
            engines: Folder of engines that `mnemoscope build` made; BUNDLE/engines by default.
            calibration: A calibration file; by default the bundle's own, if it has one.
            detector: What is measured: a name of `mnemoscope.detectors.DETECTORS` or, of a bundle
                with taps, "taps" or "tap:LAYER"; or a statistic of your own.
            first: A cheaper stage that goes first, as in `Detector`.
            uncalibrated: Whether to screen in a setting without a calibration is an error
                ("raise"), or gives scores and no verdict ("score").

        Raises:
            BundleError: the bundle cannot be used.
            BackendError: the backend cannot be used.
            CalibrationError: the calibration cannot be read, or belongs to another bundle.
            InputError: there is no such backend or detector, the bundle lacks the taps that it
                looks at, or an option is of a wrong type.
        """
        check_options("a path or None", bundle=bundle, calibration=calibration)
        _check_uncalibrated(uncalibrated)
        statistic = find_statistic(detector)
        path = Path(bundle) if bundle is not None else embedded.BUNDLE
        file = Path(calibration) if calibration is not None else own_calibration(path)
        known = None if file is None else CalibrationFile.read(file)
        backends = () if known is None else known.backends(statistic.name, first)
        before = () if first is None else (first.detector,)
        options = BackendOptions(threads, device, engines)
        screener = open_screener(path, backend, options, (*before, statistic), backends)
        try:
            return cls(screener, known, detector=statistic, first=first, uncalibrated=uncalibrated)
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
        stage = Stage.of(self.screener, self.statistic, steps, noises)
        if self.before is not None and self.before.flops >= stage.flops:
            raise InputError(
                f"The first stage, {self.before}, costs {self.before.flops / stage.flops:.2f} of "
                f"the second, {stage}, so that it saves nothing. Choose a cheaper --first, or "
                "leave it out."
            )
        identity, backend = self.screener.bundle.id, self.screener.backend.name
        return Setting(
            identity, backend, self.statistic.name, stage.steps, stage.noises, self.first
        )

    def missing(self, *, steps: int = 1, noises: int | None = None) -> CalibrationError | None:
        """Why there are no verdicts in a setting, and what makes them; None if there are.

        Raises:
            InputError: as `setting`.
        """
        setting, known = self.setting(steps=steps, noises=noises), self._known
        return None if known.find(setting) is not None else known.missing(setting)

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
            chunks: Read long prompts in chunks (`mnemoscope.chunks`) and cut nothing off; of a
                bundle that was exported with any_length. What comes of several chunks is on a
                scale of its own, so that no calibration applies.

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
        empty_embeds: object = None,
        empty_pooled_embeds: object = None,
        names: Sequence[str] | None = None,
        steps: int = 1,
        noises: int | None = None,
    ) -> list[Detection]:
        """Screen what a pipeline tells its UNet: weighted, mixed or long prompts as it embeds them.

        A calibration applies where length and baseline are those of the bundle's tokens.

        Args:
            prompt_embeds: Of numpy or torch; diffusers' prompt_embeds. # [B, L, D]
            pooled_embeds: Stable Diffusion XL's pooled_prompt_embeds. # [B, P]
            empty_embeds: The baseline, negative_prompt_embeds; by default the bundle's own, with
                chunks of the empty prompt behind it where there are more. One row, or the same one
                for each prompt. # [1, L, D] or [B, L, D]
            empty_pooled_embeds: Its pooled embedding. # [1, P] or [B, P]
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
            empty_embeds=empty_embeds,
            empty_pooled_embeds=empty_pooled_embeds,
        )
        if names is None:
            names = [f"embeddings {k}" for k in range(len(told))]
        if isinstance(names, str) or len(names) != len(told):
            raise InputError(f"There are {len(told)} rows of embeddings. Give a name for each.")
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
        tokenizer = self.screener.tokenizer
        counts = [len(tokenizer.chunks(prompt, k)) for k, prompt in enumerate(prompts)]
        found: dict[int, Detection] = {}
        for count in sorted(set(counts)):
            rows = [k for k, each in enumerate(counts) if each == count]
            group = [prompts[k] for k in rows]
            told = tokens.rows(rows) if count == 1 else embed_chunks(self.screener, group)
            detections = self._screen_told(group, told, steps, noises)
            found.update(zip(rows, detections, strict=True))
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
        setting = self.setting(steps=steps, noises=noises)
        stage = Stage(self.screener, self.statistic, setting.steps, setting.noises)
        if isinstance(told, Embeddings):
            calibration = self._calibration_of(setting, told)
            looks = alone(stage, told, calibration)
            cut = [False] * len(told)
        else:
            calibration = self._calibration(setting)
            looks = (
                alone(stage, told, calibration)
                if self.before is None
                else in_turn(self.before, stage, told, setting, calibration)
            )
            cut = list(told.truncated)
        empty = self._empty(told)
        p_values: list[float] | list[None] = [None] * len(looks)
        if calibration is not None:
            p_values = calibration.p_values([look.score for look in looks]).tolist()
        threshold = None if calibration is None else calibration.threshold
        seconds = (time.perf_counter() - start) / len(prompts)
        scale = self.screener.latent_elements**-0.5
        is_magnitude = self.statistic.name == "magnitude"
        first = None if self.first is None else str(self.first)
        read = self.screener.tokenizer.length - 2  # less start and end
        rows = zip(prompts, looks, p_values, cut, empty, strict=True)
        for prompt, look, p_value, truncated, nothing in rows:
            yield Detection(
                prompt=prompt,
                score=look.score,
                scores=tuple(look.scores),
                rms=scale * look.score if is_magnitude and not look.cleared else None,
                p_value=None if nothing else p_value,
                threshold=threshold,
                memorized=None if threshold is None or nothing else look.score > threshold,
                truncated=truncated,
                detector=self.statistic.name,
                backend=setting.backend,
                bundle=setting.bundle,
                steps=setting.steps,
                noises=setting.noises,
                seconds=seconds,
                passes=look.passes,
                first=first,
                cleared=look.cleared,
                notes=notes_on(
                    prompt,
                    told,
                    read if truncated else None,
                    literal=literal,
                    any_length=self.screener.bundle.manifest.any_length,
                    empty=nothing,
                ),
                empty=nothing,
            )

    def _empty(self, told: Tokens | Embeddings) -> list[bool]:
        """Of which rows the model reads the baseline itself, whatever the prompt looks like."""
        if isinstance(told, Tokens):
            return [bool(each) for each in (told.ids == self._nothing).all(1)]
        pairs = zip(told.embeds, told.empty, strict=True)
        same = [(each == empty).reshape(len(told), -1).all(1) for each, empty in pairs]
        return [bool(each) for each in np.logical_and.reduce(same)]

    def _calibration_of(self, setting: Setting, told: Embeddings) -> Calibration | None:
        """One that applies to embeddings."""
        if self.first is not None:
            raise InputError(
                "A cascade looks at prompts as the bundle's tokens. Leave the first stage out to "
                "screen embeddings, or prompts in chunks."
            )
        if told.as_tokens:
            return self._calibration(setting)
        other = f"Calibrations are of {self.screener.tokenizer.length} tokens against the empty "
        other += f"prompt, and these embeddings are of {told.length} tokens"
        other += "." if told.length != self.screener.tokenizer.length else " and another baseline."
        if self.statistic.is_fitted:
            raise CalibrationError(
                f"{other} The detector {self.statistic.name!r} has no scores without one. Choose "
                "the magnitude."
            )
        if self.uncalibrated == "raise":
            raise CalibrationError(f"{other} {_WAY_OUT}")
        return None

    def _calibration(self, setting: Setting) -> Calibration | None:
        if setting not in self._found:
            known = self._known
            found = known.find(setting)
            if found is None and self.first is not None:
                raise known.missing(
                    setting, "A cascade knows what to clear only after it has seen benign prompts."
                )
            if found is None and self.statistic.is_fitted:
                raise known.missing(
                    setting, f"The detector {setting.detector!r} has no scores without one."
                )
            if found is None and self.uncalibrated == "raise":
                raise known.missing(setting, after=_WAY_OUT)
            self._found[setting] = found
        return self._found[setting]

    @property
    def _known(self) -> CalibrationFile:
        return self.calibration or CalibrationFile(())

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


def _check_uncalibrated(value: object) -> None:
    if value not in get_args(Uncalibrated):
        choice = " or ".join(f'"{each}"' for each in get_args(Uncalibrated))
        raise InputError(f"uncalibrated is {value!r:.80}. Give {choice}.")
