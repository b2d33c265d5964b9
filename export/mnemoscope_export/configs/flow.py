"""Options of flows' schedulers, and of T5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import Option, flag, free, number, off, only, problems, whole
from .parts import LIBRARY_WIDE

__all__ = ["FLOW_SCHEDULER", "T5", "flow_problems", "t5_problems"]

# diffusers' FlowMatchEulerDiscreteScheduler
FLOW_SCHEDULER: Mapping[str, Option] = {
    "base_image_seq_len": whole(256),
    "base_shift": number(0.5),
    "invert_sigmas": off(),
    "max_image_seq_len": whole(4096),
    "max_shift": number(1.15),
    "num_train_timesteps": whole(1000),
    "shift": Option(
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v > 0,
        "a number above 0",
        1.0,
    ),
    "shift_terminal": Option(
        lambda v: v is None or (isinstance(v, float) and 0 < v < 1), "between 0 and 1, or null"
    ),
    "stochastic_sampling": off(),
    "time_shift_type": only("exponential", "linear"),
    "use_beta_sigmas": off(),
    "use_dynamic_shifting": flag(default=False),
    "use_exponential_sigmas": off(),
    "use_karras_sigmas": off(),
}

# transformers' T5Config, of which the encoder is used
T5: Mapping[str, Option] = {
    "architectures": Option(
        lambda v: (
            v is None
            or (isinstance(v, list | tuple) and all(str(name).startswith("T5") for name in v))
        ),
        "['T5EncoderModel']",
    ),
    "classifier_dropout": free(),
    "d_ff": whole(2048),
    "d_kv": whole(64),
    "d_model": whole(512),
    "dense_act_fn": only("relu", "gelu_new", None, default=None),
    "dropout_rate": number(0.1),
    "dtype": free(),  # everything is read in float32
    "eos_token_id": only(1),
    "feed_forward_proj": only("relu", "gated-gelu"),
    "initializer_factor": free(),
    "is_decoder": off(),
    "is_gated_act": flag(default=False),
    "layer_norm_epsilon": number(1e-6),
    "model_type": only("t5"),
    "n_positions": free(),  # of older versions: positions are relative
    "num_decoder_layers": free(),
    "num_heads": whole(8),
    "num_layers": whole(6),
    "output_attentions": off(),
    "output_past": free(),
    "pad_token_id": only(0),
    "pruned_heads": only({}),
    "relative_attention_max_distance": whole(128),
    "relative_attention_num_buckets": whole(32),
    "return_dict": only(True),
    "scale_decoder_outputs": free(),
    "torch_dtype": free(),
    "torchscript": off(),
    "use_cache": free(),
    "vocab_size": whole(32128),
    **dict.fromkeys(LIBRARY_WIDE, free()),
}


def flow_problems(config: Mapping[str, Any]) -> list[str]:
    """What in a `scheduler_config.json` is not covered."""
    found = problems(FLOW_SCHEDULER, config)
    kind = config.get("_class_name", "FlowMatchEulerDiscreteScheduler")
    if kind != "FlowMatchEulerDiscreteScheduler":
        found.insert(0, f"{kind} (must be FlowMatchEulerDiscreteScheduler)")
    return found


def t5_problems(config: Mapping[str, Any]) -> list[str]:
    """What in a T5's `config.json` is not covered."""
    return problems(T5, config)
