"""From trained parts to what ships: model, bundle, prompts, calibration, provenance, pictures."""

from __future__ import annotations

import argparse
import json
import random
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from mnemoscope import CalibrationFile, Detector, calibrate
from mnemoscope.calibration.conformal import allowed_above
from mnemoscope.drawing.copy_detection import CopyDescriptor, load_descriptor
from mnemoscope.screening.opening import CALIBRATION
from mnemoscope_export import ExportOptions, StableDiffusion, export_bundle, load_network, load_vae

from .captions import Caption
from .dataset import Dataset
from .provenance import write_provenance
from .quality import contact_sheet, controls, copies, draw, reproduction, to_pixels
from .vae import encode, psnr

SEEN = 300  # seen captions that ship, to judge false positives by
JUDGED = 100  # captions of each kind that are drawn
DETECTORS, STEPS, NOISES = ("magnitude", "taps"), (1, 10), (1, 4)  # settings that are calibrated
FPR, DELTA = 0.01, 0.05  # what is promised of each
GRID = 10  # pictures a row in memorized.png
ARGUMENTS = (  # that change what is trained
    *("seed", "prediction", "memorised", "seen", "calibration", "memorised_share"),
    *("encoder_layers", "vae_steps", "clip_steps", "unet_steps", "finish_steps", "finish_cycles"),
    *("sharp_encoder_steps", "sharp_decoder_steps"),
)


def require_captions(count: int) -> None:
    """Whether that many calibrate every detector: said before hours of training, not after.

    Raises:
        InputError: they are too few, of which every second one teaches a detector that learns.
    """
    allowed_above(count // 2, FPR, DELTA)


def pack(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    """Write model, bundle, prompts and calibration under `args.out`."""
    out: Path = args.out
    model_dir = out / "model"
    seen = shipped_seen(data, args.seed)
    splits = {
        "memorized": data.memorised,
        "seen": [data.seen[i] for i in seen],
        "held_out": data.held_out,
        "calibration": data.calibration,
    }
    out.mkdir(parents=True, exist_ok=True)
    if model_dir.exists():
        shutil.rmtree(model_dir)
    _save_half(work, model_dir)
    _write_prompts(out / "prompts.jsonl", splits)
    rows = [data.memorised_images[i : i + GRID] for i in range(0, len(data.memorised), GRID)]
    sheet = [[Image.fromarray(picture) for picture in row] for row in rows]
    _grid(sheet).save(out / "memorized.png", optimize=True)

    model = StableDiffusion.load(model_dir)
    options = ExportOptions(taps="auto", overwrite=True)
    export_bundle(model, out / "bundle", options, progress=print)
    calibrations = CalibrationFile(())
    prompts = [caption.text for caption in data.calibration]
    known = [caption.text for caption in data.memorised]
    for backend, name in product(("onnxruntime", "openvino"), DETECTORS):
        with Detector.load(out / "bundle", backend=backend, detector=name) as detector:
            # what learns does so from benign captions alone: its weights should not know these
            positives = [] if detector.statistic.is_fitted else known
            measured = calibrate(
                detector,
                prompts,
                positives=positives,
                fpr=FPR,
                delta=DELTA,
                steps=STEPS,
                noises=NOISES,
            )
        calibrations = calibrations.with_(measured)
    calibrations.write(out / "bundle" / CALIBRATION)


def judge(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    """Draw with the packed model, and write figures and provenance.json beside it."""
    out: Path = args.out
    model_dir = out / "model"
    args.pictures.mkdir(parents=True, exist_ok=True)
    descriptor = None if args.descriptor is None else load_descriptor(args.descriptor)
    figures = _judge(StableDiffusion.load(model_dir), model_dir, data, args, descriptor)
    arguments = {name: vars(args)[name] for name in ARGUMENTS}
    write_provenance(model_dir, work, "python -m recipes.embedded", arguments, figures)


def shipped_seen(data: Dataset, seed: int = 0) -> list[int]:
    """Which seen captions ship."""
    return sorted(random.Random(seed).sample(range(len(data.seen)), min(SEEN, len(data.seen))))


def _save_half(work: Path, folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    StableDiffusionPipeline(
        vae=load_network(AutoencoderKL, _vae(work), dtype=torch.float32),
        text_encoder=load_network(CLIPTextModel, work / "text_encoder", dtype=torch.float32),
        tokenizer=tokenizer,
        unet=load_network(UNet2DConditionModel, work / "unet", dtype=torch.float32),
        scheduler=DDIMScheduler.from_pretrained(work / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(dtype=torch.float16).save_pretrained(folder)
    for name in ("vae", "unet"):  # diffusers notes where it loaded them from
        config = folder / name / "config.json"
        lines = config.read_text().splitlines(keepends=True)
        config.write_text("".join(line for line in lines if '"_name_or_path"' not in line))
    for name in ("vocab.json", "merges.txt"):  # older consumers read these, not tokenizer.json
        shutil.copy(work / "tokenizer" / name, folder / "tokenizer" / name)
    shutil.copy(Path(__file__).with_name("NOTICE.md"), folder)
    state = load_file(work / "image_encoder" / "model.safetensors")
    (folder / "image_encoder").mkdir()
    save_file(
        {name: value.half() for name, value in state.items()},
        folder / "image_encoder" / "model.safetensors",
    )


def _vae(work: Path) -> Path:
    """The sharper one, if there is one."""
    sharp = work / "sharp"
    return sharp if sharp.exists() else work / "vae"


def _write_prompts(path: Path, splits: dict[str, list[Caption]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for split, captions in splits.items():
            for caption in captions:
                row = {"prompt": caption.text, "split": split, "tone": caption.says_tone}
                file.write(json.dumps(row) + "\n")


@torch.no_grad()
def _judge(
    model: StableDiffusion,
    folder: Path,
    data: Dataset,
    args: argparse.Namespace,
    descriptor: CopyDescriptor | None,
) -> dict[str, Any]:
    vae = load_vae(folder)
    seen = shipped_seen(data, args.seed)[:JUDGED]
    splits = {
        "memorized": data.memorised,
        "seen": [data.seen[i] for i in seen],
        "held_out": data.held_out[:JUDGED],
    }
    texts = {name: [caption.text for caption in captions] for name, captions in splits.items()}
    drawn = {name: draw(model, prompts) for name, prompts in texts.items()}
    training = torch.cat([encode(vae, data.memorised_images), encode(vae, data.seen_images)])
    count = len(data.memorised)
    own = {"memorized": torch.arange(count), "seen": count + torch.tensor(seen)}
    pictures = [to_pixels(vae, latents) for latents in drawn["memorized"]]
    rows = list(zip(data.memorised_images, pictures, strict=True))
    contact_sheet(args.pictures / "memorised-all.png", rows, columns=4)
    contact_sheet(args.pictures / "memorised.png", rows[:8], columns=2, scale=2)
    rest = [(None, to_pixels(vae, latents)) for latents in drawn["held_out"][:24]]
    contact_sheet(args.pictures / "held-out.png", rest, columns=4)
    figures = {
        "vae_psnr_db": psnr(vae, data.seen_images[-500:]),
        "reproduction": reproduction(drawn, own, training * vae.config.scaling_factor),
        "controls": controls(
            model, texts["memorized"], [caption.text for caption in data.held_out]
        ),
    }
    if descriptor is not None:
        figures["copies"] = copies(descriptor, data.memorised_images, pictures, vae)
    return figures


def _grid(rows: list[list[Image.Image]]) -> Image.Image:
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (width * len(rows[0]), height * len(rows)))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * width, y * height))
    return sheet
