"""How many flipped bits of a bundle and its calibration pass unnoticed.

    python -m tests.attacks.flips [--count N] [--bundle DIR]

Flips N bits of every file of a copy, one at a time, at random places, and opens it as a detector
does. An accepted flip must be one that changes nothing that was read. Exit status 1 if one did.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from mnemoscope import CalibrationFile, MnemoscopeError, embedded
from mnemoscope.screening.opening import CALIBRATION
from mnemoscope_runtime import Bundle


def opened(path: Path) -> tuple[object, ...]:
    """What is read of a bundle and its calibration before an engine is made."""
    bundle, known = Bundle.open(path), CalibrationFile.read(path / CALIBRATION)
    known.check(bundle.id)
    return bundle.manifest, known, [bundle.read(name) for name in bundle.manifest.files]


def flip(file: Path, dice: random.Random) -> bytes:
    """Flip one bit of a file; returns what it held."""
    content = file.read_bytes()
    changed = bytearray(content)
    changed[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    file.write_bytes(changed)
    return content


def tried(path: Path, file: Path, count: int, dice: random.Random) -> tuple[int, int]:
    """How many flips of a file were accepted, and how many of those changed something."""
    original, accepted, different = opened(path), 0, 0
    for _ in range(count):
        content = flip(file, dice)
        try:
            found = opened(path)
        except MnemoscopeError:
            continue
        finally:
            file.write_bytes(content)
        accepted += 1
        different += found != original
    return accepted, different


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks.flips")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--bundle", type=Path, default=embedded.BUNDLE)
    args = parser.parse_args()
    dice, total = random.Random(0), 0
    print(f"{'file':<28}  flips  accepted  changed")
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(args.bundle, Path(folder) / "bundle")
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            accepted, different = tried(path, file, args.count, dice)
            name = file.relative_to(path).as_posix()
            print(f"{name:<28}  {args.count:5}  {accepted:8}  {different:7}", flush=True)
            total += different
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
