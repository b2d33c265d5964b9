"""What a pipeline's configs say, in the manifest's terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from mnemoscope_runtime.errors import ExportError, InputError
from mnemoscope_runtime.options import check_options
from mnemoscope_runtime.schedulers import (
    Ddim,
    Flow,
    FlowDpm,
    FlowEuler,
    Scheduler,
    is_trained,
    timesteps,
)
from mnemoscope_runtime.units import PredictionType
from mnemoscope_runtime.wording import counted

from .configs import SCHEDULER, refuse, scheduler_problems
from .configs.flow import DPM_SCHEDULER, FLOW_SCHEDULER, dpm_problems, flow_problems
from .configs.options import taken

__all__ = [
    "check_clip_skip",
    "check_latent_size",
    "check_vocabulary",
    "dpm_record",
    "family",
    "flow_record",
    "flow_shift",
    "prediction_type",
    "scheduler_record",
    "screening_timestep",
]

# what of diffusers' DDIMScheduler is in the manifest; of other samplers' configs the same is read
_DDIM = (
    "beta_schedule",
    "beta_start",
    "beta_end",
    "num_train_timesteps",
    "steps_offset",
    "set_alpha_to_one",
    "timestep_spacing",
)

_PADDING = 128  # tables are filled up to a multiple of this at most


def scheduler_record(config: Mapping[str, Any], model: str, inference_steps: int) -> Ddim:
    """The schedule of a `scheduler_config.json`, sampled with DDIM.

    Args:
        config: The contents of the file.
        model: What errors call the model.
        inference_steps: DDIM steps of a whole image.

    Raises:
        ExportError: the schedule is one that the runtime does not reproduce.
    """
    fields = {name: config.get(name, SCHEDULER[name].default) for name in _DDIM}
    refuse(model, [f"scheduler: {each}" for each in scheduler_problems(config)])
    if inference_steps > fields["num_train_timesteps"]:
        raise ExportError(
            f"{model} was trained on {fields['num_train_timesteps']} timesteps, fewer than the "
            f"{counted(inference_steps, 'step')} of a whole image. Give --inference-steps N (in "
            "Python `inference_steps`) with as many as you draw with."
        )
    try:
        return msgspec.convert({**fields, "inference_steps": inference_steps}, Ddim)
    except msgspec.ValidationError as error:
        raise ExportError(
            f"{model}'s scheduler cannot be used: {error}. Correct scheduler/scheduler_config.json."
        ) from None


def flow_record(
    config: Mapping[str, Any],
    model: str,
    inference_steps: int,
    image_tokens: int,
    last: float | None = None,
) -> FlowEuler:
    """The schedule of a flow's `scheduler_config.json`, sampled with Euler's steps.

    Args:
        config: The contents of the file.
        model: What errors call the model.
        inference_steps: Steps of a whole image.
        image_tokens: How many tokens a picture is for the network.
        last: The last level before it is shifted, where a pipeline says; else the scheduler does.

    Raises:
        ExportError: the schedule is one that the runtime does not reproduce.
    """
    refuse(model, [f"scheduler: {each}" for each in flow_problems(config)])
    count = config.get("num_train_timesteps", FLOW_SCHEDULER["num_train_timesteps"].default)
    own = float(np.float32(1 / count))
    if config.get("use_dynamic_shifting"):
        shift = _flow_factor(config, image_tokens)
    else:
        shift = float(config.get("shift", FLOW_SCHEDULER["shift"].default))
        # diffusers shifts its own levels when it is made, and what it steps through once more
        own = float(np.float32(shift * own / (1 + (shift - 1) * own)))
    terminal = config.get("shift_terminal")
    return FlowEuler(count, shift, own if last is None else last, inference_steps, terminal)


def dpm_record(config: Mapping[str, Any], model: str, inference_steps: int) -> FlowDpm:
    """The schedule of a DPM solver along a flow, sampled with its steps of first order.

    Args:
        config: The contents of `scheduler_config.json`.
        model: What errors call the model.
        inference_steps: Steps of a whole image.

    Raises:
        ExportError: the schedule is one that the runtime does not reproduce.
    """
    refuse(model, [f"scheduler: {each}" for each in dpm_problems(config)])
    count, shift = (
        config.get(name, DPM_SCHEDULER[name].default)
        for name in ("num_train_timesteps", "flow_shift")
    )
    found = FlowDpm(count, float(shift), inference_steps)
    told = timesteps(found)
    if told[-1] < 1 or len(set(told.tolist())) < len(told):
        raise ExportError(
            f"{model} is told whole timesteps, and {counted(inference_steps, 'step')} are so many "
            "that some are told alike. Give --inference-steps N (in Python `inference_steps`) "
            "with as many as you draw with."
        )
    return found


def flow_shift(config: Mapping[str, Any], image_tokens: int) -> float:
    """diffusers' `mu`: how much the levels of a picture of so many tokens are shifted."""
    own = taken(FLOW_SCHEDULER, config)
    first, last = own["base_image_seq_len"], own["max_image_seq_len"]
    slope = (own["max_shift"] - own["base_shift"]) / (last - first)
    return float(image_tokens * slope + own["base_shift"] - slope * first)


