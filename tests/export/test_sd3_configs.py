"""What Stable Diffusion 3's configs say is looked through before weights are read."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from pipelines import build_sd3
from t5_tokenizers import t5_tokenizer
from transformers import T5Config

from mnemoscope import ExportError
from mnemoscope_export import load_model
from mnemoscope_export.configs.flow import FLOW_SCHEDULER, T5
from mnemoscope_export.configs.sd3 import TRANSFORMER, check_configs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sd3")
    build_sd3(t5_tokenizer()).save_pretrained(path)
    return path


CHANGES: list[tuple[str, str, Any, str]] = [
    ("transformer/config.json", "patch_size", 0, "patch_size is 0"),
    ("transformer/config.json", "qk_norm", "layer_norm", "qk_norm"),
    ("transformer/config.json", "out_channels", 8, "must be in_channels, 4"),
    ("transformer/config.json", "joint_attention_dim", 80, "must be T5's d_model, 72"),
    ("transformer/config.json", "pooled_projection_dim", 24, "the CLIPs' projection_dim, 48"),
    ("transformer/config.json", "caption_projection_dim", 16, "attention_head_dim, 32"),
    ("transformer/config.json", "sample_size", 9, "must be whole patches"),
    ("transformer/config.json", "dual_attention_layers", "all", "dual_attention_layers"),
    ("transformer/config.json", "a_new_option", 1, "a_new_option, an option that is not known"),
    ("text_encoder_3/config.json", "feed_forward_proj", "gated-silu", "feed_forward_proj"),
    ("text_encoder_3/config.json", "model_type", "umt5", "model_type is 'umt5'"),
    ("text_encoder_2/config.json", "hidden_act", "tanh", "hidden_act"),
    ("scheduler/scheduler_config.json", "use_karras_sigmas", True, "use_karras_sigmas"),
    ("scheduler/scheduler_config.json", "stochastic_sampling", True, "stochastic_sampling"),
    ("scheduler/scheduler_config.json", "shift", 0, "a number above 0"),
    ("scheduler/scheduler_config.json", "_class_name", "FlowMatchHeunDiscreteScheduler", "Heun"),
    ("model_index.json", "_class_name", "StableDiffusion3ControlNetPipeline", "its pipeline is"),
    ("model_index.json", "controlnet", ["diffusers", "X"], "a part controlnet"),
    ("model_index.json", "transformer", ["diffusers", "FluxTransformer2DModel"], "FluxTransf"),
    ("model_index.json", "text_encoder_2", [None, None], "it has no text_encoder_2"),
]


@pytest.mark.parametrize(("file", "option", "value", "words"), CHANGES)
def test_what_is_not_covered_is_named(
    folder: Path, file: str, option: str, value: object, words: str
) -> None:
    path = folder / file
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), option: value}))
    try:
        with pytest.raises(ExportError, match=words):
            load_model(folder)
    finally:
        path.write_text(text)


CLIP_L = {
    "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "quick_gelu",
    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
    "num_hidden_layers": 12, "projection_dim": 768, "max_position_embeddings": 77,
    "model_type": "clip_text_model", "vocab_size": 49408, "torch_dtype": "float16",
}  # fmt: skip
BIG_G = {
    **CLIP_L, "hidden_act": "gelu", "hidden_size": 1280, "intermediate_size": 5120,
    "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280,
}  # fmt: skip
T5_XXL = {
    "architectures": ["T5EncoderModel"], "classifier_dropout": 0.0, "d_ff": 10240, "d_kv": 64,
    "d_model": 4096, "decoder_start_token_id": 0, "dense_act_fn": "gelu_new", "dropout_rate": 0.1,
    "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0,
    "is_encoder_decoder": True, "is_gated_act": True, "layer_norm_epsilon": 1e-06,
    "model_type": "t5", "num_decoder_layers": 24, "num_heads": 64, "num_layers": 24,
    "output_past": True, "pad_token_id": 0, "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.41.2", "use_cache": True, "vocab_size": 32128,
}  # fmt: skip
PUBLISHED = {
    "3-medium": {"num_attention_heads": 24, "caption_projection_dim": 1536, "num_layers": 24,
                 "pos_embed_max_size": 192},
    "3.5-medium": {"num_attention_heads": 24, "caption_projection_dim": 1536, "num_layers": 24,
                   "pos_embed_max_size": 384, "qk_norm": "rms_norm",
                   "dual_attention_layers": list(range(13))},
    "3.5-large": {"num_attention_heads": 38, "caption_projection_dim": 2432, "num_layers": 38,
                  "pos_embed_max_size": 192, "qk_norm": "rms_norm"},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("t5", [True, False], ids=["t5", "none"])
def test_published_configs_are_covered(folder: Path, name: str, t5: bool) -> None:
    """As far as they say more than the library's defaults."""
    index = json.loads((folder / "model_index.json").read_text())
    none = {"image_encoder": [None, None], "feature_extractor": [None, None]}
    if not t5:
        none |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    configs: dict[str, dict[str, Any]] = {
        "model_index": {**index, **none, "vae": ["diffusers", "AutoencoderKL"]},
        "transformer": {"_class_name": "SD3Transformer2DModel", **PUBLISHED[name]},
        "text_encoder": CLIP_L,
        "text_encoder_2": BIG_G,
        "tokenizer": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77},
        "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        **({"text_encoder_3": T5_XXL} if t5 else {}),
    }
    check_configs(configs, "it")


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (SD3Transformer2DModel, TRANSFORMER),
        (FlowMatchEulerDiscreteScheduler, FLOW_SCHEDULER),
    ],
)
def test_every_option_of_diffusers_is_in_a_table(kind: type, table: dict[str, Any]) -> None:
    own = inspect.signature(kind.__init__).parameters
    assert set(table) == set(own) - {"self"}
    assert {name: option.default for name, option in table.items()} == {
        name: own[name].default for name in table
    }


def test_every_option_of_transformers_is_in_a_table() -> None:
    assert T5Config().to_diff_dict().keys() <= T5.keys()
    assert {n for n in T5Config().to_dict() if not n.startswith("_")} - T5.keys() == set()
