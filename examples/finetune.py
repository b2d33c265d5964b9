"""Fine-tune Stable Diffusion 1.x or 2.x on captioned pictures without learning any by heart.

python examples/finetune.py FOLDER --model path/to/stable-diffusion --side 512 --output tuned
accelerate launch --num_processes 2 examples/finetune.py FOLDER ...

FOLDER holds `metadata.jsonl` ("file_name", "text") or a .txt beside every picture. Without one, the
embedded model is trained for a moment on its own memorised pictures, which the filter knows.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch.nn import functional as F
from torch.utils.data import DataLoader

from mnemoscope import InputError, MnemoscopeError, embedded
from mnemoscope.training import (
    HardThreshold,
    MemorizationFilter,
    Pictures,
    QuantileThreshold,
    read_folder,
)
from mnemoscope_export import StableDiffusion, load_vae


def count(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of 1 or more")
    return int(text)


def rate(text: str) -> float:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return number


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
add = parser.add_argument
add("folder", type=Path, nargs="?", help="pictures and captions; the embedded model's own if none")
add("--model", default=str(embedded.MODEL), help="directory or hub id; the embedded one if none")
add("--output", type=Path, help="where pipeline, report and checkpoint go")
add("--resume", type=Path, help="checkpoint of yours to go on from, for --steps more")
add("--side", type=count, default=64, help="of the pictures, in pixels (%(default)s)")
add("--steps", type=count, default=6, help="updates of the weights (%(default)s)")
add("--batch", type=count, default=4, help="pictures at once, in each process (%(default)s)")
add("--accumulate", type=count, default=1, help="batches to an update (%(default)s)")
add("--rate", type=rate, default=1e-5, help="learning rate of AdamW (%(default)s)")
add("--precision", choices=("no", "bf16", "fp16"), default="no", help="autocast (%(default)s)")
add("--hard", type=float, help="one threshold in eps units, in place of quantiles")
add("--quantile", type=float, default=0.5, help="of a bin's last magnitudes (%(default)s)")
add("--factor", type=float, default=1.5, help="times it, above which to skip (%(default)s)")
add("--bins", type=int, default=20, help="ranges of timesteps; fewer for small sets (%(default)s)")
add("--warmup", type=int, default=32, help="magnitudes a bin sees before it skips (%(default)s)")
add("--seed", type=int, default=0, help="of noise, timesteps and order (%(default)s)")
args = parser.parse_args()
if args.resume and not (args.resume / "custom_checkpoint_0.pkl").is_file():
    parser.error(
        f"{args.resume} holds no checkpoint of this script: give the folder `checkpoint` inside of "
        "what an earlier run had as --output"
    )


@contextmanager
def told() -> Iterator[None]:
    """What Mnemoscope refuses, as a message."""
    try:
        yield
    except MnemoscopeError as error:
        parser.error(str(error))


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
with told(), tempfile.TemporaryDirectory() as temporary:
    threshold = (
        QuantileThreshold(args.quantile, args.factor, bins=args.bins, warmup=args.warmup)
        if args.hard is None
        else HardThreshold(args.hard)
    )
    pictures = Pictures(read_folder(args.folder or own_pictures(Path(temporary))), args.side)
    model = StableDiffusion.load(args.model)
    if type(model) is not StableDiffusion:
        raise InputError(f"{args.model} is a Stable Diffusion XL. Give a 1.x or 2.x.")
    vae = load_vae(args.model)
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

    memorization = MemorizationFilter(scheduler, model.embed_empty()[0], threshold)
    accelerator.register_for_checkpointing(memorization)
    if args.resume:
        try:
            accelerator.load_state(str(args.resume))
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{args.resume} cannot be gone on from: {error} Give the --model and the options "
                "of its threshold that it was made with, or leave --resume out."
            ) from None

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
                loss = verdict.mean(losses)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(unet.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            step += accelerator.sync_gradients
            last = step == args.steps
            now = accelerator.sync_gradients and (last or step % max(1, args.steps // 20) == 0)
            if now and accelerator.is_main_process:
                kept = f"{int(verdict.keep.sum())} of {len(verdict.keep)} pictures kept"
                print(f"step {step} of {args.steps}: loss {loss:.4f}, {kept}", file=sys.stderr)
            if last:
                break

    if args.output:
        accelerator.save_state(str(args.output / "checkpoint"))
    report = memorization.report([str(row.file.name) for row in pictures.rows])
    if accelerator.is_main_process:
        print(json.dumps({"steps": step, "seen": report.seen, "skipped": report.skipped}))
        if not memorization.warm:
            print("the threshold is still warming up: nothing was skipped yet")
        elif memorization.warm < 1:
            warming = f"{1 - memorization.warm:.0%} of the timesteps"
            print(f"the threshold is still warming up in {warming}: nothing was skipped there yet")
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
