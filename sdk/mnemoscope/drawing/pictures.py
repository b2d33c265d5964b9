"""From latents to pictures: the VAE, which no bundle holds. Needs the `torch` extra."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import Prompts, Screener, Tokens
from mnemoscope_runtime.errors import (
    BackendUnavailable,
    BundleError,
    InputError,
    NumericsError,
)
from mnemoscope_runtime.wording import pip_install

from ..shipped import model_at
from .latents import decoded

if TYPE_CHECKING:
    from mnemoscope_export import LoadOptions

__all__ = ["Decoder", "Pictures", "draw"]

Pictures = NDArray[np.uint8]  # [..., H, W, 3]


@dataclass(frozen=True, eq=False)
class Decoder:
    """A model's VAE, in float32.

    Attributes:
        model: Directory or hub id of the model.
        weights_sha256: Of the model's text encoder and network, which tell its own bundles.
        vae: diffusers' module.
    """

    model: str
    weights_sha256: str
    vae: Any

    @classmethod
    def load(cls, model: str | Path | None = None, options: LoadOptions | None = None) -> Decoder:
        """Load the VAE of a model.

        Args:
            model: Directory in diffusers' layout, single-file checkpoint, or hub id; the embedded
                model by default.
            options: How the bundle's model was loaded.

        Raises:
            BackendUnavailable: PyTorch or diffusers is not installed.
            ExportError: there is no such model, or it has no VAE, or none that fits its files.
        """
        try:
            import diffusers  # noqa: F401

            from mnemoscope_export import load_model, load_vae
        except ImportError as error:
            raise BackendUnavailable(
                f"Pictures need PyTorch and diffusers: {error}. Install them with "
                f"{pip_install('torch')}."
            ) from None
        name = model_at(model)
        parts = load_model(name, options=options)
        return cls(name, parts.weights_sha256(), load_vae(name, options))

    def decode(self, latents: NDArray[np.float32]) -> Pictures:
        """What the model shows for latents, one at a time.

        Args:
            latents: # [N, C, h, w]

        Returns:
            # [N, H, W, 3], 0..255

        Raises:
            NumericsError: a picture is NaN or infinite.
        """
        import torch

        found = []
        with torch.inference_mode():
            for each in torch.from_numpy(latents):
                pixels = decoded(self.vae, each[None])[0].numpy()
                if not np.isfinite(pixels).all():
                    raise NumericsError(
                        "A picture is NaN or infinite, which nothing compares with. Export the "
                        "model in float32, or run the bundle on another backend."
                    )
                found.append(np.rint((pixels / 2 + 0.5).clip(0, 1) * 255).astype(np.uint8))
        return np.stack(found).transpose(0, 2, 3, 1)


def draw(
    screener: Screener,
    decoder: Decoder,
    prompts: Prompts,
    *,
    noises: int | None = None,
) -> Pictures:
    """Draw every prompt from the first `noises` noises of the bank: the bundle samples to the end.

    Returns:
        # [prompt, noise, H, W, 3]

    Raises:
        InputError: a prompt or the number of noises cannot be used; there is no prompt.
        BundleError: the bundle was not exported from the decoder's model.
        NumericsError: a picture is NaN or infinite.
    """
    origin = screener.bundle.manifest.model
    if decoder.weights_sha256 != origin.weights_sha256:
        raise BundleError(
            f"{screener.bundle.path} was exported from {origin.id}, whose weights are not those of "
            f"{decoder.model}. Give the model that it was exported from; or the bundle of "
            f"{decoder.model}, which `mnemoscope export {decoder.model} OUT` makes."
        )
    count = len(prompts.ids) if isinstance(prompts, Tokens) else len(prompts)
    if not count:
        raise InputError("There is no prompt to draw. Give at least one.")
    columns, _ = screener.counts(noises)
    rows: list[list[Pictures]] = [[] for _ in range(count)]
    for part in screener.parts(prompts, noises=columns):
        for prediction in screener.walk(part, screener.timesteps):
            last = prediction
        for row, latents in zip(range(count)[part.where[0]], screener.advance(last), strict=True):
            rows[row].extend(decoder.decode(latents))
    return np.stack([np.stack(row) for row in rows])
