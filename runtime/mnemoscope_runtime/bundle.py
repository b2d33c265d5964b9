"""Opening a bundle: a directory whose every file is verified before anything is loaded."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import IntegrityError, SchemaError
from .graphs.walk import Refused, check_graph
from .manifest import Manifest
from .options import check_options
from .reading import read_file
from .schedulers import is_trained, timesteps
from .signatures import check_signature

__all__ = ["MANIFEST", "Bundle"]

MANIFEST = "manifest.json"
_HUGE = 64 * 2**20  # a manifest above this is not ours


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: The directory.
        manifest: What it holds.
        id: sha256 of `manifest.json`, which in turn holds the sha256 of every file.
        trust: File of the public key that signed it, if it had to be signed.
    """

    path: Path
    manifest: Manifest
    id: str
    _verified: dict[str, bytes] = field(repr=False, compare=False)
    trust: str | Path | None = field(default=None, compare=False)
    _walked: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path, *, trust: str | Path | None = None) -> Bundle:
        """Read the manifest, then read and verify every file it lists.

        Files are kept in memory from the one pass that hashed them, so what runs is what was
        verified; `release` lets go of them.

        Args:
            path: The directory.
            trust: File of a public key: only a bundle that it signed is opened.

        Raises:
            SchemaError: not a bundle, or of another schema version.
            IntegrityError: a file is missing, leads outside, or differs from the manifest.
            SignatureError: it is not signed by the key that is trusted.
            InputError: the key cannot be used.
            BackendUnavailable: cryptography is not installed, and there is a key.
        """
        check_options("a path", bundle=path)
        check_options("a path or None", trust=trust)
        path = Path(path)
        raw = _manifest_bytes(path)
        if trust is not None:
            check_signature(path / MANIFEST, raw, trust)
        manifest = Manifest.from_json(raw, str(path / MANIFEST))
        _check_schedule(path, manifest)
        files = {name: _verified_bytes(path, name, manifest) for name in manifest.files}
        return cls(path, manifest, hashlib.sha256(raw).hexdigest(), files, trust)

    def read(self, name: str) -> bytes:
        """The verified contents of a file of the bundle.

        Those of a graph have been walked through (`graphs.walk`) when they are first read: whoever
        hands them to a library hands it nothing but what graphs may hold.

        Raises:
            IntegrityError: there is no such file, it differs from the manifest, or it is a graph
                that holds something else.
        """
        if name not in self.manifest.files:
            raise IntegrityError(f"{self.path} has no file {name!r}. Export the model again.")
        if name not in self._verified:
            self._verified[name] = _verified_bytes(self.path, name, self.manifest)
        content = self._verified[name]
        if name in self.manifest.graphs.values() and name not in self._walked:
            self._walk(name, content)
            self._walked.add(name)
        return content

    def _walk(self, name: str, content: bytes) -> None:
        sizes = {each: self.manifest.files[each].bytes for each in self.data_files()}
        try:
            if not name.endswith(".onnx"):  # by which libraries choose what parses it
                raise Refused("its name does not end in .onnx")
            check_graph(content, sizes.get)
        except Refused as error:
            raise IntegrityError(
                f"{self.path / name} is no graph that may run: {error}. If the bundle is yours, "
                "export the model again with this version; if not, do not use it."
            ) from None

    def release(self) -> None:
        """Free the memory of the verified files; `read` fetches and verifies them again."""
        self._verified.clear()

    def data_files(self) -> list[str]:
        """The files that hold the weights of the graphs."""
        return [name for name in self.manifest.files if name.endswith(".weights")]

    def noise_bank(self) -> NDArray[np.float32]:
        """The initial noises x_T.

        Returns:
            # [noises, channels, height, width], standard normal
        """
        record = self.manifest.noise_bank
        content = io.BytesIO(self.read(record.file))
        try:
            bank = np.lib.format.read_array(content, allow_pickle=False)
        except Exception as error:  # numpy's errors share no base class
            raise IntegrityError(f"{self.path / record.file} is no noise bank: {error}") from None
        if bank.shape != record.shape or bank.dtype != np.float32 or not np.isfinite(bank).all():
            raise IntegrityError(
                f"{self.path / record.file} holds {bank.dtype} {bank.shape}, the manifest promises "
                f"finite float32 {record.shape}. Export the model again."
            )
        return np.asarray(bank, np.float32)

    def empty_embeds(self) -> tuple[NDArray[np.float32], ...] | None:
        """What the unconditional branch is told, if the bundle holds it.

        Returns:
            One for each of the manifest's `embeddings`, or None. # [1, ...] each
        """
        name = self.manifest.empty
        if name is None:
            return None
        content = io.BytesIO(self.read(name))
        try:
            with zipfile.ZipFile(content) as packed:
                if any(each.compress_type != zipfile.ZIP_STORED for each in packed.infolist()):
                    raise ValueError("it is compressed")  # and could unpack to any size
            with np.load(content, allow_pickle=False) as held:
                found = tuple(np.asarray(held[each]) for each in self.manifest.embeddings)
        except Exception as error:  # numpy's and zipfile's errors share no base class
            raise IntegrityError(f"{self.path / name} holds no embeddings: {error}") from None
        for each in found:
            if each.dtype != np.float32 or each.ndim < 2 or len(each) != 1:
                raise IntegrityError(
                    f"{self.path / name} holds {each.dtype} {each.shape}, not the float32 "
                    "embeddings of one prompt. Export the model again."
                )
            if not np.isfinite(each).all():
                raise IntegrityError(
                    f"{self.path / name} holds NaN or infinity. Export the model again."
                )
        return found


