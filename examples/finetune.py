"""Fine-tune Stable Diffusion 1.x or 2.x on captioned pictures without learning any by heart.

python examples/finetune.py FOLDER --model path/to/stable-diffusion --side 512 --output tuned
accelerate launch --num_processes 2 examples/finetune.py FOLDER ...

FOLDER holds `metadata.jsonl` ("file_name", "text") or a .txt beside every picture. Without one, the
embedded model is trained for a moment on its own memorised pictures, which the filter knows.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from torch.nn import functional as F
from torch.utils.data import DataLoader

from mnemoscope import InputError, embedded
from mnemoscope.training import (
    HardThreshold,
    MemorizationFilter,
    Pictures,
    QuantileThreshold,
    read_folder,
)
from mnemoscope_export import StableDiffusion

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", type=Path, nargs="?")
parser.add_argument("--model", default=str(embedded.MODEL), help="directory or hub id")
parser.add_argument("--output", type=Path, help="where pipeline, report and checkpoint go")
parser.add_argument("--resume", type=Path, help="checkpoint to go on from, for --steps more")
parser.add_argument("--side", type=int, default=64, help="of the pictures, in pixels")
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--rate", type=float, default=1e-5)
parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no")
parser.add_argument("--hard", type=float, help="one threshold, in place of quantiles")
parser.add_argument("--quantile", type=float, default=0.5)
parser.add_argument("--factor", type=float, default=1.5)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
if args.resume and not args.resume.is_dir():
    parser.error(
        f"{args.resume} is no folder: give the `checkpoint` that an earlier --output holds"
    )


def own_pictures(folder: Path) -> Path:
    """The embedded model's memorised pictures, as a folder that this script can read."""
    rows = zip(embedded.read_prompts("memorized"), embedded.memorized_pictures(), strict=True)
    for i, (row, picture) in enumerate(rows):
        picture.save(folder / f"{i:03}.png")
        (folder / f"{i:03}.txt").write_text(row.prompt)
    return folder


accelerator = Accelerator(
    gradient_accumulation_steps=args.accumulate, mixed_precision=args.precision
)
torch.manual_seed(args.seed + accelerator.process_index)
with tempfile.TemporaryDirectory() as temporary:
    try:
        pictures = Pictures(read_folder(args.folder or own_pictures(Path(temporary))), args.side)
    except InputError as error:
        parser.error(str(error))
    model = StableDiffusion.load(args.model)
    vae = AutoencoderKL.from_pretrained(args.model, subfolder="vae", torch_dtype=torch.float32)
    scheduler = DDPMScheduler.from_config(model.scheduler.config)
    unet = model.unet.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(unet.parameters(), args.rate)
    loader = DataLoader(pictures, args.batch, shuffle=True, drop_last=True)
    unet, optimizer, loader = accelerator.prepare(unet, optimizer, loader)
    if not len(loader):
        parser.error(
            f"{len(pictures)} pictures make no batch of {args.batch}: give a lower --batch"
        )
    vae.requires_grad_(False).to(accelerator.device)
    model.text_encoder.to(accelerator.device)

    threshold = (
        QuantileThreshold(args.quantile, args.factor)
        if args.hard is None
        else HardThreshold(args.hard)
    )
    memorization = MemorizationFilter(scheduler, model.embed_empty()[0], threshold)
    accelerator.register_for_checkpointing(memorization)
    if args.resume:
        accelerator.load_state(str(args.resume))

    step = 0
    while step < args.steps:
        for batch in loader:
            with accelerator.accumulate(unet):
                with torch.no_grad():
                    latents = vae.encode(batch["pixels"]).latent_dist.sample()
                    latents = latents * vae.config.scaling_factor
                    (embeds,) = model.embed(batch["caption"])
                noise = torch.randn_like(latents)
                t = torch.randint(0, 1000, (len(latents),), device=latents.device)
                noisy = scheduler.add_noise(latents, noise, t)
                velocity = model.prediction_type == "v_prediction"
                target = scheduler.get_velocity(latents, noise, t) if velocity else noise
                prediction = unet(noisy, t, embeds).sample
                verdict = memorization(unet, noisy, t, embeds, prediction, ids=batch["id"])
                losses = F.mse_loss(prediction.float(), target, reduction="none")
                accelerator.backward(verdict.mean(losses))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(unet.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            step += accelerator.sync_gradients
            if step == args.steps:
                break

    if args.output:
        accelerator.save_state(str(args.output / "checkpoint"))
    report = memorization.report([str(row.file.name) for row in pictures.rows])
    if accelerator.is_main_process:
        print(json.dumps({"steps": step, "seen": report.seen, "skipped": report.skipped}))
        for sample in report.top(10):
            print(f"{sample.skipped:4} of {sample.seen:4}  {sample.name}")
        if args.output:
            report.write_json(args.output / "skipped.json")
            report.write_csv(args.output / "skipped.csv")
            StableDiffusionPipeline(
                vae=vae,
                text_encoder=model.text_encoder,
                tokenizer=model.tokenizer,
                unet=accelerator.unwrap_model(unet),
                scheduler=model.scheduler,
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            ).save_pretrained(args.output)
    accelerator.end_training()