def _flow_factor(config: Mapping[str, Any], image_tokens: int) -> float:
    """The same as `FlowEuler.shift`."""
    mu = flow_shift(config, image_tokens)
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)


def screening_timestep(scheduler: Scheduler, wanted: int | None) -> int:
    """What a network is told of pure noise: the sampler's first timestep unless another is wanted.

    Raises:
        InputError: the model was not trained on it.
    """
    if wanted is None:
        return int(timesteps(scheduler)[0])
    if not is_trained(scheduler, wanted):
        first = int(isinstance(scheduler, Flow))
        last = scheduler.num_train_timesteps - 1 + first
        raise InputError(
            f"The model was trained on timesteps {first} to {last}, not {wanted}. Give one of "
            "them, or leave it out for the sampler's first."
        )
    return wanted


def check_latent_size(config: Mapping[str, Any], model: str, size: tuple[int, int]) -> None:
    """Make sure that a UNet can halve latents as often as it does.

    Args:
        config: The contents of its `config.json`.
        model: What errors call the model.
        size: (H, W)

    Raises:
        InputError: it cannot.
    """
    factor = 2 ** (len(config.get("block_out_channels", (1, 2, 3, 4))) - 1)
    if any(side < factor or side % factor for side in size):
        raise InputError(
            f"The UNet of {model} halves its latents to 1/{factor}, so {size[0]}x{size[1]} do not "
            f"fit. Give multiples of {factor}."
        )


def check_clip_skip(configs: Mapping[str, Mapping[str, Any]], clip_skip: int | None) -> None:
    """Make sure that text encoders have the layers that are to be left out, and one more.

    Args:
        configs: The contents of config files by part.
        clip_skip: How many of the last layers are left out of each text encoder.

    Raises:
        InputError: they have not.
    """
    if clip_skip is None:
        return
    check_options("a whole number", clip_skip=clip_skip)
    encoders = [configs[name] for name in ("text_encoder", "text_encoder_2") if name in configs]
    # Stable Diffusion XL leaves out the last layer to begin with
    most = min(int(each.get("num_hidden_layers", 12)) for each in encoders) - len(encoders)
    if not 0 <= clip_skip <= most:
        raise InputError(
            f"clip_skip is {clip_skip}; of this text encoder 0 to {most} layers can be left out. "
            "(diffusers counts from 0, other tools from 1.)"
        )


def check_vocabulary(
    tokens: int, ends: tuple[int | None, int | None], config: Mapping[str, Any], origin: str
) -> None:
    """Make sure that a tokenizer is that of a text encoder, as far as its config tells.

    Embeddings without a token do no harm (some are padding, others of words that were not saved),
    if the tokenizer is the right one: start and end are those of the config, which in the older
    ones are the same whatever they are, or there are about as many tokens as embeddings.

    Args:
        tokens: How many the tokenizer has.
        ends: Ids of start and end.
        config: Of the text encoder.
        origin: What errors call the tokenizer.

    Raises:
        ExportError: it is another one.
    """
    told = config.get("bos_token_id", 49406), config.get("eos_token_id", 49407)
    rows = int(config.get("vocab_size", 49408))
    if None in ends:
        raise ExportError(
            f"{origin} has no start or no end token, between which CLIP reads prompts. Copy the "
            "tokenizer of the model."
        )
    if ends != told and rows - tokens >= _PADDING:
        raise ExportError(
            f"{origin} has {tokens:,} tokens for the {rows:,} embeddings of its text encoder, and "
            f"prompts between {ends[0]} and {ends[1]}, not {told[0]} and {told[1]}: it is another "
            "one's, or only part of it. Copy the tokenizer of the model."
        )


def prediction_type(config: Mapping[str, Any], model: str) -> PredictionType:
    """What the network predicts: the noise itself or the velocity (Salimans & Ho 2022).

    Raises:
        ExportError: something else.
    """
    kind = config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise ExportError(f"{model} predicts {kind!r}; 'epsilon' and 'v_prediction' work.")
    found: PredictionType = kind
    return found


def family(width: int) -> str:
    """ "sd1" or "sd2", told apart by the width of the text encoder."""
    return "sd2" if width == 1024 else "sd1"
