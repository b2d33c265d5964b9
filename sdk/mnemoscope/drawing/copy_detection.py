"""How alike two pictures are, as a copy detector sees it.

The papers measure reproduction with SSCD (Pizzi et al., CVPR 2022). Its weights are not ours to
ship: "sscd" names those of a package that you install; or give the TorchScript file that its
authors publish, or an ONNX export of it. The embedded model comes with a stand-in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.backends.onnxruntime import import_onnxruntime
from mnemoscope_runtime.errors import BackendUnavailable, InputError, NumericsError
from mnemoscope_runtime.graphs.files import read_graph
from mnemoscope_runtime.graphs.operators import DESCRIPTORS
from mnemoscope_runtime.wording import pip_install

from .. import embedded
from .known_descriptors import KNOWN, descriptor_file
from .latents import encode

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "SSCD",
    "CopyDescriptor",
    "EmbeddedDescriptor",
    "LatentDescriptor",
    "copy_similarity",
    "load_descriptor",
]

Vectors = NDArray[np.float32]
Pixels = NDArray[np.uint8]
_BATCH = 16
_SIDE = 320  # of SSCD's "skew_320" preprocessing: the whole picture, squeezed into a square
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CopyDescriptor(Protocol):
    """Pictures to unit vectors whose cosine says how alike they are.

    Attributes:
        name: For results and reports.
    """

    name: str

    @property
    def copied_above(self) -> float | None:
        """A cosine above it counts as a copy; None if nobody knows one."""

    @property
    def duplicate_above(self) -> float | None:
        """Above it two pictures of a set are one and the same; None if nobody knows.

        It is no lower than `copied_above`: a set has far more pairs than there are drawings.
        """

    def describe(self, images: Sequence[Image]) -> Vectors:
        """One unit vector for each picture. # [N, D]"""


class SSCD:
    """A descriptor network in TorchScript or ONNX: [B, 3, 320, 320] -> [B, D].

    Preprocessing is SSCD's "skew_320": squeezed to 320x320, bilinear, normalised as for ImageNet;
    an ONNX network that takes bytes, [B, 320, 320, 3], normalises by itself. Above a cosine of .5
    the papers speak of a copy (Somepalli et al. 2023); above .75 nine of ten pairs of its
    authors' benchmark are copies. The name holds the beginning of the file's sha256: cosines of two
    networks do not compare.
    """

    def __init__(
        self, file: str | Path, copied_above: float = 0.5, duplicate_above: float = 0.75
    ) -> None:
        """Load a network.

        Args:
            file: `.onnx`, or TorchScript (`.pt`, `.torchscript`, ...), which is a program: load
                it only from where you trust.
            copied_above: A cosine above it counts as a copy.
            duplicate_above: Above it two pictures of a set are one and the same.

        Raises:
            InputError: there is no such file, or it holds no network.
            BackendUnavailable: what runs it is not installed.
        """
        path = Path(file)
        if not path.is_file():
            raise InputError(f"{path} is no file. Give the copy descriptor's TorchScript or ONNX.")
        self.copied_above, self.duplicate_above = copied_above, duplicate_above
        self.name = f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        self._run = _onnx(path) if path.suffix == ".onnx" else _torchscript(path)

    def describe(self, images: Sequence[Image]) -> Vectors:
        """One unit vector for each picture. # [N, D]"""
        parts = []
        for i in range(0, len(images), _BATCH):
            parts.append(self._run(_pixels(images[i : i + _BATCH], _SIDE)))
        return _unit(np.concatenate(parts))


class EmbeddedDescriptor:
    """A stand-in for SSCD on the embedded model's pictures, for want of weights that may ship.

    Cosine of the VAE's latents less the mean over the memorised pictures. It sees where things are,
    and what colour: a shifted or mirrored copy is none to it, unlike to SSCD.
    """

    name = "embedded-vae"
    copied_above = 0.9
    duplicate_above = 0.95

    def __init__(
        self, model: Path = embedded.MODEL, memorized: Sequence[Image] | None = None
    ) -> None:
        """Load the VAE of the embedded model, or of another that its recipe made.

        Args:
            model: In diffusers' layout.
            memorized: Its memorised pictures; by default the embedded model's.

        Raises:
            BackendUnavailable: PyTorch or diffusers is not installed.
        """
        try:
            import diffusers  # noqa: F401

            from mnemoscope_export import load_vae
        except ImportError as error:
            raise BackendUnavailable(
                f"The stand-in for a copy descriptor needs PyTorch and diffusers: {error}. Install "
                f"them with {pip_install('torch')}."
            ) from None
        self._vae = load_vae(model)
        self._side = self._vae.config.sample_size
        pictures = embedded.memorized_pictures() if memorized is None else memorized
        self._mean = encode(self._vae, pictures, self._side).mean(0)

    def describe(self, images: Sequence[Image]) -> Vectors:
        """One unit vector for each picture. # [N, D]"""
        return _unit(encode(self._vae, images, self._side) - self._mean)


