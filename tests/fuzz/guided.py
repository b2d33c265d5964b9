"""One target under atheris: it chooses what to change further, the mutators are ours.

python -m tests.fuzz.guided TARGET [FLAG OF LIBFUZZER ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["mnemoscope", "mnemoscope_runtime"]):
    from .judging import known, passes
    from .mutators import changed
    from .targets import TARGETS


def main() -> None:
    name, *flags = sys.argv[1:]
    with TemporaryDirectory() as folder:
        target = TARGETS[name](Path(folder))
        seeds = known(target)
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, each in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(each)

        def change(content: bytes, most: int, seed: int) -> bytes:
            return changed(content, Random(seed), target.mutators)[:most]

        largest = f"-max_len={2 * max(map(len, target.seeds))}"
        atheris.Setup(
            [sys.argv[0], largest, *flags, str(corpus)],
            lambda content: passes(target, seeds, content) and None,
            custom_mutator=change,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
