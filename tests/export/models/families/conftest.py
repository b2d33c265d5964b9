"""What the tests of every family and those of one share; each says which `family` it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from family_bundles import RECIPES, Family
from shared import Shared

from mnemoscope_export import Model
from mnemoscope_runtime import Screener


@pytest.fixture(scope="session")
def families(shared: Shared) -> Iterator[Mapping[str, Family]]:
    found = {name: Family(name, shared) for name in RECIPES}
    yield found
    for family in found.values():
        family.close()


@pytest.fixture(scope="module")
def folder(family: Family) -> Path:
    return family.folder


@pytest.fixture(scope="module")
def model(family: Family) -> Model:
    return family.model


@pytest.fixture(scope="module")
def pipeline(family: Family) -> Any:
    return family.pipeline


@pytest.fixture(scope="module")
def bundle(family: Family) -> Path:
    return family.bundle


@pytest.fixture(scope="module")
def screener(family: Family) -> Screener:
    return family.screener
