"""A network and the safetensors files that it comes from.

What a library loads is compared with the files, value by value: a library that knows other names
than a file holds fills the rest with random numbers, and says so nowhere but in its log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import ModelMixin
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mnemoscope_runtime.errors import ExportError

from .contents import lfs_pointer

__all__ = ["Checkpoint", "canonical", "load_network"]

Network = TypeVar("Network", bound=nn.Module)

_HARMLESS = re.compile(r"(^|\.)position_ids$")  # 0, 1, 2 ... in every checkpoint that has them
_ADAPTER = re.compile(r"(^|[._])(lora|base_layer|lokr|loha|hada|dora|oft|ia3)([._]|$)")
_DTYPES = ("F64", "F32", "F16", "BF16")
# names of one and the same weight, by version of transformers and of diffusers
_RENAMED = (
    (re.compile(r"^text_model\."), ""),
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(layers|embed_tokens|norm)\."), r"model.language_model.\1."),
    (re.compile(r"(attentions\.\d+)\.query\."), r"\1.to_q."),
    (re.compile(r"(attentions\.\d+)\.key\."), r"\1.to_k."),
    (re.compile(r"(attentions\.\d+)\.value\."), r"\1.to_v."),
    (re.compile(r"(attentions\.\d+)\.proj_attn\."), r"\1.to_out.0."),
)
_SHOWN = 4  # keys in a message
_SHAPES = "have other shapes in the files"
_INFINITE = "are NaN or infinite in the files, or in the precision asked for"


def load_network(
    kind: type[Network], folder: Path, *, dtype: torch.dtype, variant: str | None = None
) -> Network:
    """Load a network, and make sure that every weight is the one in its files.

    Args:
        kind: A class of diffusers or transformers.
        folder: Holds its config.json and safetensors.
        dtype: What the weights are converted to.
        variant: Such as "fp16", of model.fp16.safetensors; ignored if the folder has none.

    Raises:
        ExportError: files are missing or hold something else than this network's weights; names
            the folder and the keys.
    """
    is_diffusers = issubclass(kind, ModelMixin)
    stem = "diffusion_pytorch_model" if is_diffusers else "model"
    checkpoint = Checkpoint.find(folder, stem, variant)
    options: dict[str, Any] = {
        "torch_dtype" if is_diffusers else "dtype": dtype,
        "variant": checkpoint.variant,
        "use_safetensors": True,
        "ignore_mismatched_sizes": True,  # they are named below
    }
    loader: Any = kind
    try:
        network: Network = loader.from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError) as error:
        raise ExportError(
            f"{checkpoint.part} cannot be loaded: {error} Save the pipeline again with "
            "`pipeline.save_pretrained(DIR)`."
        ) from error
    checkpoint.check(network)
    return network.eval()


@dataclass(frozen=True)
class Checkpoint:
    """The safetensors files of one network.

    Attributes:
        folder: Where they are.
        variant: Of their names, or None.
        files: The file of every key.
    """

    folder: Path
    variant: str | None
    files: dict[str, Path]

    @property
    def part(self) -> str:
        """The folder's name and its parent's, for messages."""
        return "/".join(self.folder.parts[-2:])

    @classmethod
    def find(cls, folder: Path, stem: str, variant: str | None = None) -> Checkpoint:
        """The files that diffusers and transformers would read, and their keys.

        Raises:
            ExportError: there are none or too many, one cannot be read, or they hold adapters or
                quantised weights.
        """
        where = "/".join(folder.parts[-2:])
        found: list[Path] = []
        for tried in dict.fromkeys([variant, None]):
            dotted = f".{tried}" if tried else ""
            found = [
                path
                for name in (
                    f"{stem}{dotted}.safetensors",
                    f"{stem}.safetensors.index{dotted}.json",
                )
                if (path := folder / name).is_file()
            ]
            if found:
                break
        if not found:
            others = sorted(path.name for path in folder.glob("*") if path.suffix != ".json")
            raise ExportError(
                f"{where} has no {stem}.safetensors"
                + (f", only {_shown(others)}" if others else "")
                + ". Only safetensors are read: save the pipeline with "
                "`pipeline.save_pretrained(DIR)`, or name the variant of the files."
            )
        if len(found) > 1:
            raise ExportError(
                f"{where} has both {found[0].name} and {found[1].name}, and which of them the "
                "pipeline runs is not said. Delete the one that is not meant."
            )
        if (folder / "adapter_config.json").exists():
            raise ExportError(_adapters(where, ["adapter_config.json"]))
        keys = dict(_keys(found[0], where))
        if adapters := [key for key in keys if _ADAPTER.search(key)]:
            raise ExportError(_adapters(where, adapters))
        return cls(folder, tried, keys)

    def check(self, network: nn.Module) -> None:
        """Make sure that every weight of a network is the one in the files, and none is left over.

        Raises:
            ExportError: not so; names the keys.
        """
        found = {what: keys for what, keys in self._differences(network).items() if keys}
        problems = [
            f"{len(keys)} {what} ({_shown(keys, 1 if what == _SHAPES else _SHOWN)})"
            for what, keys in found.items()
        ]
        if found:
            raise ExportError(
                f"The weights of {self.part} are not those of its files: {'; '.join(problems)}. "
                + _remedy(set(found))
            )

    def _differences(self, network: nn.Module) -> dict[str, list[str]]:
        """Keys by what is wrong with them."""
        state = network.state_dict()
        ours = {canonical(key): key for key in state}
        theirs: dict[str, str] = {}
        twice = []
        for key in self.files:
            if theirs.setdefault(canonical(key), key) != key:
                twice.append(key)
        loaded = {state[ours[name]].data_ptr() for name in ours.keys() & theirs.keys()}
        wrong: dict[str, list[str]] = {
            "are in no file": [
                key
                for name, key in ours.items()
                if name not in theirs
                and not _HARMLESS.search(name)
                and (state[key].is_meta or state[key].data_ptr() not in loaded)  # tied weights
            ],
            "are in the files only": [
                key
                for name, key in theirs.items()
                if name not in ours and not _HARMLESS.search(name)
            ],
            "are there under two names": twice,
        }
        shapes, values, infinite = [], [], []
        for key, tensor in self._tensors():
            name = canonical(key)
            if name not in ours or key in twice or _HARMLESS.search(name):
                continue
            weight = state[ours[name]]
            if weight.shape != tensor.shape:
                shapes.append(f"{key} {tuple(tensor.shape)}, not {tuple(weight.shape)}")
            elif not tensor.to(weight.dtype).isfinite().all():
                infinite.append(key)
            elif weight.is_meta or not torch.equal(weight.cpu(), tensor.to(weight.dtype)):
                values.append(key)
        for key, buffer in network.named_buffers():  # in transformers 5 no file holds it
            if _HARMLESS.search(key) and (
                buffer.is_meta
                or not torch.equal(buffer.flatten().cpu(), torch.arange(buffer.numel()))
            ):
                values.append(key)
        return wrong | {
            _SHAPES: shapes,
            _INFINITE: infinite,
            "have other values than in the files": values,
        }

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for path in dict.fromkeys(self.files.values()):
            with safe_open(path, "pt") as file:
                yield from ((key, file.get_tensor(key)) for key in file.keys())  # noqa: SIM118


def _keys(path: Path, where: str) -> Iterator[tuple[str, Path]]:
    """Every key, with the file that holds it, of a file or of the index of several."""
    if path.suffix != ".json":
        for key in _header(path, where):
            yield key, path
        return
    try:
        index: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(
            f"{where}/{path.name} cannot be read: {error!r}. Save the pipeline again."
        ) from error
    if missing := sorted({name for name in index.values() if not (path.parent / name).is_file()}):
        raise ExportError(
            f"{where}/{path.name} lists files that are not there: {_shown(missing)}. Download or "
            "copy the whole folder again."
        )
    for name in sorted(set(index.values())):
        held = set(_header(path.parent / name, where))
        listed = {key for key, file in index.items() if file == name}
        if differ := sorted(held ^ listed):
            raise ExportError(
                f"{where}/{name} does not hold the keys that {path.name} lists for it: "
                f"{_shown(differ)}. Download or copy the whole folder again."
            )
        for key in sorted(held):
            yield key, path.parent / name


def _header(path: Path, where: str) -> Sequence[str]:
    """The keys of one file."""
    try:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
            odd = [
                key
                for key in keys
                if not _HARMLESS.search(key) and file.get_slice(key).get_dtype() not in _DTYPES
            ]
    except (OSError, SafetensorError) as error:
        lfs_pointer(path)
        raise ExportError(
            f"{where}/{path.name} is no safetensors file: {error}. Download or copy it again."
        ) from error
    if odd:
        raise ExportError(
            f"{where}/{path.name} holds weights that are no floating-point numbers of 16 bits or "
            f"more: {_shown(odd)}. Give the model before it was quantised."
        )
    return keys


def canonical(key: str) -> str:
    """The name of a weight, whatever versions of transformers and diffusers call it."""
    for pattern, name in _RENAMED:
        key = pattern.sub(name, key)
    return key


def _adapters(where: str, keys: list[str]) -> str:
    return (
        f"{where} still has adapters in it: {_shown(keys)}. Put them into the weights first: "
        "`pipeline.fuse_lora()`, `pipeline.unload_lora_weights()`, then "
        "`pipeline.save_pretrained(DIR)`."
    )


def _remedy(found: set[str]) -> str:
    """Of what is wrong, by the kinds that there are."""
    if found == {_INFINITE}:
        return (
            "Copy the model again, or load it in float32; if it stays so, it was damaged when it "
            "was trained, merged or converted."
        )
    if _SHAPES in found:
        return (
            "Its config.json describes another network than the files hold: copy both from the "
            "same model."
        )
    libraries = " and ".join(f"{name} {version(name)}" for name in ("transformers", "diffusers"))
    return (
        f"Its config.json may describe another network than the files hold, or {libraries} may "
        "give its weights other names. Save the pipeline again with "
        "`pipeline.save_pretrained(DIR)`, or install the versions in constraints.txt."
    )


def _shown(names: Sequence[str], most: int = _SHOWN) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
