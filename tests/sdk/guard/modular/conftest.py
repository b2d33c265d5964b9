"""A modular pipeline with the weights of a classic one, made once for each file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ClassifierFreeGuidance
from guard_support import between, draw, guarded_at, scores
from modular_support import PROMPTS, SIZE, modular
from pipelines import build_xl


@pytest.fixture(scope="module")
def classic() -> Any:
    found = build_xl()
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def whole(classic: Any) -> Any:
    return modular(classic)


@pytest.fixture
def pipe(whole: Any) -> Iterator[Any]:
    """The pipeline, guided as it was."""
    yield whole
    whole.update_components(guider=ClassifierFreeGuidance(guidance_scale=7.5))


@pytest.fixture(scope="module")
def plain(whole: Any) -> torch.Tensor:
    return draw(whole, PROMPTS, **SIZE)


@pytest.fixture(scope="module")
def found(whole: Any) -> tuple[float, ...]:
    """Scores of PROMPTS."""
    return tuple(scores(whole, PROMPTS, **SIZE))


@pytest.fixture(scope="module")
def one(whole: Any, found: tuple[float, ...]) -> tuple[Any, int]:
    """A calibration that flags one of PROMPTS, and which."""
    return guarded_at(whole, between(found, 2), **SIZE), int(np.argmax(found))