class LatentDescriptor:
    """Cosine of the latents of any model's VAE, which nobody has measured a threshold for.

    It sees where things are, and what colour. Two pictures of one ground are alike to it whatever
    else they show, so that a cosine of .9 may be a copy or not.
    """

    name = "vae-latents"
    copied_above = duplicate_above = None

    def __init__(self, vae: Any, side: int) -> None:
        """Take a VAE of diffusers, and how many pixels wide its pictures are."""
        self._vae, self._side = vae, side

    def describe(self, images: Sequence[Image]) -> Vectors:
        """One unit vector for each picture. # [N, D]"""
        return _unit(encode(self._vae, images, self._side))


def load_descriptor(file: str | Path | None = None) -> SSCD | EmbeddedDescriptor:
    """A copy descriptor.

    Args:
        file: A network's, see `SSCD`; or the name of one that is known, "sscd"; by default the
            embedded model's stand-in.

    Raises:
        InputError: the file cannot be used.
        BackendUnavailable: it, or what runs it, is not installed.
    """
    if file is None:
        return EmbeddedDescriptor()
    path = descriptor_file(file)
    if isinstance(file, str) and file in KNOWN:
        return SSCD(path, KNOWN[file].copied_above)
    return SSCD(path)


def copy_similarity(
    descriptor: CopyDescriptor, images: Sequence[Image], references: Sequence[Image]
) -> NDArray[np.float32]:
    """Cosine of every picture with every reference, in -1..1. # [image, reference]

    Raises:
        InputError: there are no pictures.
        NumericsError: a descriptor is NaN or infinite.
    """
    if not images or not references:
        raise InputError("Copy similarity compares pictures. Give at least one on either side.")
    return np.asarray(descriptor.describe(images) @ descriptor.describe(references).T)


def _pixels(images: Sequence[Image], side: int) -> Pixels:
    """Pictures squeezed into squares. # [N, side, side, 3]"""
    from PIL.Image import Resampling

    size, how = (side, side), Resampling.BILINEAR
    squeezed = [each.convert("RGB").resize(size, how) for each in images]
    return np.stack([np.asarray(each, np.uint8) for each in squeezed])


def _normal(pixels: Pixels) -> Vectors:
    """As networks for ImageNet take them. # [N, 3, side, side]"""
    normal = (pixels / np.float32(255) - _MEAN) / _STD
    return np.ascontiguousarray(normal.astype(np.float32).transpose(0, 3, 1, 2))


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise NumericsError(
            "A copy descriptor is NaN, infinite or zero: that says nothing of its picture. Check "
            "that the file holds a descriptor network in float32."
        )
    return np.asarray(vectors / lengths, np.float32)


def _onnx(path: Path) -> Callable[[Pixels], Vectors]:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        read_graph(path, DESCRIPTORS)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds have no common base
        raise InputError(f"{path} is no ONNX network that can run: {error}") from None
    (taken,) = session.get_inputs()[:1]
    normalises = taken.type == "tensor(uint8)"

    def run(pixels: Pixels) -> Vectors:
        given = pixels if normalises else _normal(pixels)
        found: Vectors = session.run(None, {taken.name: given})[0]
        return found

    return run


def _torchscript(path: Path) -> Callable[[Pixels], Vectors]:
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailable(
            f"{path} needs PyTorch: {error}. Install it with {pip_install('torch')}, or "
            "give an ONNX export of the descriptor."
        ) from None
    try:
        network = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} is no TorchScript: {error}") from None

    def run(pixels: Pixels) -> Vectors:
        with torch.inference_mode():
            found: Vectors = network(torch.from_numpy(_normal(pixels))).numpy()
        return found

    return run
