"""Wen et al.'s optimisation, on a magnitude that one can see through."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mnemoscope import NumericsError
from mnemoscope.guard import EmbeddingOptimization, Flagged

BENIGN = np.linspace(0, 4, 101)


def flagged(embeds: torch.Tensor, scale: float = 1.0) -> Flagged:
    """The magnitude is the distance of the embedding from zero."""
    return Flagged(
        prompts=(None,) * len(embeds),
        embeds=embeds,
        magnitude=lambda each: scale * each.flatten(1).norm(dim=1),
        benign=BENIGN,
        threshold=4.0,
    )


def test_every_image_stops_at_its_target() -> None:
    embeds = torch.ones(3, 5, 4) * torch.tensor([0.1, 1.0, 1.05])[:, None, None]
    embeds[:, 0] = 0.05  # the start token
    options = EmbeddingOptimization(iterations=100, quantile=0.5)
    found = options(flagged(embeds))
    norms = found.flatten(1).norm(dim=1)
    assert torch.equal(found[0], embeds[0])  # benign already
    assert torch.equal(found[:, 0], embeds[:, 0])
    assert (norms <= 2).all()
    assert (norms[1:] > 1.5).all()  # each stopped as soon as it was there
    assert not torch.equal(found[1], embeds[1])


def test_as_far_as_it_gets() -> None:
    embeds = torch.ones(1, 5, 4)
    passes = []
    problem = flagged(embeds)
    counted = Flagged(
        problem.prompts,
        problem.embeds,
        lambda each: passes.append(1) or problem.magnitude(each),  # type: ignore[func-returns-value]
        problem.benign,
        problem.threshold,
    )
    found = EmbeddingOptimization(iterations=3)(counted)
    assert len(passes) == 4
    assert torch.allclose(found[:, 1:], torch.tensor(1 - 3 * 0.05), atol=1e-4)  # Adam's steps


def test_nan() -> None:
    with pytest.raises(NumericsError, match="gradient of the magnitude"):
        EmbeddingOptimization()(flagged(torch.ones(1, 5, 4), scale=float("nan")))
