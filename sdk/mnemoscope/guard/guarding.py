"""The guard itself: from measurements to decisions, and from decisions to what is drawn."""

from __future__ import annotations

import functools
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor

from mnemoscope_runtime.errors import CalibrationError, InputError
from mnemoscope_runtime.options import check_options

from ..calibration import Calibration, CalibrationFile
from ..prompts.printable import counted
from . import setting as settings
from .baselines import reading
from .conditioning import Arguments, Baseline
from .decision import (
    ACTIONS,
    Action,
    Decision,
    MemorizationBlocked,
    MemorizationWarning,
    append,
    check_same,
    named_prompts,
    texts_of,
    warning,
)
from .drawing import RandomState
from .identity import Identified, Identity
from .mitigation import EmbeddingOptimization, Flagged, GuardMitigation, StepMitigation, checked
from .pipelines import Guarded, accessed, guarded
from .refusing import PipelineBusy
from .watching import Magnitude, Measured, Steer, Watch

__all__ = ["Guard", "Policy"]

Policy = Literal["warn", "block", "mitigate"] | Callable[[tuple[Decision, ...]], Sequence[Action]]


class _Again(BaseException):  # not for a pipeline's own handlers, which would report an error
    """Draw the request anew, with the embeddings that were found."""


class _Blocked(BaseException):
    """Draw nothing."""


