"""Refusing a request in the middle of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mnemoscope_runtime.errors import InputError, MnemoscopeError

__all__ = ["PipelineBusy", "no_baseline", "no_length", "outside", "through"]


class PipelineBusy(MnemoscopeError, RuntimeError):
    """A guarded pipeline was called while it draws: from another thread, or by its own callback."""

    def __init__(self) -> None:
        super().__init__(
            "This pipeline is drawing already, in another thread or around this very call, and it "
            "draws one request at a time: its scheduler and its guard's decisions are of one. Wait "
            "for it (a lock around every call), or give every thread a guarded pipeline of its own "
            "(`replicate`, a pool: docs/guard.md)."
        )


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


def no_baseline(steps: int, guided: bool, tokens: int, reads: int) -> InputError:
    """Why a request's predictions have nothing that thresholds are relative to, and what to do.

    Args:
        steps: That the guard looks at.
        guided: Whether there is an unconditional branch, of something else than the baseline.
        tokens: How many embeddings that branch has, or the prompt's where there is none.
        reads: How many a prompt has.
    """
    if not guided:
        where = "`Guard` or `calibrate_guard`" if steps == 1 else "`calibrate_guard` and `Guard`"
        return InputError(
            "This request has no unconditional branch (guidance_scale <= 1, a guider that starts "
            "later, or a guidance-distilled model such as LCM, Turbo or FLUX.1), so that there is "
            f"nothing to compare the prompt with. Give {where} `extra_pass=True`, which runs the "
            "network once more on the empty prompt at every step that is looked at; or draw with "
            "guidance."
        )
    if tokens == reads:
        what = "The negative prompt of this request is not the one that the guard is calibrated for"
        same = "calibrate with it, and give it to the guard too: `negative_prompt=...` of both"
    else:
        what = (
            f"The negative embeddings of this request have {tokens} tokens and are not those of "
            "the negative prompt that the guard is calibrated for, followed by those of the empty "
            f"one, {reads} at a time (of Stable Diffusion XL the pooled ones too)"
        )
        same = "give those as `negative_prompt_embeds`"
    if steps == 1:
        return InputError(
            f"{what}, so that its predictions are relative to something else and no threshold "
            "applies. Give `Guard(..., extra_pass=True)`, which runs the network once more on "
            f"the empty prompt at the first step; or {same}."
        )
    return InputError(
        f"{what}. Past the first step it changes what is looked at, and this guard looks at "
        f"{steps} steps, so that an extra pass would not help: {same}. Or look at the first step "
        "alone: `calibrate_guard(..., steps=1)` and `Guard(..., steps=1, extra_pass=True)`."
    )


def no_length(tokens: int, reads: int, *, chunks: bool) -> InputError:
    """Why embeddings of a length have no baseline."""
    more = " or a multiple of it, as tools that read long prompts in chunks do" if chunks else ""
    return InputError(
        f"The embeddings of this request have {tokens} tokens, and the text encoder gives {reads} "
        "at a time, so that what the empty prompt is at that length is not known. Give embeddings "
        f"of {reads} tokens{more}."
    )
