"""Refusing a request in the middle of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mnemoscope_runtime.errors import InputError, MnemoscopeError

__all__ = ["no_baseline", "outside", "through"]


class _Refused(BaseException):
    """Carries an error past a pipeline's own handlers: modular ones would log it block by block."""


@contextmanager
def through() -> Iterator[None]:
    """What a guard refuses in here goes through the pipeline around it, up to `outside`."""
    try:
        yield
    except MnemoscopeError as error:
        raise _Refused(error) from None


@contextmanager
def outside() -> Iterator[None]:
    """Around a pipeline: what was refused is raised as it was."""
    try:
        yield
    except _Refused as refused:
        [error] = refused.args
        raise error from None


def no_baseline(steps: int, guided: bool) -> InputError:
    """Why a request's predictions have nothing that thresholds are relative to, and what to do.

    Args:
        steps: That the guard looks at.
        guided: Whether there is an unconditional branch, of another negative prompt.
    """
    if not guided:
        where = "`Guard` or `calibrate_guard`" if steps == 1 else "`calibrate_guard` and `Guard`"
        return InputError(
            "This request has no unconditional branch (guidance_scale <= 1, a guider that starts "
            "later, or a guidance-distilled model such as LCM or Turbo), so that there is nothing "
            f"to compare the prompt with. Give {where} `extra_pass=True`, which runs the UNet once "
            "more on the empty prompt at every step that is looked at; or draw with guidance."
        )
    same = "calibrate with it, and give it to the guard too: `negative_prompt=...` of both"
    if steps == 1:
        return InputError(
            "The negative prompt of this request is not the one that the guard is calibrated for, "
            "so that its predictions are relative to something else and no threshold applies. Give "
            "`Guard(..., extra_pass=True)`, which runs the UNet once more on the empty prompt at "
            f"the first step; or {same}."
        )
    return InputError(
        "The negative prompt of this request is not the one that the guard is calibrated for. Past "
        f"the first step it changes what is looked at, and this guard looks at {steps} steps, so "
        f"that an extra pass would not help: {same}. Or look at the first step alone: "
        "`calibrate_guard(..., steps=1)` and `Guard(..., steps=1, extra_pass=True)`."
    )
