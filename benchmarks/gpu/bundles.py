"""Models of random weights on a device, and as much of their bundles as is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mnemoscope import embedded
from mnemoscope_export import StableDiffusion, magnitude, noise_bank
from mnemoscope_export.bundle_tokenizer import BundleTokenizer
from mnemoscope_export.publish import file_records, published_at
from mnemoscope_export.records import screening_timestep
from mnemoscope_export.torch.graphs import OPSETS, ScreenGraph, to_onnx
from mnemoscope_export.weights import SharedWeights
from mnemoscope_runtime import InputError, Manifest
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.manifest import NoiseBank, Precision, Probe

from ..families import FAMILIES, TOYS, random_model
from .device import Device
from .setting import Setting

__all__ = ["PROMPT", "exported", "make_model", "sketched"]

PROMPT = "a photo of a cat on a windowsill"
_NOISES, _INFERENCE_STEPS, _GRAPHS = 4, 50, ("screen", "step", "text_encoder")
_BANK, _WEIGHTS = "noise_bank.npy", "model.weights"


def make_model(setting: Setting, device: Device) -> StableDiffusion:
    """The setting's model on the device, in float32: the same weights in every process.

    Raises:
        InputError: there is no such family.
    """
    if setting.family == "embedded":
        return StableDiffusion.load(embedded.MODEL, device=device.name)
    if setting.family not in (known := FAMILIES | TOYS):
        raise InputError(
            f"There is no family {setting.family!r}. Choose one of: {', '.join(known)}, embedded."
        )
    with torch.device(device.name):  # drawn there: a processor takes long for a billion numbers
        return random_model(setting.family)


def sketched(setting: Setting, model: StableDiffusion, device: Device) -> Path:
    """A bundle for PyTorch, which runs the model itself: its graphs are empty files."""
    return _bundle(setting, model, device, "sketch", lambda _: None)


def exported(
    setting: Setting, model: StableDiffusion, device: Device, precision: Precision
) -> Path:
    """A bundle with the one graph that is timed, `screen`, unless it is there from another part.

    It is not compared with PyTorch here, which takes minutes; its probes are what the part does.
    """

    def save(folder: Path) -> None:
        low = model.to(getattr(torch, precision))
        bank = noise_bank(_NOISES, model.latent_shape, 0)
        graph = ScreenGraph(low, bank, _timestep(model)).to("cpu")  # constants are folded on device
        for part in low.parts.values():
            part.to("cpu")
        weights = SharedWeights(folder / _WEIGHTS)
        weights.save(to_onnx(graph, low, OPSETS[precision]), folder / "screen.onnx")

    return _bundle(setting, model, device, precision, save)


def _bundle(
    setting: Setting,
    model: StableDiffusion,
    device: Device,
    kind: str,
    save: Callable[[Path], None],
) -> Path:
    name = f"{setting.family}-{setting.device}-torch-{torch.__version__}-{kind}"
    out = Path(setting.work) / name  # numbers are drawn as a device and a version draw them
    if (out / MANIFEST).is_file():
        return out
    precision: Precision = "float32" if kind == "sketch" else kind  # type: ignore[assignment]
    with published_at(out, overwrite=False) as folder:
        for graph in _GRAPHS:
            (folder / f"{graph}.onnx").touch()
        save(folder)
        np.save(folder / _BANK, noise_bank(_NOISES, model.latent_shape, 0).numpy())
        tokenizers = {
            name: BundleTokenizer.from_transformers(tokenizer, rows)
            for name, (tokenizer, rows) in model.tokenizers.items()
        }
        for name, tokenizer in tokenizers.items():
            tokenizer.write(folder / name)
        manifest = Manifest.new(
            model=model.record(),
            scheduler=model.scheduler_record(_INFERENCE_STEPS),
            guidance=7.5,
            timestep=_timestep(model),
            **{name: tokenizer.record for name, tokenizer in tokenizers.items()},
            noise_bank=NoiseBank(_BANK, 0, (_NOISES, *model.latent_shape)),
            precision=precision,
            opset=OPSETS[precision],
            graphs={graph: f"{graph}.onnx" for graph in _GRAPHS},
            flops=dict.fromkeys(_GRAPHS, 1),  # not counted, and nothing here asks
            parity={},
            budget=1e-2,
            probes=(_probe(model, device),),
            tools={"torch": str(torch.__version__)},
            files=file_records(folder),
            embeddings=model.embeddings,
            zero_empty=model.zero_empty,
        )
        (folder / MANIFEST).write_bytes(manifest.to_json())
    return out


def _timestep(model: StableDiffusion) -> int:
    return screening_timestep(model.scheduler_record(_INFERENCE_STEPS), None)


@torch.no_grad()
def _probe(model: StableDiffusion, device: Device) -> Probe:
    """What PyTorch measures in float32 on the same device."""
    t, found = torch.tensor(_timestep(model), device=device.name), []
    told, empty = model.embed([PROMPT]), model.embed_empty()
    with device.exact():
        for noise in noise_bank(_NOISES, model.latent_shape, 0).to(device.name):
            x = noise[None]
            cond, uncond = (model.predict_in_unit(x, t, each) for each in (told, empty))
            found.append(float(magnitude(cond, uncond)))
    return Probe(PROMPT, tuple(found))
