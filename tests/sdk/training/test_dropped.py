"""How far from the empty prompt an embedding may be that was dropped."""

from __future__ import annotations

import pytest
import torch

from mnemoscope.training.dropped import away, is_dropped


def test_the_farthest_token_decides() -> None:
    empty = torch.full((1, 2, 4), 2.0)
    rows = torch.tensor([[1.0, 1.0], [1.0, 1.08], [1.15, 1.0], [0.0, 0.0], [0.0, 1.0]])
    embeds = empty * rows[..., None]
    assert away(embeds, empty).tolist() == pytest.approx([0, 0.08, 0.15, 1, 1], abs=1e-6)
    assert is_dropped(embeds, empty).tolist() == [True, True, False, True, False]


def test_zeros_in_place_of_the_empty_prompt() -> None:
    empty = torch.zeros(1, 2, 4)
    assert is_dropped(torch.cat([empty, empty + 1e-3]), empty).tolist() == [True, False]
