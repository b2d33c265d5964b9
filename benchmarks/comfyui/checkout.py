"""Models in the layout that a checkout of ComfyUI loads; it is not part of this repository."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch

# of ComfyUI's requirements those that these nodes do without; put in place where they are missing
_SPARED = ("av", "av.container", "av.subtitles", "av.subtitles.stream", "torchaudio")
_SPARED += ("torchvision", "torchvision.transforms")


class _StandIn(ModuleType):
    """A module with every name in it, and nothing behind them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(f"{self.__name__}.{name}")


def open_checkout(folder: Path) -> None:
    """Make `comfy` and `nodes` of a checkout importable, on the CPU."""
    from diffusers import StableDiffusionPipeline  # noqa: F401 - which looks for torchvision too

    missing = [name for name in _SPARED if importlib.util.find_spec(name.partition(".")[0]) is None]
    for name in missing:
        module = _StandIn(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
    sys.path.insert(0, str(folder))
    import comfy.cli_args  # type: ignore[import-not-found]

    comfy.cli_args.args.cpu = True
    import nodes  # type: ignore[import-not-found]  # noqa: F401 - while they are in place

    for name in missing:
        del sys.modules[name]


def comfy_model(unet: Any, prediction: str) -> Any:
    """ComfyUI's MODEL of a diffusers UNet: of Stable Diffusion 1.x and 2.x, or of XL."""
    import comfy.latent_formats  # type: ignore[import-not-found]
    import comfy.model_base  # type: ignore[import-not-found]
    import comfy.supported_models  # type: ignore[import-not-found]
    import comfy.utils  # type: ignore[import-not-found]

    config = _unet_config(unet.config)
    xl = unet.config.addition_embed_type == "text_time"
    family = comfy.supported_models.SDXL if xl else comfy.supported_models.SD15
    made = family(config)
    made.unet_config.update(config)
    made.latent_format = comfy.latent_formats.LatentFormat()
    made.latent_format.latent_channels = unet.config.in_channels
    kind = getattr(comfy.model_base.ModelType, prediction)
    base = comfy.model_base.SDXL if xl else comfy.model_base.BaseModel
    model = base(made, model_type=kind)
    names = comfy.utils.unet_to_diffusers(config)
    weights = {names[name]: value for name, value in unet.state_dict().items()}
    model.diffusion_model.load_state_dict(weights)
    for layer in model.diffusion_model.modules():
        if isinstance(layer, torch.nn.GroupNorm):
            layer.num_groups = unet.config.norm_num_groups  # ComfyUI's are always 32
    return _patcher(model)


def comfy_flow(transformer: Any) -> Any:
    """ComfyUI's MODEL of a diffusers transformer of Stable Diffusion 3; heads have 64 features."""
    import comfy.model_detection  # type: ignore[import-not-found]
    import comfy.supported_models  # type: ignore[import-not-found]

    own = {name: value.clone() for name, value in transformer.state_dict().items()}
    weights = comfy.model_detection.convert_diffusers_mmdit(own, "")  # which changes them in place
    config = comfy.model_detection.detect_unet_config(weights, "")
    made = comfy.supported_models.SD3({**config, "dtype": torch.float32})
    made.latent_format.latent_channels = transformer.config.in_channels
    made.latent_format.scale_factor, made.latent_format.shift_factor = 1.0, 0.0
    model = made.get_model(weights)
    model.diffusion_model.load_state_dict(weights)
    return _patcher(model)


def _patcher(model: Any) -> Any:
    import comfy.model_patcher  # type: ignore[import-not-found]

    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=cpu, offload_device=cpu)


def _unet_config(config: Any) -> dict[str, Any]:
    """ComfyUI's names for a UNet's configuration."""
    channels, layers = config.block_out_channels, config.layers_per_block
    deep = config.transformer_layers_per_block
    deep = [deep] * len(channels) if isinstance(deep, int) else deep
    deep = [
        d * ("CrossAttn" in kind) for d, kind in zip(deep, config.down_block_types, strict=True)
    ]
    heads = config.attention_head_dim  # which is what diffusers means by that name
    several = not isinstance(heads, int)
    return {
        "image_size": config.sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "model_channels": channels[0],
        "channel_mult": [each // channels[0] for each in channels],
        "num_res_blocks": [layers] * len(channels),
        "transformer_depth": [each for each in deep for _ in range(layers)],
        "transformer_depth_output": [each for each in deep for _ in range(layers + 1)],
        "transformer_depth_middle": deep[-1] or 1,
        "context_dim": config.cross_attention_dim,
        "num_heads": -1 if several else heads,
        "num_head_channels": channels[0] // heads[0] if several else -1,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": config.use_linear_projection,
        "legacy": False,
        "num_classes": "sequential" if config.addition_embed_type else None,
        "adm_in_channels": config.projection_class_embeddings_input_dim,
        "use_temporal_attention": False,
        "dtype": torch.float32,
    }


def comfy_clip(pipe: Any, tokenizer: Path, config: Path) -> Any:
    """ComfyUI's CLIP of a diffusers pipeline's text encoder."""
    import comfy.sd  # type: ignore[import-not-found]
    import comfy.sd1_clip  # type: ignore[import-not-found]

    told = json.loads(config.read_text())
    special = {"start": told["bos_token_id"], "end": told["eos_token_id"]}
    special["pad"] = told["pad_token_id"]

    class Encoder(comfy.sd1_clip.SDClipModel):  # type: ignore[misc]
        def __init__(
            self, device: Any = "cpu", dtype: Any = None, model_options: Any = None
        ) -> None:
            super().__init__(
                device=device, dtype=dtype, model_options=model_options or {},
                textmodel_json_config=told, special_tokens=special, return_projected_pooled=False,
            )  # fmt: skip

    class Tokenizer(comfy.sd1_clip.SDTokenizer):  # type: ignore[misc]
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
            super().__init__(
                str(tokenizer), embedding_directory=embedding_directory,
                embedding_size=told["hidden_size"], tokenizer_data=tokenizer_data or {},
            )  # fmt: skip

    class Model(comfy.sd1_clip.SD1ClipModel):  # type: ignore[misc]
        def __init__(
            self, device: Any = "cpu", dtype: Any = None, model_options: Any = None
        ) -> None:
            super().__init__(device, dtype, model_options or {}, clip_model=Encoder)

    class Both(comfy.sd1_clip.SD1Tokenizer):  # type: ignore[misc]
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
            super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=Tokenizer)

    class Target:
        params: ClassVar[dict[str, Any]] = {}
        clip = Model
        tokenizer = Both

    found = comfy.sd.CLIP(Target, model_options={"dtype": torch.float32})
    encoder = found.cond_stage_model.clip_l.transformer
    weights = {k: v for k, v in pipe.text_encoder.state_dict().items() if "position_ids" not in k}
    if not next(iter(weights)).startswith("text_model."):
        weights = {f"text_model.{name}": value for name, value in weights.items()}
    table = encoder.text_model.embeddings.token_embedding.weight
    name = "text_model.embeddings.token_embedding.weight"
    padded = torch.zeros_like(table)  # ComfyUI's table has as many rows as CLIP's own
    padded[: len(weights[name])] = weights[name]
    missing = encoder.load_state_dict({**weights, name: padded}, strict=False)
    assert not missing.unexpected_keys, missing
    assert all("text_projection" in name for name in missing.missing_keys), missing
    return found
