"""`python -m recipes.embedded WORK`: builds the embedded model, stage by stage."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from mnemoscope import InputError
from mnemoscope_export import load_network

from .captions import Caption
from .clip import tokenize, train_clip, train_tokenizer
from .dataset import Dataset, Sizes, build_dataset
from .images import Pixels
from .pack import judge, pack, require_captions
from .unet import train_unet
from .vae import encode, train_vae

STAGES = ("vae", "clip", "unet", "finish", "pack", "judge")


def _texts(captions: list[Caption]) -> list[str]:
    return [caption.text for caption in captions]


def _vae(work: Path, data: Dataset, args: argparse.Namespace) -> None:
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
        "pack": pack,
        "judge": judge,
    }
    for stage in stages:
        run[stage](args.work, data, args)


if __name__ == "__main__":
    main()
