"""`python -m benchmarks.duplicates_scale N [--inverted]`: time and memory to group many vectors.

Unit vectors of 512 numbers around a space of 48 dimensions, as a descriptor's are; a twentieth of
them are near copies of others, at cosines of .6 to .98, and count as found if they are dropped.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mnemoscope.duplicates import kept_rows
from mnemoscope.duplicates.grouping import EXACT

from .running import run_main

WIDTH, SPACE, BLOCK, ABOVE = 512, 48, 50_000, 0.6


def synthetic(count: int) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Vectors, the near copies last, and the cosine of each of those with what it copies."""
    dice = np.random.default_rng(0)
    copies = count // 20
    basis = dice.standard_normal((SPACE, WIDTH)).astype(np.float32) / np.sqrt(SPACE)
    found = np.zeros((count, WIDTH), np.float16)
    for first in range(0, count - copies, BLOCK):
        rows = min(BLOCK, count - copies - first)
        block = dice.standard_normal((rows, SPACE)).astype(np.float32) @ basis
        block += 0.5 * dice.standard_normal((rows, WIDTH)).astype(np.float32)
        found[first : first + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    of = found[dice.integers(0, count - copies, copies)].astype(np.float32)
    cosine = dice.uniform(ABOVE, 0.98, copies).astype(np.float32)
    other = dice.standard_normal((copies, WIDTH)).astype(np.float32)
    other -= (other * of).sum(1, keepdims=True) * of
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    found[count - copies :] = cosine[:, None] * of + np.sqrt(1 - cosine[:, None] ** 2) * other
    return found, cosine


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--inverted", action="store_true", help="even if all could be compared")
    args = parser.parse_args(argv)
    vectors, cosine = synthetic(args.count)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    kept = kept_rows(vectors, ABOVE, exact=0 if args.inverted else EXACT)
    after = resource.getrusage(resource.RUSAGE_SELF)
    rows = np.arange(args.count)
    found = (kept != rows)[args.count - len(cosine) :]
    results = {
        "vectors": args.count,
        "all compared": not args.inverted and args.count <= EXACT,
        "processor seconds": round(time.process_time() - start, 1),
        "GB before": round(before.ru_maxrss / 1e6, 2),
        "GB at most": round(after.ru_maxrss / 1e6, 2),
        "near copies found": float(found[cosine > ABOVE + 0.002].mean()),
    }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    run_main(main)
