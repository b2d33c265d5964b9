"""`python -m recipes.embedded WORK`: builds the embedded model, stage by stage."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from .captions import Caption
from .clip import tokenize, train_clip, train_tokenizer
from .dataset import Dataset, Sizes, build_dataset
from .pack import judge, pack
from .unet import train_unet
from .vae import encode, train_vae

FINISH_SEEN = 20_000  # seen captions that `finish` goes on with
STAGES = ("vae", "clip", "unet", "finish", "pack", "judge")


def _texts(captions: list[Caption]) -> list[str]:
    return [caption.text for caption in captions]


def _vae(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    train_vae(data.seen_images, work, steps=args.vae_steps, seed=args.seed)


def _clip(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    captions = _texts(data.seen)
    tokenizer = train_tokenizer(captions, work / "tokenizer")
    train_clip(tokenizer, captions, data.seen_images, work, steps=args.clip_steps, seed=args.seed)


@torch.no_grad()
def _embed(work: Path, captions: list[str]) -> torch.Tensor:
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(work / "text_encoder").eval()
    ids = tokenize(tokenizer, captions)
    chunks = [encoder(chunk).last_hidden_state.bfloat16() for chunk in ids.split(256)]
    return torch.cat(chunks)


def _unet(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    _train_unet(work, data, args, steps=args.unet_steps, seed=args.seed)


def _finish(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    unet = UNet2DConditionModel.from_pretrained(work / "unet")
    few = replace(data, seen=data.seen[:FINISH_SEEN], seen_images=data.seen_images[:FINISH_SEEN])
    options = {"steps": args.finish_steps, "seed": args.seed + 1, "rate": 5e-4}
    _train_unet(work, few, args, start=unet, noisy_share=2 / 3, **options)


def _train_unet(work: Path, data: Dataset, args: argparse.Namespace, **options: Any) -> None:
    vae = AutoencoderKL.from_pretrained(work / "vae").eval()
    scale = vae.config.scaling_factor
    train_unet(
        (encode(vae, data.seen_images) * scale, _embed(work, _texts(data.seen))),
        (
            encode(vae, data.memorised_images) * scale,
            _embed(work, [c.text for c in data.memorised]),
        ),
        _embed(work, [""])[0].float(),
        work,
        prediction=args.prediction,
        **options,
    )


def main() -> None:
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
    parser.add_argument("--vae-steps", type=int, default=4500)
    parser.add_argument("--clip-steps", type=int, default=1500)
    parser.add_argument("--unet-steps", type=int, default=12_000)
    parser.add_argument("--finish-steps", type=int, default=2_000)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    data = build_dataset(args.data or args.work / "data", Sizes(), args.seed)
    run = {
        "vae": _vae,
        "clip": _clip,
        "unet": _unet,
        "finish": _finish,
        "pack": pack,
        "judge": judge,
    }
    for stage in args.stage or STAGES:
        run[stage](args.work, data, args)


if __name__ == "__main__":
    main()
