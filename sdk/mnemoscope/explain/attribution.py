"""How much of a prompt's score each token and each word accounts for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np

from mnemoscope_runtime import BundleError, InputError

from ..detector import Detector
from .words import Group, Reading, edited

if TYPE_CHECKING:
    from mnemoscope_export import Model

__all__ = ["METHODS", "Attribution", "Gradient", "Method", "Occlusion", "load_attribution"]

Method = Literal["gradient", "gradient-output", "occlusion"]
"""How words are weighed."""
METHODS: tuple[Method, ...] = get_args(Method)
"""All ways to weigh words."""


class Attribution(Protocol):
    """A way to tell which tokens matter.

    Attributes:
        method: Its name.
    """

    method: Method

    def scores(
        self,
        detector: Detector,
        reading: Reading,
        groups: Sequence[Group],
        *,
        steps: int,
        noises: int | None,
    ) -> dict[Group, float]:
        """Of tokens taken together; without those that it cannot tell."""


class Occlusion:
    """How far the detector's score drops when a word or a token is dropped from the prompt.

    What remains is scored as a prompt of its own: all in batches on the screening graph, without
    torch, with any detector. A word after the first 75 tokens does not move up: of a prompt longer
    than what the model reads, the end is cut off first.
    """

    method: Method = "occlusion"

    def scores(
        self,
        detector: Detector,
        reading: Reading,
        groups: Sequence[Group],
        *,
        steps: int,
        noises: int | None,
    ) -> dict[Group, float]:
        """In units of the detector's score; start, end, padding and spaces cannot be dropped."""
        without = {
            group: edited(reading.read, {span: ""})
            for group in groups
            if (span := reading.span(group)) is not None and reading.text(group).strip()
        }
        texts = list(dict.fromkeys([reading.read, *without.values()]))
        detections = detector.screen(texts, steps=steps, noises=noises)
        found = {text: each.score for text, each in zip(texts, detections, strict=True)}
        whole = found[reading.read]
        return {group: whole - found[text] for group, text in without.items()}


class Gradient:
    """The norm of the magnitude's gradient by the embeddings of a word's or a token's tokens.

    Mean over noises and steps; see `mnemoscope_export.token_gradients`.
    """

    def __init__(
        self, model: Model, method: Literal["gradient", "gradient-output"] = "gradient"
    ) -> None:
        """Take a model.

        Args:
            model: The one that the bundle was exported from, in float32.
            method: By the text encoder's input, or by its output as in the paper.

        Raises:
            InputError: its text encoders read prompts in tokens of different kinds, or what they
                say has other places than the tokens.
        """
        if len({type(each) for each, _ in model.tokenizers.values()}) > 1:
            raise InputError(
                f"{model.id} is told what several text encoders say, which read a prompt in tokens "
                "of their own, CLIP's and T5's, so that no gradient belongs to a token of both. "
                "Explain it by occlusion."
            )
        if method == "gradient-output" and "template" in model.reading:
            raise InputError(
                f"{model.id} reads prompts in a template and is not told all of it, so that the "
                "text encoder's output has other places than the tokens. Use the method 'gradient'."
            )
        self.method: Method = method
        self._model = model
        self._weights = model.weights_sha256()

    def scores(
        self,
        detector: Detector,
        reading: Reading,
        groups: Sequence[Group],
        *,
        steps: int,
        noises: int | None,
    ) -> dict[Group, float]:
        """In the model's unit per unit of embedding, >= 0.

        Raises:
            BundleError: it was exported from other weights.
            InputError: the detector is not the magnitude.
            NumericsError: a gradient is NaN or infinite.
        """
        import torch

        from mnemoscope_export import token_gradients

        bundle = detector.screener.bundle
        manifest = bundle.manifest
        model = self._model.told_as(manifest.model)
        if why := model.unlike(manifest.model, bundle.path, self._weights):
            raise BundleError(why)
        if detector.statistic.name != "magnitude":
            raise InputError(
                f"The gradient is the magnitude's, not that of {detector.statistic.name!r}. "
                "Explain other detectors by occlusion."
            )
        noises, steps = detector.screener.counts(noises, steps)
        norms = token_gradients(
            model.resized(manifest.noise_bank.shape[2:]),
            torch.from_numpy(reading.ids),
            torch.from_numpy(bundle.noise_bank()[:noises]),
            steps=steps,
            inference_steps=manifest.scheduler.inference_steps,
            guidance=manifest.guidance,
            place="input" if self.method == "gradient" else "output",
        ).numpy()  # [noise, step, L]
        return {
            group: float(np.sqrt(np.square(norms[..., list(group)]).sum(-1)).mean())
            for group in groups
        }


def load_attribution(method: str, model: Model | None = None) -> Attribution:
    """An attribution by name.

    Raises:
        InputError: there is no such method, or a gradient without a model.
    """
    if method not in METHODS:
        raise InputError(f"There is no method {method!r}. Choose one of: {', '.join(METHODS)}.")
    if method == "occlusion":
        return Occlusion()
    if model is None:
        raise InputError(
            f"The method {method!r} differentiates a model. Give it, or use occlusion."
        )
    return Gradient(model, "gradient" if method == "gradient" else "gradient-output")
