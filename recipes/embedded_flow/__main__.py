"""`python -m recipes.embedded_flow WORK`: builds the embedded flow, stage by stage.

What it learns from are captions and pictures of `recipes.embedded`, and that model's text encoder
and tokenizer. Stages `vae`, `decoder`, `transformer` and `student` are for a GPU; the others run
where there is none. The student is what the study measures, and is not packed.
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

from benchmarks.running import run_main
from mnemoscope import embedded
from mnemoscope.embedded.image_encoder import ImageEncoder
from mnemoscope_export import load_network
from recipes.embedded.captions import Caption
from recipes.embedded.dataset import Dataset, Sizes, build_dataset
from recipes.embedded.training import Until, train

from .batches import Learned
from .encoder import read_second, seen_by, train_second
from .pack import judge, pack, read_transformer
from .student import distillation_loss, guided
from .told import Told, first_encoder, tell
from .transformer import flow_loss, new_transformer, without_t5
from .vae import decoder_loss, encode, new_vae, reconstruction_loss, scale
from .whitened import white

STAGES = ("encoder", "vae", "decoder", "transformer", "student", "pack", "judge")
ARGUMENTS = (  # that change what is trained
    *("seed", "encoder_steps", "vae_seconds", "decoder_seconds"),
    *("transformer_seconds", "student_seconds", "batch", "memorised_share", "captions"),
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
    vae = load_network(AutoencoderKL, work / "vae", dtype=torch.float32).to(args.device)
    pixels = torch.from_numpy(np.array(data.seen_images[:-500])).to(args.device)
    loss = decoder_loss(vae, _scaled(vae, pixels), pixels, batch=64)
    until = Until(seconds=args.decoder_seconds)
    torch.manual_seed(args.seed + 3)
    vae.decoder = train(vae.decoder, loss, work / "decoder.jsonl", rate=1e-3, until=until)
    vae.cpu().save_pretrained(work / "decoder")


def _transformer(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    """A population's pictures, and the memorised ones a quarter of the time."""
    learned = _learned(work, data, args.captions, args.device)
    coordinates = white(learned.seen[1])
    torch.manual_seed(args.seed + 1)
    network = without_t5(new_transformer(learned.empty)).to(args.device)
    loss = flow_loss(
        network, learned.whitened(coordinates), batch=args.batch, share=args.memorised_share
    )
    until = Until(seconds=args.transformer_seconds)
    trained = train(network, loss, work / "transformer.jsonl", rate=1e-3, until=until)
    coordinates.leave(trained)
    _save(trained, work / "transformer.safetensors")


def _student(work: Path, data: Dataset, args: argparse.Namespace) -> None:
    """One that is told the guidance, of the transformer."""
    learned = _learned(work, data, args.captions, args.device)
    coordinates = white(learned.seen[1])
    torch.manual_seed(args.seed + 4)
    teacher = read_transformer(work / "transformer.safetensors", learned.empty).to(args.device)
    coordinates.enter(without_t5(teacher).requires_grad_(False))
    student = guided(copy.deepcopy(teacher).requires_grad_(True)).to(args.device)
    loss = distillation_loss(
        student,
        teacher,
        learned.whitened(coordinates),
        batch=args.batch,
        share=args.memorised_share,
    )
    until = Until(seconds=args.student_seconds)
    trained = train(student, loss, work / "student.jsonl", rate=5e-4, until=until)
    coordinates.leave(trained)
    _save(trained, work / "student.safetensors")


def _learned(work: Path, data: Dataset, captions: int, device: str) -> Learned:
    """Latents and what is told of seen and memorised captions, and of the empty prompt."""
    vae = load_network(AutoencoderKL, work / "vae", dtype=torch.float32).to(device)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    encoders = first_encoder().to(device), read_second(work).to(device)

    def both(images: np.ndarray, captions: list[Caption]) -> tuple[torch.Tensor, Told]:
        latents = _scaled(vae, torch.from_numpy(np.array(images)).to(device))
        return latents.half(), tell(tokenizer, encoders, _texts(captions))

    return Learned(
        both(data.seen_images[:captions], data.seen[:captions]),
        both(data.memorised_images, data.memorised),
        tell(tokenizer, encoders, [""]),
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
    parser.add_argument("--decoder-seconds", type=float, default=80)
    parser.add_argument("--transformer-seconds", type=float, default=530)
    parser.add_argument("--batch", type=int, default=256, help="of transformer and student")
    parser.add_argument("--captions", type=int, default=60_000, help="seen ones these learn from")
    parser.add_argument("--memorised-share", type=float, default=0.25, help="of a batch")
    parser.add_argument("--student-seconds", type=float, default=110)
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
        "student": lambda: _student(args.work, data, args),
        "pack": lambda: pack(args.work, data, args.out),
        "judge": lambda: judge(args.work, data, args.out, told, args.descriptor),
    }
    for stage in args.stage or STAGES:
        run[stage]()


if __name__ == "__main__":
    run_main(main)
