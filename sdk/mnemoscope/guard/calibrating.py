"""Calibrating a guard: what benign requests score, measured just as the guard will."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from mnemoscope_runtime.errors import CalibrationError, InputError
from mnemoscope_runtime.options import check_options

from ..calibration import Calibration, Setting, digest, name_of
from ..calibration.conformal import allowed_above
from ..calibration.making import Progress, check_texts, distinct
from ..calibration.wording import doubt
from ..prompts.printable import counted
from .access import Access
from .conditioning import Baseline
from .identity import Identified
from .pipelines import accessed
from .telling_apart import digests
from .watching import Measured, Watch

__all__ = ["Embed", "calibrate_guard", "measure"]

Embed = Callable[[list[str]], Mapping[str, Any]]


class _Enough(BaseException):  # not for a pipeline's own handlers
    """All that was asked for is measured; carries it."""


def calibrate_guard(
    pipe: Any,
    benign: Sequence[str],
    *,
    positives: Sequence[str] = (),
    steps: int = 1,
    fpr: float = 0.01,
    delta: float = 0.05,
    negative_prompt: str | None = None,
    embed: Embed | None = None,
    extra_pass: bool = False,
    seed: int = 0,
    batch: int = 8,
    progress: Progress = lambda *_: None,
    tell: Callable[[str], None] = warnings.warn,
    **call: Any,
) -> Calibration:
    """Measure benign prompts as requests: the pipeline's scheduler, a noise of its own for each.

    Only the first `steps` steps are drawn. The calibration holds for requests that agree in what
    scores depend on: weights, adapters and whatever else changes predictions, pipeline, scheduler,
    dtype, size, the timesteps looked at, length of embeddings, negative prompt, and past the first
    step the guidance. Prompts of which the pipeline's tokenizers make the same are one.

    Args:
        pipe: The pipeline, not guarded.
        benign: Prompts that the model did not memorise, drawn like those to come.
        positives: Prompts that it did memorise, if some are known, for the true-positive rate.
        steps: Steps that the guard looks at.
        fpr: False-positive rate to promise, for an image, in 0..1.
        delta: The chance that the promise is broken, in 0..1.
        negative_prompt: The one that requests will have, if any.
        embed: Makes a request's embeddings of prompts, where requests come with embeddings (longer
            ones, weighted ones): from texts [B] to the pipeline's arguments, `prompt_embeds`
            [B, L, D] and `negative_prompt_embeds` [B, L, D], with Stable Diffusion XL also
            `pooled_prompt_embeds` and `negative_pooled_prompt_embeds` [B, P].
        extra_pass: Whether to run the network once more, for pipelines without guidance.
        seed: Of the noises.
        batch: Prompts drawn together.
        progress: Told how many prompts of how many are done.
        tell: Told of prompts that are left out.
        **call: What requests will give the pipeline: `num_inference_steps`, `guidance_scale`,
            `height`, `image`, ...

    Raises:
        InputError: too few prompts for the promise, one that is no text, the pipeline cannot be
            watched, or it takes no such argument.
        NumericsError: a magnitude is NaN or infinite.
    """
    read = partial(digests, pipe, accessed(pipe).arguments((), call), whole=embed is not None)
    benign, positives = distinct(benign, positives, read, tell)
    allowed_above(len(benign), fpr, delta)  # before measuring for an hour
    measured, setting = measure(
        pipe,
        [*benign, *positives],
        steps=steps,
        negative_prompt=negative_prompt,
        embed=embed,
        extra_pass=extra_pass,
        seed=seed,
        batch=batch,
        progress=progress,
        **call,
    )
    scores = [score for each in measured for score in each.scores]
    found = Calibration.of(
        setting,
        dict(zip(map(name_of, read(benign)), scores[: len(benign)], strict=True)),
        positives=scores[len(benign) :],
        fpr=fpr,
        delta=delta,
        named_by="tokens",
    )
    if (note := doubt(found)) is not None:
        tell(note)
    return found


def measure(
    pipe: Any,
    prompts: Sequence[str],
    *,
    steps: int,
    negative_prompt: str | None = None,
    embed: Embed | None = None,
    extra_pass: bool = False,
    seed: int = 0,
    batch: int = 8,
    progress: Progress = lambda *_: None,
    **call: Any,
) -> tuple[list[Measured], Setting]:
    """Send prompts through a pipeline as far as a guard looks; see `calibrate_guard`.

    Returns:
        What was seen of every batch, and the setting of all.

    Raises:
        InputError: the pipeline cannot be watched, or it is given what measuring gives or what it
            does not take; no step, no batch or no texts.
        NumericsError: a magnitude is NaN or infinite.
    """
    access = accessed(pipe)
    check_texts(prompts)
    check_options("a whole number", steps=steps, batch=batch, seed=seed)
    if steps < 1 or batch < 1:
        raise InputError(
            f"{counted(steps, 'step')} in batches of {batch} measure nothing. Give steps and "
            "batch of 1 or more."
        )
    _check(access, call)
    identified = Identified(pipe)
    now = identified.now()
    now.require()
    baseline = access.negative(negative_prompt, access.arguments((), call))
    found: list[Measured] = []
    done = 0

    def enough(measured: Measured) -> None:
        raise _Enough(measured)

    for start in range(0, len(prompts), batch):
        some = prompts[start : start + batch]
        seeds = [int(digest(prompt), 16) + seed for prompt in some]
        request = call | {
            **_prompts(access, some, embed, baseline),
            "generator": [torch.Generator().manual_seed(each) for each in seeds],
            "output_type": "latent",
        }
        if negative_prompt is not None and "negative_prompt_embeds" not in request:
            request["negative_prompt"] = [negative_prompt] * len(some)
        told = access.arguments((), request)
        _, request, _ = access.overseen((), request)
        watch = Watch(access, baseline, steps, extra_pass, enough, told=told)
        try:
            with watch.watching():
                pipe(**request)
        except _Enough as reached:
            found += reached.args
        finally:
            access.free()
        done += len(some)
        progress(done, len(prompts))
    if changes := now.changes(identified.now()):
        raise CalibrationError(
            f"The pipeline was changed while it was calibrated: {changes}. Calibrate again, and "
            "leave it alone meanwhile."
        )
    return found, access.setting(now, told, negative_prompt, found[-1]).setting


def _prompts(
    access: Access, prompts: Sequence[str], embed: Embed | None, baseline: Baseline
) -> dict[str, Any]:
    """The arguments of a request that say what to draw.

    Raises:
        InputError: `embed` did not return those of every prompt.
    """
    if embed is None:
        return {"prompt": list(prompts)}
    found = dict(embed(list(prompts)))
    kind = type(access.pipe).__name__
    for name, value in found.items():
        if name not in access.names or not name.endswith("prompt_embeds"):
            raise InputError(f"`embed` returned {name}, and {kind} takes no such embeddings.")
        if not isinstance(value, torch.Tensor) or len(value) != len(prompts):
            raise InputError(
                f"`embed` returned {name} for something else than "
                f"{counted(len(prompts), 'prompt')}. It returns a tensor with one row for each."
            )
    if "prompt_embeds" not in found:
        raise InputError("`embed` returned no prompt_embeds. It returns at least those.")
    tokens = found["prompt_embeds"].shape[1]
    baseline.of(tokens)  # or raises
    if tokens != baseline.reads and "negative_prompt_embeds" not in found:
        raise InputError(
            f"`embed` returned prompt_embeds of {tokens} tokens and no negative_prompt_embeds, and "
            f"{kind} makes some of {baseline.reads} only. Return both."
        )
    return found


def _check(access: Access, call: Mapping[str, Any]) -> None:
    """Refuse what measuring gives itself, and what the pipeline would not look at."""
    if taken := {"prompt", "prompt_embeds", "generator", "output_type"} & call.keys():
        raise InputError(f"Calibrating gives {', '.join(sorted(taken))} itself. Leave it out.")
    if call.get("num_images_per_prompt") not in (None, 1):
        raise InputError(
            "Calibrating draws one image of each prompt: a guard decides image by image, however "
            "many a request has of a prompt. Leave num_images_per_prompt out."
        )
    for name in sorted(call.keys() - access.names):
        near = difflib.get_close_matches(name, access.names, 1)
        meant = f"Did you mean {near[0]}?" if near else "Leave it out."
        raise InputError(
            f"{type(access.pipe).__name__} takes no {name}: it would be ignored, and the "
            f"calibration be of other requests than you mean. {meant}"
        )
