"""A model and a copy descriptor: what draws captions, and says what pictures are like."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import BundleError, CalibrationError, MnemoscopeError
from mnemoscope_runtime.manifest import ModelRecord

from ... import embedded
from ...drawing.copy_detection import CopyDescriptor, LatentDescriptor, load_descriptor
from ...drawing.generate import require_torch
from ...shipped import model_at

if TYPE_CHECKING:
    from PIL.Image import Image

    from mnemoscope_export import LoadOptions

    from ...mitigate import Painter

__all__ = ["Artist", "Halves", "Opens", "as_halves", "opened_as"]

Halves = NDArray[np.float16]
_AT_ONCE = 2**15  # numbers of latents: 32 drawings of the embedded model, 2 of Stable Diffusion


@dataclass(frozen=True, eq=False)
class Artist:
    """What draws, and what compares.

    Attributes:
        painter: The model.
        descriptor: What pictures are compared by.
        steps: Steps of a drawing.
        guidance: See `Sampling`.
    """

    painter: Painter
    descriptor: CopyDescriptor
    steps: int = 50
    guidance: float | None = 7.5

    @classmethod
    def load(
        cls,
        model: str | None = None,
        *,
        descriptor: str | None = None,
        options: LoadOptions | None = None,
        device: str = "cpu",
        steps: int | None = None,
        guidance: float | None = None,
        tell: Callable[[str], None] = warnings.warn,
    ) -> Self:
        """Load both.

        Args:
            model: Directory in diffusers' layout, single-file checkpoint, or hub id; the embedded
                model by default.
            descriptor: A name or a file, see `load_descriptor`. By default the embedded model has
                its stand-in, and another SSCD if it is installed, else the latents of its own VAE:
                then likenesses are told, and nothing is confirmed.
            options: How the model is loaded.
            device: What PyTorch runs on.
            steps: Steps of a drawing; None for as many as diffusers' pipeline of the family takes.
            guidance: See `Sampling`; None likewise.
            tell: Told what the user should know.

        Raises:
            BackendUnavailable: PyTorch or diffusers, or what a descriptor needs, is not installed.
            ExportError: there is no such model, or a part of it is missing.
            InputError: the descriptor or a number cannot be used.
        """
        require_torch()
        from ...mitigate import Painter, Sampling

        if steps is not None:
            Sampling(steps, guidance)  # before anything is loaded
        painter = Painter.load(model, device=device, options=options)
        drawing, _ = painter.model.guided(guidance)
        painter, sampling = replace(painter, model=drawing), painter.sampling(steps, guidance)
        found: CopyDescriptor
        if descriptor is not None or model_at(model) == str(embedded.MODEL):
            found = load_descriptor(descriptor)
        else:
            found = _of_another(painter, tell)
        return cls(painter, found, sampling.steps, sampling.guidance)

    def identity(self) -> str:
        """What drawings and descriptions depend on, as a sha256."""
        told = f"{self.painter.model.weights_sha256()} {self.painter.model.negative!r} "
        told += f"{self.descriptor.name} {self.steps} {self.guidance}"
        digest = hashlib.sha256(told.encode())
        for name, value in sorted(self.painter.vae.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
        return digest.hexdigest()

    def require(self, record: ModelRecord) -> None:
        """Raise BundleError unless a bundle was exported from this very model."""
        if why := self.painter.model.told_as(record).unlike(record, "The bundle"):
            raise BundleError(why)

    def describe(self, images: Sequence[Image]) -> Halves:
        """Unit vectors of pictures as they are, and as the model's VAE renders them. # [N, 2, D]

        A VAE that blurs makes another picture even of a perfect copy, to SSCD at least.
        """
        both = [self.descriptor.describe(images)]
        both.append(self.descriptor.describe(self.painter.rendered(images)))
        return as_halves(np.stack(both, 1))

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[list[Image]]:
        """Each prompt from each seed, as diffusers' pipeline draws it with a generator of that."""
        from ...mitigate import Sampling
        from ...mitigate.sampling import sample

        sampling = Sampling(self.steps, self.guidance)
        pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
        size = max(1, _AT_ONCE // int(np.prod(self.painter.model.latent_shape)))
        images: list[Image] = []
        for first in range(0, len(pairs), size):
            some, numbers = zip(*pairs[first : first + size], strict=True)
            task = self.painter.task(some, numbers, sampling)
            images += self.painter.pictures(sample(task.plan(), sampling).latents)
        return [images[i : i + len(seeds)] for i in range(0, len(images), len(seeds))]


Opens = Callable[[], Artist]


def as_halves(vectors: NDArray[np.float32]) -> Halves:
    """Vectors in float16, which changes a cosine by less than 1e-3."""
    return vectors.astype(np.float16)


@contextmanager
def opened_as(opens: Opens, identity: str) -> Iterator[Artist]:
    """What draws, in whatever process.

    Raises:
        CalibrationError: it is not what was asked for.
    """
    artist = opens()
    found = artist.identity()
    if found != identity:
        raise CalibrationError(
            f"The model, its VAE or the copy descriptor here is another one ({found[:12]}) than "
            f"where the audit was started ({identity[:12]}). Give every node the same files."
        )
    yield artist


def _of_another(painter: Painter, tell: Callable[[str], None]) -> CopyDescriptor:
    """SSCD if it is installed, else the model's own VAE."""
    try:
        return load_descriptor("sscd")
    except MnemoscopeError as error:
        tell(
            "pictures are compared in the latents of the model's VAE alone, for which no threshold "
            f"is known, so that nothing is confirmed: {error}"
        )
    return LatentDescriptor(painter.vae, painter.side)
