"""`python -m benchmarks.gpu.slim`: onnxruntime-gpu's wheel without what one kind of GPU never runs.

The wheel's 250 MB are programs for every generation of GPUs, and for operators of language models.
A machine that is lent for minutes may take less than that. What is left out is overwritten with
zeros in place, so that nothing else moves, and packs to nothing: some 23 MB are left. An operator
that was left out cannot be launched, which is an error and never another result.

    pip install zstandard && python -m benchmarks.gpu.slim --python 3.12 --sm 90
"""

from __future__ import annotations

import argparse
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .wheels import FOLDER, ROOT, download, pinned

__all__ = ["Program", "main", "programs", "slimmed"]

_CUDA = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
_LEFT_OUT = ("onnxruntime/transformers", "onnxruntime/tools", "onnxruntime/quantization")
_C_LIBRARY = "libonnxruntime.so"  # for programs in C: Python's module holds it all itself
# attention, mixtures of experts, weights of few bits: operators that graphs of ours do not have
_NEVER = re.compile(rb"flash|cutlass|llm|attention_kernel_batched|kernel_mha|MoeFC")
# of CUDA's fat binaries: a container of programs, each for one GPU
_CONTAINER, _PROGRAM = struct.Struct("<IHHQ"), struct.Struct("<HHIQIIII")
_MAGIC, _PACKED_BY_ZSTD = 0xBA55ED50, 0x8000


@dataclass(frozen=True)
class Program:
    """A program for one kind of GPU.

    Attributes:
        start: Where its bytes begin.
        stop: Where they end.
        sm: Compute capability, 90 for 9.0.
        flags: How they are packed, among other things.
    """

    start: int
    stop: int
    sm: int
    flags: int


def programs(binary: bytes, start: int, stop: int) -> Iterator[Program]:
    """All programs in a section of fat binaries."""
    place = start
    while place < stop:
        magic, _, header, size = _CONTAINER.unpack_from(binary, place)
        if magic != _MAGIC:
            place += 8  # they are aligned
            continue
        place, end = place + header, place + header + size
        while place < end:
            _, _, own, length, _, _, _, sm = _PROGRAM.unpack_from(binary, place)
            (flags,) = struct.unpack_from("<Q", binary, place + 40)
            yield Program(place + own, place + own + length, sm, flags)
            place += own + length


def slimmed(
    binary: bytes, section: tuple[int, int], sm: int, unpack: Callable[[bytes], bytes]
) -> bytes:
    """A library whose programs for other GPUs, or of operators that are never run, are zeros.

    Args:
        binary: The library.
        section: Where its fat binaries begin and end.
        sm: The GPU whose programs stay.
        unpack: Of what zstd packed.
    """
    found = bytearray(binary)
    for each in programs(binary, *section):
        body = binary[each.start : each.stop]
        if each.sm == sm and each.flags & _PACKED_BY_ZSTD:
            body = unpack(body)
        names = re.findall(rb"\.text\.(\w+)", body)
        if each.sm != sm or (names and _NEVER.search(min(names))):
            found[each.start : each.stop] = bytes(each.stop - each.start)
    return bytes(found)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default="3.12", help="version there")
    parser.add_argument("--sm", type=int, default=90, help="compute capability there: 90 for 9.0")
    parser.add_argument("--output", type=Path, default=FOLDER)
    args = parser.parse_args(arguments)
    try:
        import zstandard
    except ImportError:
        sys.exit("error: the names of programs are packed with zstd: pip install zstandard")

    def unpack(packed: bytes) -> bytes:
        return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(packed))

    version = pinned((ROOT / "constraints.txt").read_text())["onnxruntime"]
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        download([f"onnxruntime-gpu=={version}"], args.python, folder)
        [wheel] = folder.glob("*.whl")
        slim = args.output / wheel.name
        with zipfile.ZipFile(wheel) as given, zipfile.ZipFile(slim, "w", zipfile.ZIP_LZMA) as out:
            for name in given.namelist():
                if name.startswith(_LEFT_OUT) or _C_LIBRARY in name:
                    continue
                content = given.read(name)
                if name == _CUDA:
                    section = _section(given.extract(name, folder))
                    content = slimmed(content, section, args.sm, unpack)
                out.writestr(name, content)
    print(f"{slim.stat().st_size / 2**20:.1f} MiB  {slim}")


def _section(library: str) -> tuple[int, int]:
    """Where a library's fat binaries begin and end, as binutils tell it."""
    told = subprocess.check_output(["readelf", "-SW", library], text=True)
    found = re.search(r"\.nv_fatbin\s+\w+\s+[0-9a-f]+ ([0-9a-f]+) ([0-9a-f]+)", told)
    assert found is not None
    start, size = (int(each, 16) for each in found.groups())
    return start, start + size


if __name__ == "__main__":
    main()