class Guard:
    """Watches a diffusers pipeline from its construction to `detach`, or to the end of a `with`.

    Supported are Stable Diffusion 1.x, 2.x and XL: text to image, image to image, inpainting; from
    text to image XL's modular pipeline, Stable Diffusion 3 and 3.5, PixArt-Sigma, Sana, Qwen-Image
    and FLUX.1. The pipeline is called as before, and what it returns is the same to the bit unless
    an image is flagged. One call at a time: a second one meanwhile is a `PipelineBusy`.

    Before and after every request it is checked, in about a millisecond, that the pipeline is still
    what was calibrated: weights, adapters and their scales, FreeU, attention, hooks, tokenizers.

    Policies, for the images that score above the calibration's threshold:

    - "warn": a `MemorizationWarning`; everything is drawn.
    - "block": those images come back black (zeros for arrays and latents), the others as they
      would be; if all of them are flagged, `MemorizationBlocked` is raised as soon as it is known.
    - "mitigate": the request is drawn anew from the same noise with other embeddings for those
      images, and looked at again; what is still flagged is blocked.
    - a function: given the decisions, it returns an action for each: "pass", "warn", "block" or
      "mitigate".

    Attributes:
        decisions: The last request's, one for each image.
        identity: Which model the pipeline was at the last request, or when the guard was made.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        calibration: Calibration | CalibrationFile | str | Path | None = None,
        policy: Policy = "warn",
        steps: int | None = None,
        negative_prompt: str | None = None,
        extra_pass: bool = False,
        mitigation: GuardMitigation | None = None,
        record: str | Path | None = None,
        keep_prompts: bool = False,
        trust: str | Path | None = None,
    ) -> None:
        """Guard a pipeline.

        Args:
            pipe: The pipeline.
            calibration: Of `calibrate_guard`, or a file that holds one. Without it, decisions have
                scores and no verdicts, which only "warn" and a function allow.
            policy: What to do with flagged images.
            steps: Steps to look at before deciding; as many as the calibration has, 1
                without one.
            negative_prompt: The one that the calibration was made with, if any.
            extra_pass: Whether the guard may run the network once more at every step that it looks
                at, for requests with another negative prompt (first step only) or no guidance.
            mitigation: For "mitigate"; `EmbeddingOptimization()` by default.
            record: JSONL file to which every decision is added.
            keep_prompts: Whether decisions, and so the file, hold the prompts' text.
            trust: File of a public key: only a file of a calibration that it signed is read.

        Raises:
            InputError: the pipeline cannot be watched, is guarded already, something of it changes
                predictions in an unknown way, or an option is wrong.
            CalibrationError: there is no calibration for this pipeline where one is needed.
            SignatureError: the calibration is not signed by the key that is trusted.
        """
        self._access = accessed(pipe)
        if not callable(policy) and policy not in ("warn", "block", "mitigate"):
            raise InputError(
                f"There is no policy {policy!r}. Choose warn, block, mitigate, or give a function."
            )
        check_options("a whole number or None", steps=steps)
        check_options("a path or None", record=record, trust=trust)
        check_options("True or False", extra_pass=extra_pass, keep_prompts=keep_prompts)
        if negative_prompt is not None:
            check_options("text", negative_prompt=negative_prompt)
        if steps is not None and steps < 1:
            raise InputError(f"A guard looks at one step or more, not at {steps}.")
        if record is not None and not Path(record).absolute().parent.is_dir():
            raise InputError(
                f"{record} cannot be written: there is no folder {Path(record).parent}. Make it, "
                "or choose another file."
            )
        self._identified = Identified(pipe)
        self.identity = self._attached = self._identified.now()
        self._fitting: dict[settings.GuardSetting, Calibration] = {}
        self._known = settings.load(calibration, self.identity, steps, trust)
        if self._known is None and policy in ("block", "mitigate"):
            raise CalibrationError(
                f"Policy {policy!r} needs a threshold, and there is no universal one. Measure "
                "benign prompts with `calibrate_guard` and give its result as `calibration`."
            )
        self.decisions: tuple[Decision, ...] = ()
        self._pipe, self._policy = pipe, policy
        self._steps = self._known[0].setting.steps if self._known else steps or 1
        self._negative, self._extra_pass = negative_prompt, extra_pass
        self._mitigation = mitigation or EmbeddingOptimization()
        self._record = None if record is None else Path(record)
        self._keep = keep_prompts
        self._texts: tuple[str, ...] = ()
        self._baselines: dict[object, Baseline] = {}
        self._drawing = threading.Lock()
        self._original: type = type(pipe)
        pipe.__class__ = guarded(self._original, pipe, self._draw)

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Leave the pipeline as it was found; again does nothing.

        Raises:
            PipelineBusy: it is drawing.
        """
        with self._alone():
            if isinstance(self._pipe, Guarded):
                self._pipe.__class__ = self._original

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Raises PipelineBusy if the pipeline is drawing."""
        if not self._drawing.acquire(blocking=False):
            raise PipelineBusy()
        try:
            yield
        finally:
            self._drawing.release()

    def _draw(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of the pipeline, if it is still the one that was calibrated."""
        with self._alone():
            self.decisions = ()
            told = self._access.arguments(args, kwargs)
            self._texts = (self._negative or "", *texts_of(told))
            self._identify()
            output = self._watched(args, kwargs, told)
            self._check_unchanged()
            return output

    def _check_unchanged(self) -> None:
        """Raises CalibrationError if the pipeline is not what it was when the request came."""
        if self._known is not None and (now := self._identified.now(self._texts)) != self.identity:
            raise CalibrationError(
                f"The pipeline was changed while it drew: {self.identity.changes(now)}. What was "
                "decided was not of all that was drawn, and is not handed out. Change it between "
                "requests."
            )

    def _identify(self) -> None:
        """Look which model the pipeline is now.

        Raises:
            CalibrationError: the guard is not calibrated for it.
            InputError: something of it changes predictions in an unknown way.
        """
        now = self._identified.now(self._texts)
        if not self._fits(now):  # what was put back may not show in this request
            now = self._identified.now(anew=True)
        if now is not self.identity:
            self.identity, self._baselines = now, {}
        if self._known is None:
            return
        now.require()
        if not self._fits(now):
            raise CalibrationError(
                "The pipeline is not the one any more that the guard is calibrated for: "
                f"{self._attached.changes(now)}. Put that back, or calibrate the pipeline as it is "
                "now (`calibrate_guard`) and make another guard; a `CalibrationFile` may hold the "
                "calibrations of several states."
            )

    def _relative_to(self, told: Arguments) -> Baseline:
        """What the network is told without a prompt, in the precision of this request."""
        device = self._pipe._execution_device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        key = autocast, *reading(told).items()
        if key not in self._baselines:
            self._baselines[key] = self._access.negative(self._negative, told)
        return self._baselines[key]

    def _fits(self, now: Identity) -> bool:
        """Whether a calibration is of this model, where there is one at all."""
        if self._known is None:
            return True
        return now.strange is None and any(settings.fits(each, now) for each in self._known)

    def _watched(self, args: tuple[Any, ...], kwargs: dict[str, Any], told: Arguments) -> Any:
        """One call of the pipeline, under watch."""
        baseline = self._relative_to(told)
        random = RandomState.of(told.get("generator"))
        args, kwargs, called = self._access.overseen(args, kwargs)
        silenced: set[int] = set()
        embeds: dict[int, Tensor] = {}
        while True:
            steer, until = self._steering() if embeds else (None, 0.0)
            watch = Watch(
                self._access,
                baseline,
                self._steps,
                self._extra_pass,
                decide=functools.partial(self._decide, told, silenced),
                embeds=embeds,
                silenced=silenced,
                steer=steer,
                until=until,
                check=self._check_unchanged if called else lambda: None,
                told=told,
            )
            try:
                with watch.watching():
                    output = self._original.__call__(self._pipe, *args, **kwargs)
            except _Again as again:
                [embeds] = again.args
                self._access.free()
                random.restore()
            except _Blocked:
                self._access.free()
                raise MemorizationBlocked(self.decisions) from None
            except BaseException:
                self._access.free()
                raise
            else:
                return self._access.blank(output, silenced, told)

    def _decide(self, told: Arguments, silenced: set[int], measured: Measured) -> None:
        """Decide on every image, and act; raises to stop the pipeline."""
        found = self._judge(measured, told, attempt=int(bool(self.decisions)))
        if self.decisions:  # the second time, only what was mitigated is looked at
            check_same(self.decisions, found)
            kept = zip(self.decisions, found, strict=True)
            found = tuple(new if old.action == "mitigate" else old for old, new in kept)
        else:
            found = self._act(found)
        fresh = [each for each in found if each.attempt or not self.decisions]
        self.decisions = found
        if self._record is not None:
            append(self._record, fresh)
        for each in fresh:
            if each.action == "warn":
                warnings.warn(warning(each), MemorizationWarning, stacklevel=2)
        silenced |= {each.index for each in found if each.action == "block"}
        if len(silenced) == len(found):
            raise _Blocked
        rows = [each.index for each in found if each.action == "mitigate" and not each.attempt]
        if rows:
            raise _Again(self._mitigated(measured, told, rows))

    def _judge(self, measured: Measured, told: Arguments, attempt: int) -> tuple[Decision, ...]:
        """Scores to verdicts. A mitigated image that is still flagged is blocked."""
        start = time.perf_counter()
        calibration = self._calibration(measured, told)
        names, texts = named_prompts(told, len(measured.scores))
        limit = None if calibration is None else calibration.threshold
        seconds = measured.seconds + time.perf_counter() - start
        found = []
        for i, score in enumerate(measured.scores):
            verdict = calibration is not None and measured.compared[i]
            memorized = score > limit if verdict and limit is not None else None
            found.append(
                Decision(
                    index=i,
                    prompt_id=names[i],
                    score=score,
                    p_value=calibration.p_value(score) if verdict and calibration else None,
                    threshold=limit,
                    memorized=memorized,
                    compared=measured.compared[i],
                    timesteps=measured.timesteps,
                    policy=self._policy if isinstance(self._policy, str) else "callback",
                    action=("block" if memorized else "mitigate") if attempt else "pass",
                    attempt=attempt,
                    extra_pass=measured.extra_pass,
                    seconds=seconds,
                    prompt=texts[i] if self._keep else None,
                )
            )
        return tuple(found)

    def _calibration(self, measured: Measured, told: Arguments) -> Calibration | None:
        if self._known is None:
            return None
        wanted = self._access.setting(self.identity, told, self._negative, measured)
        if wanted not in self._fitting:
            self._fitting[wanted] = settings.find(self._known, wanted)
        return self._fitting[wanted]

    def _act(self, decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
        """The policy's action for every image."""
        if isinstance(self._policy, str):
            flagged: Action = self._policy
            actions: Sequence[Action] = [flagged if d.memorized else "pass" for d in decisions]
        else:
            told: object = self._policy(decisions)
            actions = list(told) if isinstance(told, Iterable) else []
            if len(actions) != len(decisions) or any(each not in ACTIONS for each in actions):
                raise InputError(
                    f"The policy returned {told!r:.200} for "
                    f"{counted(len(decisions), 'image')}. It returns a list with one of "
                    f"{', '.join(ACTIONS)} for each."
                )
        return tuple(
            decision if action == decision.action else replace(decision, action=action)
            for decision, action in zip(decisions, actions, strict=True)
        )

    def _mitigated(self, measured: Measured, told: Arguments, rows: list[int]) -> dict[int, Tensor]:
        """Other embeddings for these images. index: [L, D]"""
        calibration = self._calibration(measured, told)
        if calibration is None:
            raise CalibrationError(
                "To mitigate takes a calibration: what is still flagged after it would not be "
                "known. Give `calibration`, or another action."
            )
        _, texts = named_prompts(told, len(measured.scores))
        with torch.inference_mode(False), torch.enable_grad():
            flagged = Flagged(
                prompts=tuple(texts[row] for row in rows),
                embeds=measured.embeds[rows].clone(),
                magnitude=functools.partial(measured.magnitude, rows),
                benign=calibration.ordered,
                threshold=calibration.threshold,
            )
            found = checked(self._mitigation(flagged), flagged.embeds)
        return dict(zip(rows, found, strict=True))

    def _steering(self) -> tuple[Steer | None, float]:
        """What changes embeddings on the way, and to which timestep."""
        mitigation = self._mitigation
        if not isinstance(mitigation, StepMitigation):
            return None, 0.0

        def steer(t: float, embeds: Tensor, now: Tensor, magnitude: Magnitude) -> Tensor | None:
            with torch.inference_mode(False), torch.enable_grad():
                found = mitigation.steer(t, embeds.clone(), now, magnitude)
            return None if found is None else checked(found, embeds)

        return steer, mitigation.until
