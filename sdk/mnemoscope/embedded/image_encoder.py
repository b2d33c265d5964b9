"""The image encoder of the embedded model's small CLIP: for CLIP scores offline."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["WIDTH", "ImageEncoder"]

WIDTH = 128  # of the space that it shares with the text encoder


class ImageEncoder(nn.Module):
    """A small residual convolutional network: [B, 3, 64, 64] in -1..1 -> [B, 128]."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 160)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8, a),
                nn.Conv2d(a, b, 3, padding=1),
                nn.SiLU(),
                nn.GroupNorm(8, b),
                nn.Conv2d(b, b, 3, padding=1),
            )
            for a, b in zip(widths, widths[1:] + widths[-1:], strict=True)
        )
        self.skips = nn.ModuleList(
            nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:] + widths[-1:], strict=True)
        )
        self.norm = nn.LayerNorm(16 * widths[-1])
        self.head = nn.Linear(16 * widths[-1], WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Encode pictures."""
        x = F.silu(self.stem(x))
        for block, skip in zip(self.blocks, self.skips, strict=True):
            x = F.silu(block(x) + skip(x))
            if x.shape[-1] > 4:
                x = F.avg_pool2d(x, 2)
        out: Tensor = self.head(self.norm(x.flatten(1)))
        return out
