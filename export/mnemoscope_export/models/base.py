"""What every family of models offers: all that graphs, references and the gate know of a model."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from diffusers import AutoencoderKL
from diffusers.loaders import TextualInversionLoaderMixin
from torch import Tensor, nn

from mnemoscope_runtime.manifest import AdapterRecord, ModelRecord
from mnemoscope_runtime.schedulers import Scheduler, level
from mnemoscope_runtime.units import PredictionType, Unit, unit_per_output

from ..configs import PARTS
from ..options import GUIDANCE
from .checkpoint import canonical
from .on_bank import FixedNoises, OnBank, shared_copy
from .options import LoadOptions

__all__ = ["Configs", "Embeds", "Model"]

Embeds = tuple[Tensor, ...]
"""What a network is told of prompts: one tensor for each name in `Model.embeddings`."""
Configs = Mapping[str, Mapping[str, Any]]
"""The contents of config files, by part."""


@dataclass(frozen=True)
class Model(ABC):
    """The parts of a text-to-image pipeline that predict.

    A family is a class below this one and a line in `FAMILIES`; docs/families.md shows one. What is
    abstract here is what sets families apart, and the rest is what most of them have in common.

    Attributes:
        id: Directory name or hub id.
        latent_size: (H, W) of the latents; None is what the network was trained on.
        variant: Of the files it was loaded from.
        adapters: What was put into the weights.
        negative: What the unconditional branch is told instead of the empty prompt.
        source: What it was loaded from, and how; None if it was put together in memory.
        embeddings: Names of what `embed` returns, of those that a manifest knows.
        unit: What its magnitudes are measured in.
        encodes_apart: Text encoders are so large that the screening graph is told what they say.
        reading: What the records of its tokenizers say of how prompts are read.
        takes_any_length: The network may be told of more tokens than a tokenizer makes.
        predictor: Name of the field, and of the pipeline's part, that holds what predicts.
        config_files: File of each part's config, below a model's directory.
        networks: Class of each network, by its field; each reads safetensors.
        pipeline_class: diffusers' own.
        unused: Parts of that pipeline that predict nothing, and are left out.
        vae_class: diffusers' class of what makes pictures of its latents.
        shifts_latents: The pipeline adds what the VAE's config says (`shift_factor`) to latents.
    """

    id: str
    latent_size: tuple[int, int] | None = field(default=None, kw_only=True)
    variant: str | None = field(default=None, kw_only=True)
    adapters: tuple[AdapterRecord, ...] = field(default=(), kw_only=True)
    negative: str | None = field(default=None, kw_only=True)
    source: tuple[str, LoadOptions] | None = field(default=None, kw_only=True, repr=False)

    embeddings: ClassVar[tuple[str, ...]] = ("prompt_embeds",)
    unit: ClassVar[Unit] = "eps"
    encodes_apart: ClassVar[bool] = False
    reading: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    takes_any_length: ClassVar[bool] = True
    predictor: ClassVar[str] = "unet"
    config_files: ClassVar[Mapping[str, str]] = PARTS
    networks: ClassVar[Mapping[str, Any]]
    pipeline_class: ClassVar[Any]
    unused: ClassVar[tuple[str, ...]] = ()
    vae_class: ClassVar[Any] = AutoencoderKL
    shifts_latents: ClassVar[bool] = False

    # how it is loaded

    @classmethod
    @abstractmethod
    def check(cls, configs: Configs, model: str, origin: str, options: LoadOptions) -> None:
        """Make sure that a model is covered, before any of its weights are read.

        Args:
            configs: The contents of `config_files`, those that there are, and of
                `model_index.json` by "model_index".
            model: What was asked for.
            origin: Where the configs are.
            options: How it is to be loaded.

        Raises:
            ExportError: all options of its configs that are in the way.
            InputError: it cannot be loaded with these options.
        """

    @classmethod
    @abstractmethod
    def read_tokenizers(cls, folder: Path, configs: Configs) -> dict[str, Any]:
        """The tokenizers below a directory, by their fields.

        Raises:
            ExportError: one is missing or damaged, or another text encoder's.
        """

    @classmethod
    @abstractmethod
    def read_scheduler(cls, folder: Path) -> Any:
        """The noise schedule below a directory."""

    @classmethod
    def other_fields(
        cls,
        configs: Configs,  # noqa: ARG003 - for those who have others
        model: str,  # noqa: ARG003
        options: LoadOptions,  # noqa: ARG003
    ) -> dict[str, Any]:
        """What else the constructor is given; arguments as `check` has them."""
        return {}

    @classmethod
    @abstractmethod
    def assemble(cls, parts: Mapping[str, Any]) -> Any:
        """diffusers' pipeline of the very same networks, tokenizers and schedule.

        There is a VAE in it only if one is among the parts.
        """

    @classmethod
    def networks_of(cls, configs: Configs) -> Mapping[str, Any]:  # noqa: ARG003
        """Class of each network that a pipeline has, by its field: all of `networks`."""
        return cls.networks

    # what it is

    @property
    @abstractmethod
    def family(self) -> str:
        """What manifests call it: "sd1", "sdxl"."""

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents: those the network was trained on, unless resized."""

    @property
    @abstractmethod
    def prediction_type(self) -> PredictionType:
        """What the network predicts."""

    @property
    @abstractmethod
    def tokenizers(self) -> dict[str, tuple[Any, int]]:
        """Each tokenizer by its field, and how many embeddings its text encoder has."""

    @property
    def tokens(self) -> int | None:
        """How many the network is told of, where that is not the first tokenizer's length."""
        return None

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks that there are, by the names of their fields."""
        found = {name: getattr(self, name) for name in self.networks}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def absent(self) -> tuple[str, ...]:
        """Parts of the pipeline that this model has been saved without."""
        return ()

    @property
    def network(self) -> Any:
        """What predicts."""
        return getattr(self, self.predictor)

    def record(self) -> ModelRecord:
        """What the manifest says of it."""
        return ModelRecord(
            id=self.id,
            weights_sha256=self.weights_sha256(),
            family=self.family,
            prediction_type=self.prediction_type,
            variant=self.variant,
            adapters=self.adapters,
            negative=self.negative,
        )

    def difference(self, record: ModelRecord, weights_sha256: str | None = None) -> str | None:
        """What a bundle's model differs in, "whose ... not those"; None if it is this one.

        Args:
            record: The bundle's.
            weights_sha256: This model's, if it is known.
        """
        if record.weights_sha256 != (weights_sha256 or self.weights_sha256()):
            return "whose weights are not those"
        if record.negative != self.negative:
            return f"whose negative prompt, {record.negative!r}, is not that"
        return None

    def weights_sha256(self) -> str:
        """A hash over names, types and values of all weights; the same in any transformers."""
        digest = hashlib.sha256()
        for prefix, module in self.parts.items():
            state = {canonical(name): value for name, value in module.state_dict().items()}
            for name, value in sorted(state.items()):
                digest.update(f"{prefix}.{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    # another one like it

    def to(self, dtype: torch.dtype, *, copy: bool = True) -> Self:
        """The model with weights of another dtype: a copy, or itself changed in place."""
        # nn.Module's own method: diffusers' warns of modules to keep in float32, and has none
        parts: dict[str, Any] = {
            name: nn.Module.to(deepcopy(part) if copy else part, dtype)
            for name, part in self.parts.items()
        }
        return replace(self, **parts)

    def with_network(self, network: Any) -> Self:
        """The same with something else that predicts."""
        changed: dict[str, Any] = {self.predictor: network}
        return replace(self, **changed)

    def resized(self, size: tuple[int, int]) -> Self:
        """The model (weights shared) on latents of another height and width.

        Raises:
            InputError: the network does not take them.
        """
        return replace(self, latent_size=size)

    def traceable(self) -> Self:
        """The model for a graph to own: its network a module of its own, weights shared.

        A family leaves out what cannot be exported for any batch size.
        """
        return self.with_network(shared_copy(self.network))

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

    def guided(self, guidance: float | None) -> tuple[Self, float]:
        """The model as it is sampled, and the scale of classifier-free guidance.

        Args:
            guidance: What was asked for; None for the family's own.
        """
        return self, GUIDANCE if guidance is None else guidance

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
