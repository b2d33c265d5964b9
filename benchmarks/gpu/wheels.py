"""`python -m benchmarks.gpu.wheels`: collect what a machine without a network may lack.

The machine is thought to have CUDA, PyTorch, transformers, accelerate, ONNX and tokenizers. Wheels
go to a folder that git ignores; `benchmarks.gpu.prepare` takes from it, there, what is missing.
Needs nothing but pip; versions are those of constraints.txt.

    python -m benchmarks.gpu.wheels                        # a few MiB, for Python 3.11 to 3.13
    python -m benchmarks.gpu.wheels --onnxruntime-gpu 3.12 --part-mib 24
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["FOLDER", "main", "pinned", "split"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "out" / "gpu" / "wheels"
PYTHONS = ("3.11", "3.12", "3.13")
PACKAGES = (
    *("diffusers", "importlib_metadata", "zipp"),
    *("requests", "certifi", "charset-normalizer", "idna", "urllib3"),
    "msgspec",
    *("rich", "markdown-it-py", "mdurl", "Pygments"),
    *("typer", "annotated-doc", "click", "shellingham", "typing_extensions"),
    "filelock",  # to build TensorRT's engines
)
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64")
_GPU = "onnxruntime-gpu"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="versions there")
    parser.add_argument(
        "--onnxruntime-gpu", metavar="PYTHON", help="for this version too, in parts"
    )
    parser.add_argument(
        "--part-mib", type=int, default=24, help="of which each is at most so large"
    )
    args = parser.parse_args(arguments)
    versions = pinned((ROOT / "constraints.txt").read_text())
    for python in args.python:
        download([f"{name}=={versions[name.lower()]}" for name in PACKAGES], python, args.output)
    if args.onnxruntime_gpu:
        with tempfile.TemporaryDirectory() as folder:
            name = f"{_GPU}=={versions['onnxruntime']}"
            download([name], args.onnxruntime_gpu, Path(folder))
            [wheel] = Path(folder).glob("*.whl")
            split(wheel, args.output, args.part_mib * 2**20)
    sizes = {each.name: each.stat().st_size for each in sorted(args.output.iterdir())}
    for name, size in sizes.items():
        print(f"{size / 2**20:7.1f} MiB  {name}")
    print(f"{sum(sizes.values()) / 2**20:7.1f} MiB in {args.output}")


def pinned(constraints: str) -> dict[str, str]:
    """Versions by lower-case name."""
    lines = (line.split("#")[0].strip() for line in constraints.splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {name.lower(): version for name, version in pairs}


def download(requirements: Iterable[str], python: str, folder: Path) -> None:
    """Wheels for a version of Python on Linux, without what they need themselves."""
    platforms = (argument for each in _PLATFORMS for argument in ("--platform", each))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary=:all:", "--implementation", "cp", "--python-version", python),
            *platforms,
            *("--dest", str(folder), *requirements),
        ],
        check=True,
    )


def split(wheel: Path, folder: Path, size: int) -> list[Path]:
    """Cut a wheel into files of at most so many bytes; its sha256 stands beside them."""
    content = wheel.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    (folder / f"{wheel.name}.sha256").write_text(f"{digest}  {wheel.name}\n")
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    parts = []
    for number, piece in enumerate(pieces, 1):
        parts.append(folder / f"{wheel.name}.part-{number:02}-of-{len(pieces):02}")
        parts[-1].write_bytes(piece)
    return parts


if __name__ == "__main__":
    main()
