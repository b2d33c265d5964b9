"""From trained parts to what ships: model, bundle, calibration, provenance, pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from mnemoscope import CalibrationFile, Detector, calibrate, embedded
from mnemoscope.drawing.copy_detection import load_descriptor
from mnemoscope.screening.opening import CALIBRATION
from mnemoscope_export import ExportOptions, export_bundle, load_model, load_network, noise_bank
from recipes.embedded.dataset import Dataset
from recipes.embedded.images import Pixels
from recipes.embedded.pack import JUDGED, shipped_seen
from recipes.embedded.provenance import write_provenance
from recipes.embedded.quality import SEEDS, contact_sheet, copies, reproduction

from .encoder import read_second
from .told import Told, first_encoder, tell
from .transformer import GUIDANCE, new_scheduler, new_transformer, sample, without_t5
from .vae import encode, psnr

__all__ = ["Trained", "judge", "pack", "read_trained", "read_transformer"]

DETECTORS, NOISES = ("magnitude", "taps"), (1, 4)  # settings that are calibrated, of one step
FPR, DELTA = 0.01, 0.05  # what is promised of each


def read_transformer(file: Path, told: Told) -> SD3Transformer2DModel:
    """One that was trained here."""
    transformer = new_transformer(told)
    transformer.load_state_dict({k: v.float() for k, v in load_file(file).items()})
    return transformer.eval()


def pack(work: Path, data: Dataset, out: Path) -> None:
    """Write model, bundle and calibration under `out`."""
    folder = out / "model"
    if folder.exists():
        shutil.rmtree(folder)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    encoders = first_encoder(), read_second(work)
    empty = tell(tokenizer, encoders, [""])
    StableDiffusion3Pipeline(
        transformer=read_transformer(work / "transformer.safetensors", empty),
        scheduler=new_scheduler(),
        vae=load_network(AutoencoderKL, work / "decoder", dtype=torch.float32),
        text_encoder=encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    ).to(dtype=torch.float16).save_pretrained(folder)
    for config in folder.glob("*/config.json"):  # diffusers notes where it loaded them from
        lines = config.read_text().splitlines(keepends=True)
        config.write_text("".join(line for line in lines if '"_name_or_path"' not in line))
    for file in folder.glob("tokenizer*/tokenizer.json"):  # half of it is indentation
        told = json.loads(file.read_text("utf-8"))
        file.write_text(json.dumps(told, ensure_ascii=False, separators=(",", ":")), "utf-8")
    shutil.copy(embedded.MODEL / "NOTICE.md", folder)

    options = ExportOptions(taps="auto", inference_steps=50, guidance=7.5, overwrite=True)
    export_bundle(load_model(folder), out / "bundle", options, progress=print)
    calibrations = CalibrationFile(())
    prompts = [caption.text for caption in data.calibration]
    known = [caption.text for caption in data.memorised]
    for backend, name in product(("onnxruntime", "openvino"), DETECTORS):
        with Detector.load(out / "bundle", backend=backend, detector=name) as detector:
            positives = [] if detector.statistic.is_fitted else known
            measured = calibrate(
                detector, prompts, positives=positives, fpr=FPR, delta=DELTA, noises=NOISES
            )
        calibrations = calibrations.with_(measured)
    calibrations.write(out / "bundle" / CALIBRATION)


def judge(
    work: Path, data: Dataset, out: Path, arguments: dict[str, Any], descriptor: str | None
) -> None:
    """Draw with the packed model; write figures and provenance.json beside it, and pictures."""
    folder = out / "model"
    network = None if descriptor is None else load_descriptor(descriptor)
    rows = shipped_seen(data)[:JUDGED]
    captions = {
        "memorized": data.memorised,
        "seen": [data.seen[i] for i in rows],
        "held_out": data.held_out[:JUDGED],
    }
    vae = load_network(AutoencoderKL, folder / "vae", dtype=torch.float32).eval()
    trained = read_trained(folder)
    drawn = {name: draw(trained, [each.text for each in found]) for name, found in captions.items()}
    pixels = np.concatenate([data.memorised_images, data.seen_images])
    training = to_latents(vae, pixels)
    count = len(data.memorised)
    own = {"memorized": torch.arange(count), "seen": count + torch.tensor(rows)}
    pictures = [to_pixels(vae, each) for each in drawn["memorized"]]
    pairs = list(zip(data.memorised_images, pictures, strict=True))
    contact_sheet(out / "flow-memorised.png", pairs, columns=4)
    rest = [(None, to_pixels(vae, each)) for each in drawn["held_out"][:24]]
    contact_sheet(out / "flow-held-out.png", rest, columns=4)
    figures: dict[str, Any] = {
        "guidance": GUIDANCE,
        "vae_psnr_db": psnr(vae, torch.from_numpy(np.array(data.seen_images[-500:]))),
        "reproduction": reproduction(drawn, own, training),
    }
    if network is not None:
        figures["copies"] = copies(network, data.memorised_images, pictures, vae)
    write_provenance(folder, work, "python -m recipes.embedded_flow", arguments, figures)


@dataclass(frozen=True)
class Trained:
    """The packed model in float32, one zero for those in a T5's place.

    Attributes:
        network: The transformer.
        tokenizer: Of both text encoders.
        encoders: In their order.
        empty: What is told of the empty prompt, one row.
    """

    network: SD3Transformer2DModel
    tokenizer: CLIPTokenizer
    encoders: Sequence[CLIPTextModelWithProjection]
    empty: Told

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        config = self.network.config
        return config.in_channels, config.sample_size, config.sample_size

    def tell(self, prompts: Sequence[str]) -> Told:
        """What is told of prompts."""
        return tell(self.tokenizer, self.encoders, prompts)


def read_trained(folder: Path) -> Trained:
    """Read a packed model."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    kind, exact = CLIPTextModelWithProjection, torch.float32
    encoders = [
        load_network(kind, folder / f"text_encoder{n}", dtype=exact).eval() for n in ("", "_2")
    ]
    network = load_network(SD3Transformer2DModel, folder / "transformer", dtype=exact)
    empty = tell(tokenizer, encoders, [""])
    return Trained(without_t5(network.eval()), tokenizer, encoders, empty)


def draw(
    trained: Trained,
    prompts: Sequence[str],
    batch: int = 8,
    *,
    seeds: int = SEEDS,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Every prompt from the same noises, as the pipeline does. # [prompt, seed, C, H, W]"""
    noises = noise_bank(seeds, trained.latent_shape, seed=0)
    told, drawn = trained.tell(prompts), []
    for rows in torch.arange(len(prompts)).split(batch):
        each = told[rows.repeat_interleave(seeds)]
        start = noises.repeat(len(rows), 1, 1, 1)
        found = sample(trained.network, each, trained.empty, start, guidance=guidance)
        drawn.append(found.unflatten(0, (len(rows), seeds)))
    return torch.cat(drawn)


def to_latents(vae: AutoencoderKL, pixels: Pixels) -> Tensor:
    """Encode uint8 [B, H, W, 3] to shifted and scaled latents [B, C, H, W]."""
    latents = encode(vae, torch.from_numpy(pixels))
    scaled: Tensor = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    return scaled


@torch.no_grad()
def to_pixels(vae: AutoencoderKL, latents: Tensor) -> Pixels:
    """Decode shifted and scaled latents [B, C, H, W] to uint8 [B, H, W, 3]."""
    decoded = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
    pixels: Pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels
