"""Options of flows' schedulers, and of T5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import Option, flag, free, number, off, only, problems, whole
from .parts import LIBRARY_WIDE

__all__ = [
    "DPM_SCHEDULER",
    "FLOW_SCHEDULER",
    "T5",
    "dpm_problems",
    "flow_problems",
    "t5_problems",
]

_SHIFT = Option(
    lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v > 0,
    "a number above 0",
    1.0,
)
# diffusers' FlowMatchEulerDiscreteScheduler
FLOW_SCHEDULER: Mapping[str, Option] = {
    "base_image_seq_len": whole(256),
    "base_shift": number(0.5),
    "invert_sigmas": off(),
    "max_image_seq_len": whole(4096),
    "max_shift": number(1.15),
    "num_train_timesteps": whole(1000),
    "shift": _SHIFT,
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

# diffusers' DPMSolverMultistepScheduler along a flow: betas, and how timesteps are spaced without
# one, decide nothing then, and steps are of first order whatever it does
DPM_SCHEDULER: Mapping[str, Option] = {
    "algorithm_type": only("dpmsolver++"),
    "beta_end": free(0.02),
    "beta_schedule": free("linear"),
    "beta_start": free(0.0001),
    "dynamic_thresholding_ratio": free(0.995),  # of thresholding
    "euler_at_final": free(default=False),
    "final_sigmas_type": only("zero"),
    "flow_shift": _SHIFT,
    "lambda_min_clipped": free(-float("inf")),
    "lower_order_final": free(default=True),
    "num_train_timesteps": whole(1000),
    "prediction_type": only("flow_prediction", default="epsilon"),
    "rescale_betas_zero_snr": free(default=False),
    "sample_max_value": free(1.0),  # of thresholding
    "solver_order": free(2),
    "solver_type": free("midpoint"),
    "steps_offset": free(0),
    "thresholding": off(),
    "time_shift_type": free("exponential"),  # of use_dynamic_shifting
    "timestep_spacing": free("linspace"),
    "trained_betas": free(),
    "use_beta_sigmas": off(),
    "use_dynamic_shifting": off(),
    "use_exponential_sigmas": off(),
    "use_flow_sigmas": only(True, default=False),
    "use_karras_sigmas": off(),
    "use_lu_lambdas": off(),
    "variance_type": only(None),
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
    return _problems_of("FlowMatchEulerDiscreteScheduler", FLOW_SCHEDULER, config)


def dpm_problems(config: Mapping[str, Any]) -> list[str]:
    """What in the `scheduler_config.json` of a DPM solver along a flow is not covered."""
    return _problems_of("DPMSolverMultistepScheduler", DPM_SCHEDULER, config)


def _problems_of(kind: str, table: Mapping[str, Option], config: Mapping[str, Any]) -> list[str]:
    found = config.get("_class_name", kind)
    others = [] if found == kind else [f"{found} (must be {kind})"]
    return [*others, *problems(table, config)]


def t5_problems(config: Mapping[str, Any]) -> list[str]:
    """What in a T5's `config.json` is not covered."""
    return problems(T5, config)
