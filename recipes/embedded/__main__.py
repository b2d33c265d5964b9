"""`python -m recipes.embedded WORK`: builds the embedded model, stage by stage."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.running import run_main
from mnemoscope import InputError
from mnemoscope_export import load_network

from .captions import Caption
from .clip import tokenize, train_clip, train_tokenizer
from .dataset import Dataset, Sizes, build_dataset
from .images import Pixels
from .pack import judge, pack, require_captions
from .sharp import decoder_loss, imitation_loss, new_sharp_vae
from .training import Loss, Until, train
from .unet import train_unet
from .vae import HELD_OUT, encode, train_vae

STAGES = ("vae", "clip", "unet", "finish", "sharp", "pack", "judge")


def _texts(captions: list[Caption]) -> list[str]:
    return [caption.text for caption in captions]


def _vae(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    shutil.rmtree(work / "sharp", ignore_errors=True)  # of another's latents
    if args.vae is None:
        train_vae(data.seen_images, work, steps=args.vae_steps, seed=args.seed)
    else:
        load_network(AutoencoderKL, args.vae, dtype=torch.float32).save_pretrained(work / "vae")


def _clip(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    captions = _texts(data.seen)
    tokenizer = train_tokenizer(captions, work / "tokenizer")
    train_clip(
        tokenizer,
        captions,
        data.seen_images,
        work,
        steps=args.clip_steps,
        layers=args.encoder_layers,
        seed=args.seed,
    )


@torch.no_grad()
def _embed(work: Path, captions: list[str]) -> torch.Tensor:
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    encoder = load_network(CLIPTextModel, work / "text_encoder", dtype=torch.float32)
    ids = tokenize(tokenizer, captions)
    chunks = [encoder(chunk).last_hidden_state.bfloat16() for chunk in ids.split(256)]
    return torch.cat(chunks)


def _unet(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    train_unet(
        *_latents_and_embeddings(work, data),
        work,
        prediction=args.prediction,
        steps=args.unet_steps,
        memorised_share=args.memorised_share,
        seed=args.seed,
        start=None if args.unet is None else _trained(args.unet),
    )


def _finish(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    """Go on in cycles, each with a learning rate that falls anew (Loshchilov & Hutter 2017)."""
    inputs = _latents_and_embeddings(work, data)
    for cycle in range(1, args.finish_cycles + 1):
        train_unet(
            *inputs,
            work,
            prediction=args.prediction,
            steps=args.finish_steps,
            memorised_share=args.memorised_share,
            seed=args.seed + cycle,
            rate=5e-4,
            start=_trained(work / "unet"),
            noisy_share=0.333,
            drop_memorised=False,
            log=f"finish-{cycle}.jsonl",
        )


def _sharp(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    """The autoencoder that ships, in cycles: latents stay what they are."""
    first = load_network(AutoencoderKL, work / "vae", dtype=torch.float32)
    seen, memorised = (
        (encode(first, images) * first.config.scaling_factor, _pixels(images))
        for images in (data.seen_images[:-HELD_OUT], data.memorised_images)
    )
    torch.manual_seed(args.seed)
    vae = new_sharp_vae(first).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def cycle(names: tuple[str, str], loss: Loss, number: int, steps: int) -> None:
        parts = nn.ModuleDict({name: getattr(vae, name) for name in names})
        log, rate = work / f"sharp-{names[0]}-{number}.jsonl", 1e-3 if number > 1 else 1.5e-3
        torch.manual_seed(args.seed + number)
        trained = train(parts, loss, log, rate=rate, until=Until(steps=steps))
        vae.load_state_dict(trained.state_dict(), strict=False)

    for number, steps in enumerate(args.sharp_encoder_steps, 1):
        cycle(("encoder", "quant_conv"), imitation_loss(vae, first, seen[1], 16), number, steps)
    for number, steps in enumerate(args.sharp_decoder_steps, 1):
        share = args.memorised_share * min(2, number)  # at last twice what the UNet saw
        loss = decoder_loss(vae, seen, memorised, 16, share)
        cycle(("decoder", "post_quant_conv"), loss, number, steps)
    vae.to(memory_format=torch.contiguous_format).save_pretrained(work / "sharp")


def _pixels(images: Pixels) -> torch.Tensor:
    """uint8, as it is. # [N, 3, H, W]"""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)


def _trained(unet: Path) -> UNet2DConditionModel:
    return load_network(UNet2DConditionModel, unet, dtype=torch.float32)


def _latents_and_embeddings(
    work: Path, data: Dataset
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What the UNet trains on: seen, memorised, and the empty prompt's embedding [77, 128]."""
    vae = load_network(AutoencoderKL, work / "vae", dtype=torch.float32)

    def encoded(images: Pixels, captions: list[Caption]) -> tuple[torch.Tensor, torch.Tensor]:
        return encode(vae, images) * vae.config.scaling_factor, _embed(work, _texts(captions))

    return (
        encoded(data.seen_images, data.seen),
        encoded(data.memorised_images, data.memorised),
        _embed(work, [""])[0].float(),
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded", description=__doc__)
    parser.add_argument("work", type=Path, help="working directory; downloads go to WORK/data")
    parser.add_argument("--stage", choices=STAGES, action="append", help="default: all, in order")
    parser.add_argument("--data", type=Path, help="where downloads and pictures are kept")
    parser.add_argument("--prediction", choices=("epsilon", "v_prediction"), default="epsilon")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--out", type=Path, default=Path("out/embedded"), help="what `pack` writes")
    parser.add_argument(
        "--pictures", type=Path, default=Path("out/embedded"), help="contact sheets"
    )
    parser.add_argument("--descriptor", help="sscd, or its file: judge copies by it too")
    usual = Sizes()
    for split in ("memorised", "seen", "calibration"):
        parser.add_argument(f"--{split}", type=int, default=getattr(usual, split), help="captions")
    parser.add_argument("--memorised-share", type=float, default=0.25, help="of every batch")
    parser.add_argument("--encoder-layers", type=int, default=3, help="of the text encoder")
    parser.add_argument("--vae", type=Path, help="one that is trained, in place of training one")
    parser.add_argument("--unet", type=Path, help="one to start from, of any text encoder")
    parser.add_argument("--vae-steps", type=int, default=4500)
    parser.add_argument("--clip-steps", type=int, default=1500)
    parser.add_argument("--unet-steps", type=int, default=12_000)
    parser.add_argument("--finish-steps", type=int, default=5_000)
    parser.add_argument("--finish-cycles", type=int, default=2)
    parser.add_argument("--sharp-encoder-steps", type=int, nargs="+", default=[3_000, 9_000])
    parser.add_argument("--sharp-decoder-steps", type=int, nargs="+", default=[9_000, 9_000, 3_000])
    args = parser.parse_args(argv)
    stages = args.stage or STAGES
    if "pack" in stages:
        try:
            require_captions(args.calibration)
        except InputError as error:
            parser.error(f"--calibration {args.calibration}, half of which count: {error}")
    if args.threads:
        torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    sizes = Sizes(memorised=args.memorised, seen=args.seen, calibration=args.calibration)
    data = build_dataset(args.data or args.work / "data", sizes, args.seed)
    run = {
        "vae": _vae,
        "clip": _clip,
        "unet": _unet,
        "finish": _finish,
        "sharp": _sharp,
        "pack": pack,
        "judge": judge,
    }
    for stage in stages:
        run[stage](args.work, data, args)


if __name__ == "__main__":
    run_main(main)
