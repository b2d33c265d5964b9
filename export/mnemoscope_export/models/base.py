"""What every family of models offers: all that graphs, references and the gate know of a model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from torch import Tensor, nn

from mnemoscope_runtime.families import family_named
from mnemoscope_runtime.schedulers import Scheduler, level
from mnemoscope_runtime.units import Unit, unit_per_output

from ..options import ExportOptions
from .on_bank import FixedNoises, OnBank
from .parts import Configs, Parts

__all__ = ["Configs", "Embeds", "Model"]

Embeds = tuple[Tensor, ...]
"""What a network is told of prompts: one tensor for each name in `Model.embeddings`."""


@dataclass(frozen=True)
class Model(Parts):
    """A text-to-image model: its parts, what they are told and what they predict.

    A family is a class below this one and a line in `FAMILIES`; docs/families.md shows one. What is
    abstract here is what sets families apart, and the rest is what most of them have in common.

    Attributes:
        embeddings: Names of what `embed` returns, of those that a manifest knows.
        unit: What its magnitudes are measured in.
        encodes_apart: Text encoders are so large that the screening graph is told what they say.
        reading: What the records of its tokenizers say of how prompts are read.
        takes_any_length: The network may be told of more tokens than a tokenizer makes.
        shifts_latents: The pipeline adds what the VAE's config says (`shift_factor`) to latents.
    """

    embeddings: ClassVar[tuple[str, ...]] = ("prompt_embeds",)
    unit: ClassVar[Unit] = "eps"
    encodes_apart: ClassVar[bool] = False
    reading: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    takes_any_length: ClassVar[bool] = True
    shifts_latents: ClassVar[bool] = False

    @classmethod
    def refused(
        cls,
        configs: Configs,  # noqa: ARG003 - for those who look at them
        model: str,
        options: ExportOptions,
    ) -> list[str]:
        """Options of an export that no model with these configs takes, and what to do instead.

        Args:
            configs: As of `check`.
            model: What was asked for.
            options: What was asked of it.
        """
        if options.any_length and not cls.takes_any_length:
            return [
                f"The network of {model} is told of as many tokens as it was trained with, and of "
                "no other number. Leave any_length (--any-length) out."
            ]
        return []

    # what it is told

    @abstractmethod
    def encode(self, input_ids: Tensor) -> Embeds:
        """Embed token ids.

        Args:
            input_ids: Of `tokenize`. # [B, L]

        Returns:
            What the network is told, in the order of `embeddings`.
        """

    @staticmethod
    def written_out(prompts: Sequence[str], tokenizer: Any) -> list[str]:
        """Prompts with each trigger of several vectors written out, as diffusers' pipelines do."""
        return list(TextualInversionLoaderMixin().maybe_convert_prompt(list(prompts), tokenizer))

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """What `encode` takes, as diffusers' pipeline tokenizes.

        Returns:
            The ids of each tokenizer side by side. # [B, L] for one
        """
        found = []
        for tokenizer, _ in self.tokenizers.values():
            ids = tokenizer(
                self.written_out(prompts, tokenizer),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            found.append(ids)
        return torch.cat(found, dim=1)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Embeds:
        """`tokenize` and `encode`."""
        return self.encode(self.tokenize(prompts).to(self.network.device))

    def embed_empty(self) -> Embeds:
        """What the unconditional branch is told: the empty or negative prompt. # ([1, L, D],)"""
        return self.embed([self.negative or ""])

    @property
    def zero_empty(self) -> bool:
        """The unconditional branch gets zeros, not the embedded empty prompt."""
        return False

    @property
    def own_empty(self) -> bool:
        """What the unconditional branch is told is not what the empty prompt is embedded as."""
        return not self.zero_empty and bool(self.negative)

    # what it predicts

    @property
    def usual_steps(self) -> int:
        """In how many steps diffusers' pipeline of the family draws unless told otherwise."""
        return family_named(self.family).steps

    @property
    def usual_guidance(self) -> float | None:
        """With which guidance it does; None if it takes none."""
        return family_named(self.family).guidance

    def guided(self, guidance: float | None) -> tuple[Self, float]:
        """The model as it is sampled, and the scale of classifier-free guidance.

        Args:
            guidance: What was asked for; None for the family's own.
        """
        return self, family_named(self.family).guidance if guidance is None else guidance

    @property
    def keeps_length(self) -> int | None:
        """Patches, by their side, whose velocity guidance leaves as long as for the prompt."""
        return None

    def guide(self, uncond: Tensor, cond: Tensor, guidance: float | Tensor) -> Tensor:
        """Classifier-free guidance of outputs. # [B, C, H, W]"""
        return uncond + guidance * (cond - uncond)

    @abstractmethod
    def scheduler_record(self, inference_steps: int = 50) -> Scheduler:
        """The schedule in the manifest's terms.

        Raises:
            ExportError: the schedule is one that the runtime does not reproduce.
        """

    @abstractmethod
    def sampler(self, schedule: Any = None) -> Any:
        """A fresh sampler of diffusers over the model's schedule, or over that of another one."""

    def started(self, inference_steps: int) -> Any:
        """A fresh sampler with the timesteps of a whole image."""
        sampler = self.sampler()
        sampler.set_timesteps(inference_steps)
        return sampler

    @abstractmethod
    def predict(self, latents: Tensor, timestep: Tensor | float, embeds: Embeds) -> Tensor:
        """The network's output, whatever it predicts; see `in_unit`.

        Args:
            latents: x_t. # [B, C, H, W]
            timestep: t
            embeds: Of `encode`. # [B, ...] each

        Returns:
            # [B, C, H, W]
        """

    @abstractmethod
    def converter(self) -> nn.Module:
        """What graphs convert with: (output, x_t, t as a tensor) to the unit, fp32."""

    @abstractmethod
    def in_unit(self, prediction: Tensor, latents: Tensor, timestep: Tensor | float) -> Tensor:
        """The network's output in the family's unit, fp32. # [B, C, H, W]"""

    def predict_in_unit(self, latents: Tensor, timestep: Tensor | float, embeds: Embeds) -> Tensor:
        """`predict`, in the family's unit. # [B, C, H, W], fp32"""
        return self.in_unit(self.predict(latents, timestep, embeds), latents, timestep)

    def unit_per_output(self, timestep: float) -> float:
        """What the distance of two outputs for the same x_t is multiplied by to be in the unit."""
        at = level(self.scheduler_record(1), timestep)
        return unit_per_output(self.prediction_type, self.unit, at)

    def on_bank(self, noises: Tensor, timestep: int) -> OnBank:
        """The network at one timestep on a bank of noises, for the screening graph.

        A family computes here what no prompt changes, as far as it can; this one nothing.

        Args:
            noises: # [n, C, H, W]
            timestep: t
        """
        plain = self.traceable()
        return FixedNoises(self.predictor, plain.network, plain.predict, noises, timestep)

    def tappable(self) -> list[str]:
        """Layers of the network that can be tapped, in the order in which they run.

        Their features (`feature`) depend on the prompt.
        """
        return []

    def auto_taps(self) -> list[str]:
        """Those of `tappable` that are taken unless others are named."""
        return []

    def feature(self, output: Any) -> Tensor:
        """What is compared of the output of a tapped layer: of several tensors the first.

        # [B, C, ...]
        """
        found: Tensor = output[0] if isinstance(output, tuple) else output
        return found

    # what diffusers' own pipeline is asked, when it is compared with the model

    @property
    def draws_alike(self) -> bool:
        """The pipeline draws from latents and prompts alone, so that steps can be compared."""
        return True

    def assembled(self, vae: Any = None) -> Any:
        """The pipeline of its own parts, which draws pictures if it has a VAE."""
        tokenizers = {name: tokenizer for name, (tokenizer, _) in self.tokenizers.items()}
        own = {**self.parts, **tokenizers, "scheduler": self.sampler()}
        return self.assemble(own if vae is None else {**own, "vae": vae})

    def told_by(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Embeds:
        """What a pipeline tells its network of prompts, or for None without; see `embed`.

        Args:
            pipeline: Of `pipeline_class`.
            prompts: The prompts.
            options: What else of its `encode_prompt` is not its default.
        """
        texts = list(prompts or [""])
        found = pipeline.encode_prompt(
            prompt=texts,
            device=self.network.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=None if self.negative is None else [self.negative] * len(texts),
            **options,
        )  # conditional and unconditional by turns
        return tuple(found[0::2] if prompts else found[1::2])

    def call_options(self, told: Embeds, empty: Embeds, size: tuple[int, int]) -> dict[str, Any]:
        """What a pipeline is called with to draw from latents.

        Args:
            told: Of the prompts. # [B, ...] each
            empty: Of the unconditional branch, likewise.
            size: (H, W) of the picture that the pipeline's VAE makes of the latents.
        """
        height, width = (-(-side // 8) * 8 for side in size)  # of nothing: latents are given
        return {
            "prompt_embeds": told[0],
            "negative_prompt_embeds": empty[0],
            "height": height,
            "width": width,
        }

    def guidance_option(self) -> str:
        """What a pipeline calls the scale of guidance between the two branches."""
        return "guidance_scale"

    def both(self, outputs: Sequence[Tensor]) -> Tensor:
        """Both predictions of a step, of what a pipeline's network returned by turns.

        Args:
            outputs: Of each call.

        Returns:
            Without and with the prompts, as of `predict`. # [2 B, C, H, W]
        """
        [output] = outputs
        return output

    def packed(self, latents: Tensor) -> Tensor:
        """Latents as a pipeline hands them on. # [B, C, H, W] -> [B, ...]"""
        return latents

    def unpacked(self, latents: Tensor) -> Tensor:
        """Those of a pipeline as they are here. # [B, ...] -> [B, C, H, W]"""
        return latents