def _manifest_bytes(path: Path) -> bytes:
    file = path / MANIFEST
    try:
        return read_file(file, _HUGE)
    except (FileNotFoundError, NotADirectoryError):
        what = "does not exist" if not path.exists() else f"has no {MANIFEST}"
        raise SchemaError(
            f"{path} {what}, so it is not a bundle. "
            "Write one with `mnemoscope export MODEL OUT`, then give OUT."
        ) from None
    except OSError as error:
        raise SchemaError(
            f"{file} cannot be read: {error.strerror or error}. Export the model again, or check "
            "its permissions."
        ) from None


def _check_schedule(path: Path, manifest: Manifest) -> None:
    """Every timestep must have been trained on, also the one `screen` measures at."""
    schedule, trained = timesteps(manifest.scheduler), manifest.scheduler.num_train_timesteps
    if not all(is_trained(manifest.scheduler, t) for t in (schedule.min(), schedule.max())):
        raise IntegrityError(
            f"{path / MANIFEST} samples timesteps {schedule.max()} to {schedule.min()} of a model "
            f"that has {trained}. Export the model again."
        )
    if not is_trained(manifest.scheduler, manifest.timestep):
        raise IntegrityError(
            f"{path / MANIFEST} screens at timestep {manifest.timestep} of a model that has "
            f"{trained}. Export the model again."
        )


def _verified_bytes(path: Path, name: str, manifest: Manifest) -> bytes:
    file, record = path / name, manifest.files[name]
    again = "Copy the bundle again or export the model again."
    try:
        if not file.is_file():
            raise FileNotFoundError
        if not file.resolve().is_relative_to(path.resolve()):
            raise IntegrityError(
                f"{file} is a link that leads outside the bundle. Copy the bundle with its files."
            )
        size = file.stat().st_size
        if size != record.bytes:
            raise IntegrityError(
                f"{file} has {size} bytes, the manifest promises {record.bytes}. {again}"
            )
        content = read_file(file, record.bytes)
    except FileNotFoundError:
        raise IntegrityError(f"{file} is missing. {again}") from None
    except OSError as error:
        raise IntegrityError(f"{file} cannot be read: {error.strerror or error}. {again}") from None
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise IntegrityError(f"{file} differs from what the manifest promises (sha256). {again}")
    return content
