"""How far one prompt walks through the house: few files, and never back up."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

from mnemoscope import Detector

FLOORS = ("mnemoscope_runtime", "mnemoscope_export", "mnemoscope")


def place(frame: FrameType | None) -> tuple[int, Path] | None:
    """Floor and file of a frame, if it is ours."""
    path = Path("" if frame is None else frame.f_code.co_filename)
    for floor, name in enumerate(FLOORS):
        if name in path.parts and "tests" not in path.parts:
            return floor, path
    return None


def test_one_prompt_passes_through_ten_files_at_most() -> None:
    calls: list[tuple[tuple[int, Path] | None, tuple[int, Path]]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (here := place(frame)):
            calls.append((place(frame.f_back), here))

    with Detector.load(backend="onnxruntime") as detector:
        detector.screen(["a cat"])  # what is settled once
        sys.setprofile(note)
        try:
            detector.screen(["a dog"])
        finally:
            sys.setprofile(None)
    files = {path for _, (_, path) in calls}
    assert 5 < len(files) <= 10, sorted(files)
    climbs = [(above, here) for above, here in calls if above and above[0] < here[0]]
    assert not climbs
