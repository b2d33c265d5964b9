"""Watching every sampling with a model of ComfyUI: its predictions, and what becomes of it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mnemoscope.prompts.printable import counted
from mnemoscope_runtime.errors import InputError, MnemoscopeError

from .baseline import Baseline
from .covered import check_model, named
from .decision import Sampled
from .identity import Identity, state_of
from .magnitude import prediction_type
from .session import Measured, Session

__all__ = ["Ruling", "Watch"]

_AROUND = "outer_sample"  # ComfyUI's name of the place around a whole sampling
_GUIDER = "CFGGuider"  # of KSampler too
_KEY = "mnemoscope"
_KEPT = 256  # samplings whose verdicts are kept


class _Stop(BaseException):  # not for a sampler's own handlers
    """Nothing of this sampling is wanted any more."""


@dataclass(frozen=True)
class Ruling:
    """What becomes of a sampling that was measured.

    Attributes:
        sampled: What there is to say of it. Images that it hides are drawn without their prompt
            from here on, and their latents are empty.
        stop: Whether to draw nothing more.
    """

    sampled: Sampled
    stop: bool = False


@dataclass
class _Now:
    """A sampling that is going on; without a session it cannot be measured."""

    session: Session | None
    ruling: Ruling | None = None


class Watch:
    """Shows what guidance computes to whoever decides.

    Args:
        patcher: ComfyUI's MODEL.
        clip: Its CLIP.
        negative: The negative prompt of requests.
        steps: Calls of the model to look at.
        decide: Told of every sampling's measurement; may raise.
        extra_pass: Whether the prediction without the prompt is computed at cfg 1.0 too.
        lenient: Whether what cannot be measured is drawn all the same, and said to be that.

    Raises:
        InputError: a guard cannot tell what the model predicts.
    """

    def __init__(
        self,
        patcher: Any,
        clip: Any,
        *,
        negative: str,
        steps: int,
        decide: Callable[[Measured], Ruling],
        extra_pass: bool = False,
        lenient: bool = False,
    ) -> None:
        check_model(patcher)
        prediction_type(patcher.get_model_object("model_sampling"))
        self.steps = steps
        self._decide = decide
        self._extra_pass = extra_pass
        self._lenient = lenient
        self._model, self._clip = patcher.model, clip
        self._baseline = Baseline.of(clip, negative)
        self._identity = Identity.of(patcher, clip)
        self._patches = patcher.patches_uuid
        self._now: _Now | None = None
        self._known: OrderedDict[str, Sampled] = OrderedDict()

        # functions, since ComfyUI copies a model's options deeply: a method with its object
        def see(args: Any) -> Any:
            return self._see(args)

        def around(executor: Any, *args: Any, **kwargs: Any) -> Any:
            return self._around(executor, *args, **kwargs)

        self._own = (see, around)

    def attach(self, patcher: Any) -> Any:
        """A clone of the model of ComfyUI that is watched in every sampling."""
        see, around = self._own
        found = patcher.clone()
        found.set_model_sampler_pre_cfg_function(see, disable_cfg1_optimization=self._extra_pass)
        found.add_wrapper_with_key(_AROUND, _KEY, around)
        return found

    def sampled(self, latent: Tensor) -> Sampled:
        """What was seen of the sampling that drew a latent.

        Args:
            latent: The samples of a sampler's LATENT, as they are. # [B, C, H, W]
        """
        unknown = Sampled(
            reason="This latent is not what a sampler drew with the guarded model, or was changed "
            "since. Connect the LATENT of the sampler itself, and to that the guard's MODEL."
        )
        return self._known.get(_digest(latent), unknown)

    def _see(self, args: Any) -> Any:
        """ComfyUI's function before guidance."""
        now = self._now
        if now is None:
            if self._lenient:
                return args["conds_out"]
            raise InputError(
                "The guarded model is asked for predictions outside of a sampling that the guard "
                "knows of. Use a KSampler, or SamplerCustomAdvanced with a CFGGuider."
            )
        if now.session is None:
            return args["conds_out"]
        try:
            return now.session.see(args)
        except MnemoscopeError as error:
            self._unmeasured(now, error)
            return args["conds_out"]

    def _around(
        self,
        executor: Any,
        noise: Tensor,
        latent: Tensor,
        sampler: Any,
        sigmas: Any,
        mask: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """ComfyUI's wrapper around a whole sampling."""
        outer, self._now = self._now, _Now(None)
        now = self._now
        try:
            try:
                now.session = self._begun(now, executor.class_obj, noise, latent, sampler, mask)
            except MnemoscopeError as error:
                self._unmeasured(now, error)
            samples = executor(noise, latent, sampler, sigmas, mask, *args, **kwargs)
        except _Stop:
            samples = torch.zeros_like(noise, dtype=torch.float32)
        finally:
            self._now = outer
        if now.ruling is None:
            assert now.session is not None
            looked = len(now.session.sigmas)
            short = InputError(
                f"The sampler asked the model {counted(looked, 'time')} in a way that the guard "
                f"sees, and it looks at {self.steps}: nothing was decided. Draw with more steps, "
                "with a KSampler or a CFGGuider, or calibrate a guard that looks at fewer."
            )
            self._unmeasured(now, short)
        assert now.ruling is not None
        if hidden := list(now.ruling.sampled.hidden):
            samples = samples.clone()
            samples[hidden] = 0
        self._known[_digest(samples)] = now.ruling.sampled
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return samples

    def _begun(
        self, now: _Now, guider: Any, noise: Tensor, latent: Tensor, sampler: Any, mask: Any
    ) -> Session:
        """A session for a sampling.

        Raises:
            InputError: it starts from something that no calibration covers.
        """
        if mask is not None:
            raise InputError(
                "The latent has a noise mask (inpainting), so that predictions depend on a picture "
                "of yours, and no calibration covers that. Draw without it, or without the guard."
            )
        if not torch.count_nonzero(noise):
            raise InputError(
                "This sampler adds no noise: it goes on where another one stopped, and what is "
                "recited is decided there. Guard the first one, and give this one the MODEL from "
                "before the guard."
            )

        def decide(measured: Measured) -> Sequence[int]:
            now.ruling = self._decide(measured)
            if now.ruling.stop:
                raise _Stop
            return now.ruling.sampled.hidden

        return Session(
            identity=self._identity_now(guider.model_patcher),
            baseline=self._baseline,
            steps=self.steps,
            own=self._own,
            about=_about(guider, latent, sampler, self.steps),
            decide=decide,
        )

    def _identity_now(self, patcher: Any) -> Identity:
        """Patches (LoRA) may have been added behind the guard.

        Raises:
            InputError: it is another model, or patched in a way that no table knows.
        """
        check_model(patcher)
        if patcher.model is not self._model:
            raise InputError(
                "The sampler draws with another model than the guard was given. Put the guard "
                "behind the node that loads the model."
            )
        if patcher.patches_uuid != self._patches:
            state = state_of(patcher, self._clip)
            self._identity = Identity(self._identity.model, state)
            self._patches = patcher.patches_uuid
        return self._identity

    def _unmeasured(self, now: _Now, error: MnemoscopeError) -> None:
        """Raise it, or note it where such samplings are drawn all the same."""
        if not self._lenient:
            raise error
        now.session, now.ruling = None, Ruling(Sampled(reason=str(error)))


def _about(guider: Any, latent: Tensor, sampler: Any, steps: int) -> str:
    """What scores depend on beside the conditionings, in words.

    Raises:
        InputError: past the first step it is open how predictions are combined.
    """
    found = ["from noise" if not torch.count_nonzero(latent) else "from a latent"]
    if steps > 1:
        if type(guider).__name__ != _GUIDER:
            raise InputError(
                f"The guard looks at {steps} calls, and does not know how {named(guider)} combines "
                f"predictions on the way. Use a KSampler or {_GUIDER}, or let it look at one."
            )
        samples = getattr(sampler, "sampler_function", sampler)
        options = getattr(sampler, "extra_options", None) or ""
        found.append(f"cfg {guider.cfg:g}, sampler {named(samples)}{options}")
    return ", ".join(found)


def _digest(latent: Tensor) -> str:
    """A name for the values of a latent, which ComfyUI may hand on in float16."""
    values = latent.detach().half().cpu().contiguous()
    shape = f"{tuple(values.shape)} ".encode()
    return hashlib.sha256(shape + values.numpy().tobytes()).hexdigest()
