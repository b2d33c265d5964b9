"""What the tests of audits share: a detector whose scores are known, on the embedded bundle."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnemoscope import Calibration, CalibrationFile, Detector, embedded
from mnemoscope_runtime import Bundle, Screener, tokenizer_of
from mnemoscope_runtime.testing import FakeBackend

TOKENIZER = tokenizer_of(Bundle.open(embedded.BUNDLE))


def known(scores: Mapping[str, float], benign: Sequence[float]) -> tuple[Detector, FakeBackend]:
    """A detector that scores prompts as told (others 0), calibrated on benign scores."""
    screener = Screener.open(embedded.BUNDLE, backend="onnxruntime", threads=1)
    table = {screener.tokenizer([p]).tobytes(): score for p, score in scores.items()}
    screener.close()
    backend = FakeBackend(lambda ids: table.get(ids.tobytes(), 0.0))
    detector = Detector(Screener.open(embedded.BUNDLE, backend=backend))
    numbered = {str(i): score for i, score in enumerate(benign)}
    calibration = Calibration.of(detector.setting(), numbered, fpr=0.5, delta=0.5)
    detector.calibration = CalibrationFile((calibration,))
    return detector, backend


def text(path: Path, prompts: Sequence[str]) -> Path:
    """A file of prompts, as JSON lines."""
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """Results, whatever their ending, with the types of JSON."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return list(parquet.read_table(path).to_pylist())
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {key: _value(key, value) for key, value in row.items()} for row in csv.DictReader(file)
        ]


def _value(key: str, value: str) -> object:
    if key == "prompt":
        return value
    return (
        None if value == "" else value if key in ("notes", "error") else json.loads(value.lower())
    )
