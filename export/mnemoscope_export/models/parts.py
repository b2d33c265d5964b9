"""What a model is made of: how its parts are loaded, and what manifests say of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import AutoencoderKL
from torch import nn

from mnemoscope_runtime.manifest import AdapterRecord, ModelRecord
from mnemoscope_runtime.units import PredictionType

from ..configs import PARTS
from .checkpoint import canonical
from .on_bank import shared_copy
from .options import LoadOptions

__all__ = ["Configs", "Parts"]

Configs = Mapping[str, Mapping[str, Any]]
"""The contents of config files, by part."""


@dataclass(frozen=True)
class Parts(ABC):
    """The parts of a text-to-image pipeline that predict. A `Model` is what they do.

    Attributes:
        id: Directory name or hub id.
        latent_size: (H, W) of the latents; None is what the network was trained on.
        variant: Of the files it was loaded from.
        adapters: What was put into the weights.
        negative: What the unconditional branch is told instead of the empty prompt.
        source: What it was loaded from, and how; None if it was put together in memory.
        predictor: Name of the field, and of the pipeline's part, that holds what predicts.
        config_files: File of each part's config, below a model's directory.
        networks: Class of each network, by its field; each reads safetensors.
        pipeline_class: diffusers' own.
        unused: Parts of that pipeline that predict nothing, and are left out.
        vae_class: diffusers' class of what makes pictures of its latents.
    """

    id: str
    latent_size: tuple[int, int] | None = field(default=None, kw_only=True)
    variant: str | None = field(default=None, kw_only=True)
    adapters: tuple[AdapterRecord, ...] = field(default=(), kw_only=True)
    negative: str | None = field(default=None, kw_only=True)
    source: tuple[str, LoadOptions] | None = field(default=None, kw_only=True, repr=False)

    predictor: ClassVar[str] = "unet"
    config_files: ClassVar[Mapping[str, str]] = PARTS
    networks: ClassVar[Mapping[str, Any]]
    pipeline_class: ClassVar[Any]
    unused: ClassVar[tuple[str, ...]] = ()
    vae_class: ClassVar[Any] = AutoencoderKL

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

    def unlike(
        self, record: ModelRecord, bundle: str | Path, weights_sha256: str | None = None
    ) -> str | None:
        """Why a bundle is not of this model, and what makes one that is; None if it is of it.

        Args:
            record: The bundle's.
            bundle: Its directory.
            weights_sha256: This model's, if it is known.
        """
        found = self.difference(record, weights_sha256)
        if found is None:
            return None
        own = self.id if self.source is None else self.source[0]
        return (
            f"{bundle} was exported from {record.id}, {found} of {own}. Give the model that it was "
            f"exported from, loaded as it was then; or the bundle of {own}, which `mnemoscope "
            f"export {own} OUT` makes, with the options that it is loaded with."
        )

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

    def told_as(self, record: ModelRecord) -> Self:  # noqa: ARG002  of families that are told more
        """The model (weights shared), told what a bundle's is besides its prompts."""
        return self

    def traceable(self) -> Self:
        """The model for a graph to own: its network a module of its own, weights shared.

        A family leaves out what cannot be exported for any batch size.
        """
        return self.with_network(shared_copy(self.network))
