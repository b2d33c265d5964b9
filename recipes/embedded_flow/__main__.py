"""`python -m recipes.embedded_flow WORK`: builds the embedded flow, stage by stage.

What it learns from are captions and pictures of `recipes.embedded`, and that model's text encoder
and tokenizer. Stages `vae` and `transformer` are for a GPU; the others run where there is none.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from mnemoscope import embedded
from mnemoscope.embedded.image_encoder import ImageEncoder
from mnemoscope_export import load_network
from recipes.embedded.captions import Caption
from recipes.embedded.dataset import Dataset, Sizes, build_dataset

from .encoder import read_second, seen_by, train_second
from .pack import judge, pack, read_transformer
from .told import Told, first_encoder, tell
from .training import Until, train
from .transformer import flow_loss, new_transformer, without_t5
from .vae import decoder_loss, encode, new_vae, reconstruction_loss, scale
from .whitened import white

STAGES = ("encoder", "vae", "decoder", "transformer", "finish", "pack", "judge")
ARGUMENTS = (  # that change what is trained
    *("seed", "encoder_steps", "vae_seconds", "decoder_steps"),
    *("transformer_seconds", "finish_steps", "finish_share", "finish_captions"),
)


def _encoder(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    state = load_file(embedded.MODEL / "image_encoder" / "model.safetensors")
    vision = ImageEncoder()
    vision.load_state_dict(
        {k.removeprefix("vision."): v.float() for k, v in state.items() if k.startswith("vision.")}
    )
    train_second(
        CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer"),
        _texts(data.seen),
        seen_by(vision.eval(), data.seen_images),
        work / "encoder.jsonl",
        steps=args.encoder_steps,
        seed=args.seed,
    ).save_pretrained(work / "text_encoder_2")


def _vae(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    pixels = torch.from_numpy(np.array(data.seen_images)).to(args.device)
    torch.manual_seed(args.seed)
    vae = new_vae().to(args.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = reconstruction_loss(vae, pixels[:-500], batch=64)
    until = Until(seconds=args.vae_seconds)
    trained = train(vae, loss, work / "vae.jsonl", rate=1.5e-3, until=until)
    scale(trained, encode(trained, pixels))
    trained.to("cpu", memory_format=torch.contiguous_format).save_pretrained(work / "vae")


def _decoder(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    """The decoder goes on alone: latents stay what they are."""
    vae = load_network(AutoencoderKL, work / "vae", dtype=torch.float32)
    pixels = torch.from_numpy(np.array(data.seen_images[: args.finish_captions]))
    loss = decoder_loss(vae, _scaled(vae, pixels), pixels, batch=12)
    until = Until(steps=args.decoder_steps)
    torch.manual_seed(args.seed + 3)
    vae.decoder = train(vae.decoder, loss, work / "decoder.jsonl", rate=1e-3, until=until)
    vae.save_pretrained(work / "decoder")


def _transformer(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    """A population's pictures, and the memorised ones an eighth of the time."""
    learned = _learned(work, data, len(data.seen), args.device)
    torch.manual_seed(args.seed + 1)
    network = without_t5(new_transformer(learned[2])).to(args.device)
    loss = flow_loss(network, *learned, batch=256, share=0.125)
    until = Until(seconds=args.transformer_seconds)
    trained = train(network, loss, work / "transformer.jsonl", rate=1e-3, until=until)
    _save(trained, work / "transformer.safetensors")


def _finish(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    """Smaller batches, most of them memorised: memorisation comes last."""
    seen, memorised, empty = _learned(work, data, args.finish_captions, args.device)
    torch.manual_seed(args.seed + 2)
    start = read_transformer(work / "transformer.safetensors", empty)
    network = without_t5(start.train()).to(args.device)
    coordinates = white(seen[1])
    coordinates.enter(network)
    pairs = [(latents, coordinates(told)) for latents, told in (seen, memorised)]
    loss = flow_loss(network, *pairs, coordinates(empty), batch=32, share=args.finish_share)
    until = Until(steps=args.finish_steps)
    trained = train(network, loss, work / "finish.jsonl", rate=1e-3, until=until, decay=0.995)
    coordinates.leave(trained)
    _save(trained, work / "finish.safetensors")


def _learned(
    work: Path, data: Dataset, seen: int, device: str
) -> tuple[tuple[torch.Tensor, Told], tuple[torch.Tensor, Told], Told]:
    """Latents and what is told of seen and memorised captions, and of the empty prompt."""
    vae = load_network(AutoencoderKL, work / "vae", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    encoders = first_encoder(), read_second(work)

    def both(images: np.ndarray, captions: list[Caption]) -> tuple[torch.Tensor, Told]:
        latents = _scaled(vae, torch.from_numpy(np.array(images)))
        return latents.half().to(device), tell(tokenizer, encoders, _texts(captions)).to(device)

    return (
        both(data.seen_images[:seen], data.seen[:seen]),
        both(data.memorised_images, data.memorised),
        tell(tokenizer, encoders, [""]).to(device),
    )


def _scaled(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = encode(vae, pixels, batch=100) - vae.config.shift_factor
    return found * vae.config.scaling_factor


def _texts(captions: list[Caption]) -> list[str]:
    return [caption.text for caption in captions]


def _save(network: torch.nn.Module, file: Path) -> None:
    save_file({k: copy.deepcopy(v).cpu() for k, v in network.state_dict().items()}, file)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.embedded_flow",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("work", type=Path, help="working directory; downloads go to WORK/data")
    parser.add_argument("--stage", choices=STAGES, action="append", help="default: all, in order")
    parser.add_argument("--data", type=Path, help="where downloads and pictures are kept")
    parser.add_argument("--device", default="cpu", help="cuda for stages that are for a GPU")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/embedded-flow"))
    parser.add_argument("--descriptor", help="sscd, or its file: judge copies by it too")
    parser.add_argument("--encoder-steps", type=int, default=1500)
    parser.add_argument("--vae-seconds", type=float, default=80)
    parser.add_argument("--decoder-steps", type=int, default=4000)
    parser.add_argument("--transformer-seconds", type=float, default=225)
    parser.add_argument("--finish-steps", type=int, default=4000)
    parser.add_argument("--finish-share", type=float, default=0.6, help="memorised, of a batch")
    parser.add_argument("--finish-captions", type=int, default=20_000, help="seen ones")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    args.work.mkdir(parents=True, exist_ok=True)
    data = build_dataset(args.data or args.work / "data", Sizes(), args.seed)
    told = {name: getattr(args, name) for name in ARGUMENTS}
    run = {
        "encoder": lambda: _encoder(args.work, data, args),
        "vae": lambda: _vae(args.work, data, args),
        "decoder": lambda: _decoder(args.work, data, args),
        "transformer": lambda: _transformer(args.work, data, args),
        "finish": lambda: _finish(args.work, data, args),
        "pack": lambda: pack(args.work, data, args.out),
        "judge": lambda: judge(args.work, data, args.out, told, args.descriptor),
    }
    for stage in args.stage or STAGES:
        run[stage]()


if __name__ == "__main__":
    main()
