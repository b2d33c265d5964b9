"""Models of any family from directories in diffusers' layout, single files, or the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline
from torch import nn

from mnemoscope_runtime.errors import ExportError, InputError, MnemoscopeError
from mnemoscope_runtime.manifest import AdapterRecord

from ..configs import PARTS, check_vae
from ..options import ExportOptions
from .adapters import add_embeddings, fuse_loras
from .base import Model
from .checkpoint import load_network
from .config_files import read_configs, read_index
from .families import family_of
from .hub import HUB_ID, UNREACHED, why_not_there
from .options import LoadOptions
from .single_file import configs_for, load_single_file, load_single_vae

__all__ = ["check_export", "load", "load_model", "load_vae", "local_folder"]

Kind = TypeVar("Kind", bound=Model)

_VAE = {"vae": PARTS["vae"]}
_NEXT = (
    "Give a directory in diffusers' layout with safetensors weights, or a hub id "
    "you have access to."
)


def load_model(
    model: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    options: LoadOptions | None = None,
) -> Model:
    """Load a model of any family from a directory in diffusers' layout, a file, or the hub.

    Only safetensors are read, and no remote code runs. `HF_HUB_OFFLINE=1` keeps it local.

    Args:
        model: Directory, hub id, or a single-file checkpoint (.safetensors) with a directory
            of its family's configs in the options.
        dtype: Of the weights.
        device: Where they go.
        options: Which files are read, what is added to the weights, what the branches are told.

    Raises:
        ExportError: there is no such model, or something in its configs is not covered: all of
            it is named, before any weights are read; or an adapter does not fit it.
        InputError: the network does not take latents of that size, or options do not go together.
        BackendUnavailable: LoRA adapters are asked for, and peft is not installed.
    """
    return load(Model, str(model), dtype, device, options or LoadOptions())  # type: ignore[type-abstract]


def load(
    kind: type[Kind], name: str, dtype: torch.dtype, device: str, options: LoadOptions
) -> Kind:
    """The same, of families whose class is `kind` or below it.

    Raises:
        ExportError: also if it is of another family.
    """
    file, folder, family, model, configs = _configs(name, options)
    if not issubclass(model, kind):
        raise ExportError(
            f"{name} is of the family {family}, which is no {kind.__name__}, and this works with "
            "those alone: docs/families.md says what works with which. In Python `load_model` "
            "loads it."
        )
    model.check(configs, name, str(folder) if file else name, options)
    parts: dict[str, Any] = model.read_tokenizers(folder, configs)
    try:
        parts["scheduler"] = model.read_scheduler(folder)
    except (OSError, ValueError) as error:
        raise ExportError(f"{name} cannot be loaded: {error} {_NEXT}") from error
    if file is None:
        kinds = model.networks_of(configs)
        parts |= _networks(name, folder, dtype, options.variant, kinds)
    else:
        parts |= load_single_file(file, folder, dtype, options.variant, model)
    adapters: tuple[AdapterRecord, ...] = ()
    if options.embeddings or options.loras:
        pipeline = model.assemble(parts)
        adapters = add_embeddings(pipeline, options.embeddings)
        adapters += fuse_loras(pipeline, options.loras)
    for part in parts.values():
        if isinstance(part, nn.Module):
            part.to(device).eval().requires_grad_(False)
    common: dict[str, Any] = {
        "id": Path(name).resolve().name if Path(name).exists() else name,
        "latent_size": options.latent_size,
        "variant": options.variant,
        "adapters": adapters,
        "negative": options.negative,
        "source": (name, options),
    }
    return model(**parts, **common, **model.other_fields(configs, name, options))


def check_export(name: str | Path, how: LoadOptions, options: ExportOptions) -> None:
    """Refuse an export of which configs alone show that it cannot be, before any weights are read.

    Args:
        name: As of `load_model`.
        how: How it would be loaded.
        options: What would be exported.

    Raises:
        ExportError: there is no such model, or something in its configs is not covered.
        InputError: options that it does not take, all of them.
    """
    file, folder, _, model, configs = _configs(str(name), how)
    found: list[MnemoscopeError] = []
    try:
        model.check(configs, str(name), str(folder) if file else str(name), how)
    except MnemoscopeError as error:
        found.append(error)
    found += map(InputError, model.refused(configs, str(name), options))
    if found:
        raise type(found[0])(" ".join(map(str, found)))


def _configs(
    name: str, options: LoadOptions
) -> tuple[Path | None, Path, str, type[Model], dict[str, dict[str, Any]]]:
    """The file of a model in one, where its configs are, its family and class, and the configs."""
    file = Path(name) if Path(name).is_file() else None
    if file is None and options.config is not None:
        raise InputError(
            f"A directory of configs goes with a single-file checkpoint, which {name} is not. "
            "Leave it out."
        )
    folder = (
        local_folder(name, options.variant) if file is None else configs_for(file, options.config)
    )
    family, model = family_of(read_index(folder))
    return file, folder, family, model, read_configs(folder, model.config_files)


def _networks(
    name: str, folder: Path, dtype: torch.dtype, variant: str | None, kinds: Mapping[str, Any]
) -> dict[str, Any]:
    if variant is not None and not list(folder.glob(f"*/*.{variant}.*")):
        others = {path.name.split(".")[1] for path in folder.glob("*/*.*.safetensors")}
        there = f"; there is {', '.join(sorted(others))}" if others else ""
        raise ExportError(
            f"{name} has no files of the variant {variant!r}{there}. Leave it out, or give another."
        )
    return {
        part: load_network(kind, folder / part, dtype=dtype, variant=variant)
        for part, kind in kinds.items()
    }


def load_vae(name: str | Path, options: LoadOptions | None = None) -> Any:
    """The VAE of a model, in float32: of most families an `AutoencoderKL`.

    Args:
        name: Directory in diffusers' layout, single file, or hub id.
        options: Those that the model was loaded with.

    Raises:
        ExportError: there is no such model, or its VAE is missing or not what its files hold.
    """
    options = options or LoadOptions()
    is_file = Path(name).is_file()
    whole = (
        configs_for(Path(name), options.config)
        if is_file
        else local_folder(str(name), options.variant)
    )
    _, model = family_of(read_index(whole))
    config = read_configs(whole, _VAE).get("vae", {})
    kind, folder = model.vae_class, whole / "vae"
    if is_file or folder.is_dir():
        check_vae(config, str(name), kind.__name__, shifts=model.shifts_latents)
    if is_file:
        return load_single_vae(Path(name), whole)
    if not folder.is_dir():
        raise ExportError(
            f"{name} cannot draw: it has no VAE. Save the whole pipeline with "
            "`pipeline.save_pretrained(DIR)`."
        )
    vae = load_network(kind, folder, dtype=torch.float32, variant=options.variant)
    return vae.requires_grad_(False)


def local_folder(name: str, variant: str | None = None) -> Path:
    """The directory of a model; one of the hub is downloaded, if it has not been before.

    Raises:
        ExportError: there is no such model, or it is no pipeline of diffusers.
    """
    folder = Path(name)
    if not folder.exists():
        if not HUB_ID.fullmatch(name):
            raise ExportError(
                f"{name} is no directory, and no hub id (OWNER/NAME) either. Give a directory in "
                "diffusers' layout, or a hub id."
            )
        unused = {"safety_checker": None, "feature_extractor": None}
        try:
            folder = Path(
                DiffusionPipeline.download(name, use_safetensors=True, variant=variant, **unused)
            )
        except UNREACHED as error:
            raise ExportError(why_not_there(name, error)) from error
    if not (folder / "model_index.json").is_file():
        raise ExportError(
            f"{name} has no model_index.json, so it is not a diffusers pipeline. "
            "Save it with `pipeline.save_pretrained(DIR)`."
        )
    return folder
