"""The script of `make mutation`, without its runs."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from tests.mutation.mutants import apply, mutants
from tests.mutation.targets import TARGETS, TESTS

SOURCE = '''
"""A module."""

LIMIT: int | None = 20


def above(scores: list[float], least: float = 0.5) -> bool:
    """Whether all are."""
    if not scores:
        raise ValueError(f"{len(scores) + 1} scores")
    return all([0 < score <= least for score in scores]) and len(scores) < 2 * LIMIT
'''


def test_mutants_of_a_small_module() -> None:
    found = mutants(SOURCE)
    names = [each.name.partition(": ")[::2] for each in found]
    assert [change for place, change in names if place == "module"] == ["20 => 21"]
    assert [change for place, change in names if place == "above" and "return" not in change] == [
        "0.5 => 1.0",
        "not scores => scores",
        "raise ValueError(f'{len(scores) + 1} scores') => pass",
        "all([0 < score <= least for score in scores]) and len(scores) < 2 * LIMIT => "
        "all([0 < score <= least for score in scores]) or len(scores) < 2 * LIMIT",
        "len(scores) < 2 * LIMIT => len(scores) <= 2 * LIMIT",
        "len(scores) < 2 * LIMIT => len(scores) >= 2 * LIMIT",
        "all => any",
        "2 * LIMIT => 2 / LIMIT",
        "0 < score <= least => 0 <= score <= least",
        "0 < score <= least => 0 >= score <= least",
        "0 < score <= least => 0 < score < least",
        "0 < score <= least => 0 < score > least",
        "2 => 3",
        "0 => 1",
    ]


def test_a_mutant_differs_in_one_place() -> None:
    for each in mutants(SOURCE):
        changed = ast.unparse(apply(SOURCE, each))
        lines = zip(ast.unparse(ast.parse(SOURCE)).splitlines(), changed.splitlines(), strict=True)
        assert sum(before != after for before, after in lines) == 1


@pytest.mark.parametrize("module", TARGETS)
def test_targets_name_what_there_is(module: str) -> None:
    target = TARGETS[module]
    assert all((TESTS / each).is_file() for each in target.tests)
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    assert target.alike.keys() <= {each.name for each in mutants(Path(spec.origin).read_text())}
