"""How alike two pictures are, as a copy detector sees it.

The papers measure reproduction with SSCD (Pizzi et al., CVPR 2022). Its weights are not ours to
ship: give the TorchScript file that its authors publish, or an ONNX export of it. The embedded
model comes with a stand-in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import BackendUnavailable, InputError, NumericsError

from . import embedded

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SSCD", "CopyDescriptor", "EmbeddedDescriptor", "copy_similarity", "load_descriptor"]

Vectors = NDArray[np.float32]
_BATCH = 16
_SIDE = 320  # of SSCD's "skew_320" preprocessing: the whole picture, squeezed into a square
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CopyDescriptor(Protocol):
    """Pictures to unit vectors whose cosine says how alike they are.

    Attributes:
        name: For results and reports.
        copied_above: A cosine above it counts as a copy.
    """

    name: str
    copied_above: float

    def describe(self, images: Sequence[Image]) -> Vectors:
        """One unit vector for each picture. # [N, D]"""


class SSCD:
    """A descriptor network in TorchScript or ONNX: [B, 3, 320, 320] -> [B, D].

    Preprocessing is SSCD's: squeezed to 320x320, normalised as for ImageNet. Above a cosine of .5
    the papers speak of a copy (Somepalli et al. 2023). The name holds the beginning of the file's
    sha256: cosines of two networks do not compare.
    """

    copied_above = 0.5

    def __init__(self, file: str | Path) -> None:
        """Load a network.

        Args:
            file: `.onnx`, or TorchScript (`.pt`, `.torchscript`, ...), which is a program: load
                it only from where you trust.

        Raises:
            InputError: there is no such file, or it holds no network.
            BackendUnavailable: what runs it is not installed.
        """
        path = Path(file)
        if not path.is_file():
            raise InputError(f"{path} is no file. Give the copy descriptor's TorchScript or ONNX.")
        self.name = f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        self._run = _onnx(path) if path.suffix == ".onnx" else _torchscript(path)

    def describe(self, images: Sequence[Image]) -> Vectors:
        """One unit vector for each picture. # [N, D]"""
        parts = []
        for i in range(0, len(images), _BATCH):
            pixels = _pixels(images[i : i + _BATCH], _SIDE) / 255
            normal = ((pixels - _MEAN) / _STD).astype(np.float32)
            parts.append(self._run(normal.transpose(0, 3, 1, 2)))
        return _unit(np.concatenate(parts))


class EmbeddedDescriptor:
    """A stand-in for SSCD on the embedded model's pictures, for want of weights that may ship.

    Cosine of the VAE's latents less the mean over the memorised pictures. It sees where things are,
    and what colour: a shifted or mirrored copy is none to it, unlike to SSCD.
    """

    name = "embedded-vae"
    copied_above = 0.9

    def __init__(self) -> None:
        """Load the embedded model's VAE.

        Raises:
            BackendUnavailable: PyTorch or diffusers is not installed.
        """
        try:
            import diffusers  # noqa: F401

            from mnemoscope_export import load_vae
        except ImportError as error:
            raise BackendUnavailable(
                f"The stand-in for a copy descriptor needs PyTorch and diffusers: {error}. Install "
                "them with `pip install 'mnemoscope[torch]'`."
            ) from None
        self._vae = load_vae(embedded.MODEL)
        self._size = self._vae.config.sample_size
        self._mean = self._encode(embedded.memorized_pictures()).mean(0)

    def describe(self, images: Sequence[Image]) -> Vectors:
        """One unit vector for each picture. # [N, D]"""
        return _unit(self._encode(images) - self._mean)

    def _encode(self, images: Sequence[Image]) -> Vectors:
        import torch

        parts = []
        for i in range(0, len(images), _BATCH):
            pixels = _pixels(images[i : i + _BATCH], self._size) / 127.5 - 1
            with torch.inference_mode():
                found = self._vae.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2)).latent_dist
            parts.append(found.mean.flatten(1).numpy())
        return np.concatenate(parts)


def load_descriptor(file: str | Path | None = None) -> CopyDescriptor:
    """The copy descriptor of a file, or the embedded model's stand-in.

    Raises:
        InputError: the file cannot be used.
        BackendUnavailable: what runs it is not installed.
    """
    return EmbeddedDescriptor() if file is None else SSCD(file)


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


def _pixels(images: Sequence[Image], side: int) -> Vectors:
    """Pictures squeezed into squares, 0..255. # [N, side, side, 3]"""
    squeezed = [each.convert("RGB").resize((side, side)) for each in images]
    return np.stack([np.asarray(each, np.float32) for each in squeezed])


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise NumericsError(
            "A copy descriptor is NaN, infinite or zero: that says nothing of its picture. Check "
            "that the file holds a descriptor network in float32."
        )
    return np.asarray(vectors / lengths, np.float32)


def _onnx(path: Path) -> Callable[[Vectors], Vectors]:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendUnavailable(
            f"{path} needs ONNX Runtime: {error}. Install it with "
            "`pip install 'mnemoscope[onnxruntime]'`."
        ) from None
    try:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds have no common base
        raise InputError(f"{path} is no ONNX network that can run: {error}") from None
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def _torchscript(path: Path) -> Callable[[Vectors], Vectors]:
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailable(
            f"{path} needs PyTorch: {error}. Install it with `pip install 'mnemoscope[torch]'`, or "
            "give an ONNX export of the descriptor."
        ) from None
    try:
        network = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} is no TorchScript: {error}") from None

    def run(pixels: Vectors) -> Vectors:
        with torch.inference_mode():
            found: Vectors = network(torch.from_numpy(pixels)).numpy()
        return found

    return run
