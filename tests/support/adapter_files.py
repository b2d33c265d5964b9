"""LoRA adapters and textual inversions of tiny models, in the formats that people share."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

MODULES = {
    "unet": ["to_k", "to_q", "to_v", "to_out.0", "ff.net.0.proj", "conv1"],
    "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1"],
}
KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}
ALPHA, RANK = 8, 4  # so an adapter counts twice


def write_lora(pipeline: Any, path: Path, *, kohya: bool = False, seed: int = 0) -> None:
    """An adapter of the UNet and every text encoder, in peft's format or kohya's."""
    names = [name for name in KOHYA if name in pipeline.components]
    layers, configs = {}, {}
    for name in names:
        modules = MODULES[name.removesuffix("_2")]
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=modules)
        part = copy.deepcopy(getattr(pipeline, name))
        part.add_adapter(config)
        generator = torch.Generator().manual_seed(10 * seed + len(layers))
        for key, parameter in part.named_parameters():
            if "lora_" in key:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        layers[name], configs[name] = get_peft_model_state_dict(part), config.to_dict()
    if kohya:
        save_file(_kohya(layers, xl="text_encoder_2" in names), path)
        return
    pipeline.save_lora_weights(
        path.parent,
        weight_name=path.name,
        **{f"{name}_lora_layers": layers[name] for name in names},
        **{f"{n}_lora_adapter_metadata": configs[n] for n in names},
    )


def _kohya(layers: dict[str, dict[str, Tensor]], *, xl: bool) -> dict[str, Tensor]:
    held = {}
    for name, tensors in layers.items():
        prefix = f"{KOHYA[name]}1" if xl and name == "text_encoder" else KOHYA[name]
        for key, value in tensors.items():
            module, kind = key.rsplit(".lora_", 1)
            module = (
                module if name == "unet" else f"text_model.{module.removeprefix('text_model.')}"
            )
            stem = f"{prefix}_{module.replace('.', '_')}"
            held[f"{stem}.lora_{'down' if kind.startswith('A') else 'up'}.weight"] = value
            held[f"{stem}.alpha"] = torch.tensor(float(ALPHA))
    return held


def write_embedding(path: Path, width: int, *, vectors: int = 1, key: str = "<toy>") -> Tensor:
    """A textual inversion: one tensor under its token, or under "emb_params"."""
    values = torch.randn(vectors, width, generator=torch.Generator().manual_seed(7)) * 0.3
    save_file({key: values if vectors > 1 else values[0]}, path)
    return values
