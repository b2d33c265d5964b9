"""Calls in processes of their own."""

from __future__ import annotations

import pytest

from benchmarks.alone import alone, peak

pytestmark = pytest.mark.slow  # each starts Python


def test_memory_of_the_process_that_asks_is_not_counted() -> None:
    held = b"\1" * 300_000_000
    assert peak() > len(held)
    assert 10_000_000 < alone(peak) < 200_000_000


def test_errors_come_back() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        alone(int, "no number")
