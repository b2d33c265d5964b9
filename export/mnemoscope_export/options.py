"""What goes into a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

import numpy as np

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.manifest import Follows, Precision
from mnemoscope_runtime.options import check_options

from .oracle import Tolerance

__all__ = ["ExportOptions"]

_LARGEST = 1024  # positions of a latent's side


@dataclass(frozen=True)
class ExportOptions:
    """What goes into a bundle.

    Attributes:
        noises: Size of the noise bank.
        seed: Seed of the noise bank.
        guidance: Scale of classifier-free guidance while sampling, or what a model is told that
            guidance was distilled into; by default what diffusers' pipeline of the family draws
            with, 7.5 for Stable Diffusion.
        inference_steps: Steps of a whole image, as many as are drawn with; likewise, 50 for Stable
            Diffusion.
        timestep: What screening tells the network of its pure noise; by default the first of these
            steps.
        latent_size: Size of the latents, both sides or (H, W); by default the model's own.
        precision: What the graphs compute in; differences and norms are float32 in any case.
            None: float32 for a PyTorch model, and what it is in for an ONNX export.
        overwrite: Replace an existing bundle.
        tolerance: What the parity gate accepts; by default what rounding in `precision` explains.
        budget: Relative error of a magnitude that a backend may have to be chosen by "auto".
        taps: Layers of the network whose features are compared too, by the names of their modules;
            "auto" for the first two blocks of the decoder, None for none.
        tokenizer: Whose CLIPTokenizer the pipeline has that draws: that of transformers 4 or 5.
            None: that of the installed transformers (5) for a PyTorch model; for an ONNX export
            that of 4, which Optimum needs, where its files are there.
        any_length: Let `step` take embeddings of any number of tokens, as long prompts in chunks
            are. GPU engines are built for one number, so such a bundle is for CPUs.
        until: The last of the taps: a graph of its own stops there and leaves out the rest of the
            network.
    """

    noises: int = 4
    seed: int = 0
    guidance: float | None = None
    inference_steps: int | None = None
    timestep: int | None = None
    latent_size: int | tuple[int, int] | None = None
    precision: Precision | None = None
    overwrite: bool = False
    tolerance: Tolerance | None = None
    budget: float = 1e-2
    taps: Sequence[str] | Literal["auto"] | None = None
    until: str | None = None
    tokenizer: Follows | None = None
    any_length: bool = False

    def __post_init__(self) -> None:
        check_options(
            "a whole number",
            noises=self.noises,
            seed=self.seed,
        )
        check_options(
            "a whole number or None", inference_steps=self.inference_steps, timestep=self.timestep
        )
        check_options("a number", budget=self.budget)
        check_options("a number or None", guidance=self.guidance)
        check_options("True or False", overwrite=self.overwrite, any_length=self.any_length)
        if found := [*self._values(), *self._sizes(), *self._layers()]:
            raise InputError(" ".join(found))

    @property
    def latent_sides(self) -> tuple[int, int] | None:
        """(H, W), or None for the model's own."""
        size = self.latent_size
        if size is None:
            return None
        height, width = size if isinstance(size, tuple) else (size, size)
        return int(height), int(width)

    def _values(self) -> Iterator[str]:
        """What is wrong with numbers and names."""
        if self.precision not in (None, *get_args(Precision)):
            yield (
                f"There is no precision {self.precision!r}. Choose one of: "
                f"{', '.join(get_args(Precision))}."
            )
        if self.tokenizer not in (None, *get_args(Follows)):
            yield (
                f"There is no tokenizer {self.tokenizer!r}. Choose one of: "
                f"{', '.join(get_args(Follows))}."
            )
        if not 1 <= self.noises <= 64:
            yield f"A noise bank holds 1 to 64 noises, not {self.noises}."
        if not 0 <= self.seed < 2**63:
            yield f"A seed lies between 0 and 2**63 - 1, {self.seed} does not."
        if self.inference_steps is not None and not 1 <= self.inference_steps <= 999:
            yield f"An image takes 1 to 999 steps, not {self.inference_steps}."
        if not 0 < self.budget < 1:
            yield f"A budget is a relative error between 0 and 1, not {self.budget}."
        if self.guidance is not None and not 0 < self.guidance < np.inf:
            yield f"Guidance must be a finite number above 0, not {self.guidance}."

    def _sizes(self) -> Iterator[str]:
        """What is wrong with the size of latents."""
        size = self.latent_size
        if size is None:
            return
        if not isinstance(size, Integral | tuple) or (isinstance(size, tuple) and len(size) != 2):
            yield (
                f"latent_size is {size!r:.80}, neither a whole number nor two in a tuple. Give "
                "(height, width)."
            )
            return
        for side in size if isinstance(size, tuple) else (size,):
            check_options("a whole number", latent_size=side)
            if not 1 <= side <= _LARGEST:
                yield (
                    f"Latents have 1 to {_LARGEST} positions a side, not {side}: an eighth of the "
                    "picture's pixels."
                )

    def _layers(self) -> Iterator[str]:
        """What is wrong with taps."""
        if self.until is not None:
            check_options("text", until=self.until)
            if self.taps is None:
                yield (
                    f"until is {self.until!r}, but there are no taps. Give some (--taps auto), or "
                    "leave it out."
                )
        if self.taps is None or self.taps == "auto":
            return
        if isinstance(self.taps, str):
            yield f'taps is {self.taps!r}, not a list of layers. Give a list, or "auto".'
            return
        for name in self.taps:
            check_options("text", taps=name)
        if not self.taps:
            yield 'The list of taps is empty. Name layers, or give "auto" or None.'
        if repeated := [name for name in self.taps if list(self.taps).count(name) > 1]:
            yield f"The tap {repeated[0]} is named twice. Name it once."
