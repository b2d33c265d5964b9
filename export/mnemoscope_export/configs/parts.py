"""Options of text encoders, tokenizers and schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import Option, flag, free, number, off, only, problems, whole

__all__ = [
    "LIBRARY_WIDE",
    "SAMPLERS",
    "SCHEDULER",
    "TEXT_ENCODER",
    "scheduler_problems",
    "tokenizer_problems",
    "vae_problems",
]

# what transformers writes into any config, and a text encoder does not read
LIBRARY_WIDE = (
    "add_cross_attention", "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward",
    "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample",
    "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label",
    "is_encoder_decoder", "label2id", "length_penalty", "max_length", "min_length",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
    "output_hidden_states", "output_scores", "prefix", "problem_type", "remove_invalid_values",
    "repetition_penalty", "return_dict_in_generate", "sep_token_id", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder",
    "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "transformers_version",
    "typical_p", "use_bfloat16",
)  # fmt: skip

# transformers' CLIPTextConfig, and what diffusers' pipelines read of it
TEXT_ENCODER: Mapping[str, Option] = {
    "architectures": Option(
        lambda v: (
            v is None
            or (isinstance(v, list | tuple) and all(str(name).startswith("CLIPText") for name in v))
        ),
        "['CLIPTextModel'] or ['CLIPTextModelWithProjection']",
    ),
    "attention_dropout": number(0.0),
    "bos_token_id": free(),  # the tokenizer's own is used
    "dropout": free(),
    "dtype": free(),  # everything is read in float32
    "eos_token_id": free(),  # as transformers reads it
    "export_model_type": free(),  # Optimum's note
    "hidden_act": only("quick_gelu", "gelu"),
    "hidden_size": whole(512),
    "initializer_factor": free(),
    "initializer_range": free(),
    "intermediate_size": whole(2048),
    "is_decoder": off(),
    "layer_norm_eps": number(1e-5),
    "max_position_embeddings": whole(77, 2),
    "model_type": only("clip_text_model"),
    "num_attention_heads": whole(8),
    "num_hidden_layers": whole(12),
    "output_attentions": off(),
    "pad_token_id": free(),
    "projection_dim": free(512),  # see `pipeline`
    "pruned_heads": only({}),
    "return_dict": only(True),
    "torch_dtype": free(),
    "torchscript": off(),
    "use_attention_mask": off(),  # diffusers' pipelines would mask the padding
    "vocab_size": whole(49408),
    **dict.fromkeys(LIBRARY_WIDE, free()),
}

# schedulers over DDIM's noise schedule: bundles sample with DDIM whatever the sampler is
SAMPLERS = frozenset(
    {
        "DDIMScheduler", "DDIMInverseScheduler", "DDIMParallelScheduler", "DDPMParallelScheduler",
        "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
        "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LMSDiscreteScheduler",
        "PNDMScheduler", "SASolverScheduler", "UniPCMultistepScheduler",
    }
)  # fmt: skip
# how a sampler walks through the schedule, which DDIM does its own way
_WALKS = (
    "algorithm_type", "corrector_order", "disable_corrector", "euler_at_final",
    "final_sigmas_type", "interpolation_type", "lambda_min_clipped", "lower_order_final",
    "noise_sampler_seed", "predict_x0", "predictor_order", "rho", "sigma_max", "sigma_min",
    "skip_prk_steps", "solver_order", "solver_p", "solver_type", "tau_func", "time_shift_type",
    "use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas", "use_lu_lambdas",
)  # fmt: skip

SCHEDULER: Mapping[str, Option] = {
    "beta_end": number(0.02),
    "beta_schedule": only("linear", "scaled_linear"),
    "beta_start": number(0.0001),
    "clip_sample": flag(default=True),  # pipelines turn it off: latents are not pixels
    "clip_sample_range": free(1.0),
    "dynamic_thresholding_ratio": free(0.995),  # of thresholding
    "flow_shift": free(),  # of use_flow_sigmas
    "num_train_timesteps": whole(1000),
    "predict_epsilon": only(True),  # diffusers before 0.10: false was prediction_type "sample"
    "prediction_type": only("epsilon", "v_prediction"),
    "rescale_betas_zero_snr": off(),
    "sample_max_value": free(1.0),  # of thresholding
    "set_alpha_to_one": flag(default=True),
    "shift_terminal": only(None),
    "steps_offset": whole(0, 0),
    "thresholding": off(),
    "timestep_spacing": only("leading", "trailing", "linspace"),
    "timestep_type": only("discrete"),
    "trained_betas": only(None),
    "use_dynamic_shifting": off(),
    "use_flow_sigmas": off(),
    "variance_type": Option(lambda v: not str(v).startswith("learned"), "one that is not learned"),
    **dict.fromkeys(_WALKS, free()),
}
"""Options of schedulers that are covered, with their values."""


# what is around a VAE's own decoder; the rest of its config is diffusers' business
_VAES: Mapping[str, Mapping[str, Option]] = {
    "AutoencoderKL": {
        "latents_mean": only(None),
        "latents_std": only(None),
        "scaling_factor": number(0.18215),
    },
    "AutoencoderDC": {"scaling_factor": number(1.0)},
    "AutoencoderKLQwenImage": {},  # its pipeline takes off the mean, and divides by the deviation
}

_UNSHIFTED = Option(
    lambda value: value is None,
    "null, as the family's pipeline adds nothing to latents, and draws such a VAE's pictures wrong",
)


def vae_problems(config: Mapping[str, Any], kind: str, *, shifts: bool) -> list[str]:
    """What in a `vae/config.json` is not covered where pictures are drawn or masked."""
    shift = number(None) if shifts else _UNSHIFTED
    looked = {"_class_name": only(kind), **_VAES[kind], "shift_factor": shift}
    return problems(looked, {name: config[name] for name in looked if name in config})


def scheduler_problems(config: Mapping[str, Any]) -> list[str]:
    """What in a `scheduler_config.json` is not covered."""
    found = problems(SCHEDULER, config)
    kind = config.get("_class_name")
    if kind is not None and kind not in SAMPLERS:
        found.insert(0, f"{kind}, a sampler of another noise schedule or for distilled models")
    return found


def tokenizer_problems(config: Mapping[str, Any]) -> list[str]:
    """What in a `tokenizer_config.json` is not covered, before it is tried on prompts."""
    options = {
        "tokenizer_class": only("CLIPTokenizer", "CLIPTokenizerFast", None),
        "padding_side": only("right"),
        "truncation_side": only("right"),
        "auto_map": only(None),
        "model_max_length": Option(
            lambda v: v is None or (isinstance(v, int | float) and v >= 2), "at least 2"
        ),
    }
    return problems(options, {name: config[name] for name in options if name in config})
