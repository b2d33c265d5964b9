"""Drawing a request a second time, and not handing out some of its images."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["RandomState", "blank", "zeroed"]


@dataclass(frozen=True)
class RandomState:
    """Where generators stand, so that a request can be drawn anew from the same noise."""

    generators: tuple[torch.Generator, ...]
    states: tuple[Tensor, ...]

    @classmethod
    def of(cls, generator: torch.Generator | list[torch.Generator] | None) -> RandomState:
        """Of a request's generators; torch's own ones if it has none."""
        if generator is None:
            found = [torch.default_generator]
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                found += torch.cuda.default_generators
        else:
            found = generator if isinstance(generator, list) else [generator]
        return cls(tuple(found), tuple(each.get_state() for each in found))

    def restore(self) -> None:
        """Put them back."""
        for generator, state in zip(self.generators, self.states, strict=True):
            generator.set_state(state)


def blank(output: Any, indices: Collection[int]) -> Any:
    """A pipeline's output with some images black (zero for arrays and latents).

    Args:
        output: The output class of Stable Diffusion or XL, or the tuple of `return_dict=False`.
        indices: Which images.
    """
    if not indices:
        return output
    images = zeroed(output[0], indices)
    if isinstance(output, tuple):
        return (images, *output[1:])
    output.images = images
    return output


def zeroed(images: Any, indices: Collection[int]) -> Any:
    """Pictures, arrays or latents with some of them black or zero."""
    if isinstance(images, list):
        return [_black(each) if i in indices else each for i, each in enumerate(images)]
    images = images.copy() if isinstance(images, np.ndarray) else images.clone()
    images[sorted(indices)] = 0
    return images


def _black(image: Image.Image) -> Image.Image:
    return Image.new(image.mode, image.size)
