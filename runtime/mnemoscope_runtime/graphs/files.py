"""Graphs of others: ONNX files with their weights beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .operators import ELSEWHERE, Operator
from .walk import Refused, check_graph

__all__ = ["read_graph"]


def read_graph(path: Path, operators: Mapping[str, Operator] = ELSEWHERE) -> bytes:
    """The contents of an ONNX file that may be parsed: it was walked through.

    Its weights may be in files beside it or below.

    Args:
        path: Of the file.
        operators: Those that it may have.

    Raises:
        Refused: it holds what a graph may not, or weights that are missing or elsewhere.
        OSError: it cannot be read.
    """
    folder = path.parent.resolve()

    def size_of(name: str) -> int | None:
        file = folder / name
        if not file.resolve().is_relative_to(folder):
            return None  # a link that leads elsewhere
        if not file.is_file():
            raise Refused(f"its weights are in {file}, which is missing")
        return file.stat().st_size

    content = path.read_bytes()
    check_graph(content, size_of, operators, is_ours=False)
    return content
