"""ONNX exports in Optimum's layout, made without Optimum."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from mnemoscope import embedded
from mnemoscope_export import ExportOptions, StableDiffusion

OPTIONS = ExportOptions(noises=3, seed=7)


class TextEncoder(nn.Module):
    def __init__(self, model: StableDiffusion) -> None:
        super().__init__()
        self.text_encoder = model.text_encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        output = self.text_encoder(input_ids)
        return output.last_hidden_state, output.pooler_output


class UNet(nn.Module):
    def __init__(self, model: StableDiffusion) -> None:
        super().__init__()
        self.unet = model.unet

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        out: Tensor = self.unet(sample, timestep, encoder_hidden_states).sample
        return out


def write_configs(source: Path, out: Path) -> None:
    """Everything but the graphs, with the files of a slow tokenizer as Optimum saves them."""
    for part in ("scheduler", "unet", "text_encoder"):
        (out / part).mkdir(parents=True, exist_ok=True)
        for config in (source / part).glob("*.json"):
            shutil.copy(config, out / part)
    (out / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(embedded.MODEL / "tokenizer" / name, out / "tokenizer")


def write_text_encoder(
    model: StableDiffusion,
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    ids: torch.dtype = torch.int64,
    opset: int = 18,
) -> None:
    module = TextEncoder(model.to(dtype)).eval()
    names = {"input_names": ["input_ids"], "output_names": ["last_hidden_state", "pooler_output"]}
    axes = {"input_ids": {0: "batch_size", 1: "sequence_length"}}
    _export(module, (torch.ones(2, 77, dtype=ids),), path, opset, axes, names)


def write_unet(
    model: StableDiffusion,
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    timestep: Tensor | None = None,
    opset: int = 18,
    resizes: bool = True,
) -> None:
    module = UNet(model.to(dtype)).eval()
    axes = {
        "sample": {0: "batch_size", **({2: "height", 3: "width"} if resizes else {})},
        "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"},
    }
    inputs = (
        torch.zeros(2, *model.latent_shape, dtype=dtype),
        torch.tensor(1.0) if timestep is None else timestep,
        torch.zeros(2, 77, model.unet.config.cross_attention_dim, dtype=dtype),
    )
    names = {
        "input_names": ["sample", "timestep", "encoder_hidden_states"],
        "output_names": ["out_sample"],
    }
    _export(module, inputs, path, opset, axes, names)


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    opset: int,
    axes: dict[str, dict[int, str]],
    names: dict[str, list[str]],
) -> None:
    """With the exporter that Optimum uses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            copy.deepcopy(module),
            inputs,
            str(path),
            dynamo=False,
            opset_version=opset,
            dynamic_axes=axes,
            **names,
        )


def external(folder: Path) -> Path:
    path = folder / "unet" / "model.onnx"
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="model.onnx_data")
    return path.with_name("model.onnx_data")


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
