from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mnemoscope_export.torch.flops import count_flops
from mnemoscope_runtime import Bundle


def test_a_matrix_product() -> None:
    assert count_flops(nn.Linear(8, 16), (torch.zeros(4, 8),)) == 2 * 4 * 8 * 16


def test_attention_counts() -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    length, width = 16, 8
    inputs = (torch.zeros(1, 1, length, width),)
    assert count_flops(Attention(), inputs) == 2 * (2 * length * length * width)


def test_screening_is_less_than_half_a_step(bundle_dir: Path) -> None:
    flops = Bundle.open(bundle_dir).manifest.flops
    assert 0 < flops["text_encoder"] < flops["screen"]
    assert flops["screen"] - flops["text_encoder"] < flops["step"] / 2
