"""Engine files: what one was built from, with and for is checked before its bytes are looked at.

An engine is two files: the engine, and beside it a JSON sidecar with its key and sha256. It is
loaded only where every field of the key is as it was; otherwise the error says which differ, and
the command that builds it again. The driver is recorded too, but a changed one only warns.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ..backends.tiles import Profile
from ..errors import BackendError, IntegrityError
from ..gpu import Gpu
from ..manifest import FileRecord
from .products import needs_target, version_of

__all__ = [
    "ENGINES",
    "VERSION_COMPATIBLE",
    "EngineKey",
    "EngineWarning",
    "differences",
    "find_engine",
    "keys",
    "read_engine",
    "replace_file",
    "write_engine",
]

ENGINES = "engines"  # the folder in a bundle
VERSION_COMPATIBLE = "version-compatible"  # a flag: newer versions of the library run it too
_SCHEMA, _KIND = 2, "mnemoscope-engine"


class EngineWarning(UserWarning):
    """An engine runs, but not in the surroundings that it was built in."""


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        version: Of the library that built it.
        cuda: Major version of the CUDA which that library was built for; None if it does not say.
        bundle: Id of the bundle.
        graph: "screen", "step" or "text_encoder".
        graph_sha256: Of the ONNX file.
        weights_sha256: Of the files with its weights.
        precision: Of the graph.
        profiles: The sizes of call that it takes.
        platform: Operating system and architecture.
        gpu: Name of the device that it was built on and for; "any" of its compute capabilities.
        sm: Compute capabilities that it runs on; none: the library's default, which checks itself.
        flags: Options of the builder.
    """

    backend: str
    version: str
    cuda: int | None
    bundle: str
    graph: str
    graph_sha256: str
    weights_sha256: tuple[str, ...]
    precision: str
    profiles: Annotated[tuple[Profile, ...], msgspec.Meta(min_length=1)]
    platform: str
    gpu: str
    sm: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def to_run(self, built: EngineKey, device: Gpu | None) -> EngineKey:
        """What the key of an engine that was built must be for it to run on a GPU.

        `self` is the key of what would be built here. What the builder chose is free, and an
        engine of TensorRT for RTX must have been built for the GPU's compute capability.

        Args:
            built: The engine's.
            device: None asks nothing of the GPU.
        """
        gpu, sm = built.gpu, built.sm
        if device is not None and self.backend == "tensorrt":
            gpu, sm = device.name, (device.sm,)
        elif device is not None:
            runs = device.sm in sm if sm else not needs_target(self.backend, device.sm)
            sm = sm if runs else (device.sm,)
        version = self.version
        if VERSION_COMPATIBLE in built.flags:
            there, here = version_of(built.version), version_of(version)
            version = built.version if there[0] == here[0] and there <= here else version
        return replace(
            self, profiles=built.profiles, flags=built.flags, gpu=gpu, sm=sm, version=version
        )

    @property
    def name(self) -> str:
        """File name of the engine."""
        sizes = "+".join(map(str, self.profiles))
        return f"{self.backend}.{self.graph}.{self.precision}.{sizes}.engine"

    @property
    def most(self) -> int:
        """UNet samples in its largest call."""
        return max(profile.most for profile in self.profiles)

    @property
    def command(self) -> str:
        """What builds it."""
        sizes = (
            f"--profile {','.join(map(str, self.profiles))}"
            if all(profile.is_static for profile in self.profiles)
            else f"--batch {max(profile.prompts[1] for profile in self.profiles)}"
        )
        targets = self.sm if self.backend == "tensorrt-rtx" else ()
        words = ["mnemoscope build BUNDLE --backend", self.backend, sizes]
        return f"`{' '.join([*words, *(f'--target {target}' for target in targets)])}`"


@dataclass(frozen=True)
class _Sidecar:
    schema: int
    kind: str
    key: EngineKey
    driver: str | None
    file: FileRecord


def write_engine(folder: Path, key: EngineKey, engine: bytes, driver: str | None = None) -> Path:
    """Write an engine, then its sidecar, each whole or not at all.

    After a crash between the two, `read_engine` refuses the engine and the next build replaces it.

    Raises:
        BackendError: the folder cannot be written.
    """
    record = FileRecord(hashlib.sha256(engine).hexdigest(), len(engine))
    sidecar = _Sidecar(_SCHEMA, _KIND, key, driver, record)
    path = folder / key.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, engine)
        replace_file(_sidecar(path), msgspec.json.format(msgspec.json.encode(sidecar)))
    except OSError as error:
        raise BackendError(
            f"{path} cannot be written: {error}. Free some space, or choose another folder with "
            "--engines."
        ) from error
    return path


def read_engine(folder: Path, key: EngineKey) -> bytes:
    """The verified bytes of the engine with that key.

    Raises:
        BackendError: there is none, or it was built from, with or for something else.
        IntegrityError: the sidecar is damaged, or the engine differs from what it promises.
    """
    path = folder / key.name
    try:
        text = _sidecar(path).read_bytes()
    except FileNotFoundError:
        raise BackendError(f"There is no engine {path}. {key.command} builds it.") from None
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error}. Check its permissions.") from None
    return _verified(path, _decode(text, _sidecar(path)), key)


def find_engine(
    folder: Path,
    wanted: EngineKey,
    here: Callable[[EngineKey], EngineKey],
    driver: str | None = None,
) -> tuple[EngineKey, bytes]:
    """The engine for a graph that takes the largest calls of those that fit.

    Args:
        folder: Where engines are.
        wanted: Its backend, graph and precision choose the files; the rest is for the error.
        here: What the key of a file would have to be for the engine to run here.
        driver: The driver here.

    Returns:
        The engine's key and verified bytes.

    Raises:
        BackendError: there is none, or what there is was built from, with or for something else.
        IntegrityError: a file is damaged.
    """
    problems: list[Exception] = []
    found = []
    for path, sidecar in _sidecars(folder, f"{wanted.backend}.{wanted.graph}.{wanted.precision}."):
        if isinstance(sidecar, Exception):
            problems.append(sidecar)
        else:
            found.append((path, sidecar))
    for path, sidecar in sorted(found, key=lambda item: -item[1].key.most):
        try:
            engine = _verified(path, sidecar, here(sidecar.key))
        except (BackendError, IntegrityError) as error:
            problems.append(error)
            continue
        if driver is not None and sidecar.driver is not None and driver != sidecar.driver:
            warnings.warn(
                f"{path} was built with driver {sidecar.driver}, here it is {driver}: it runs, but "
                f"may not be the fastest. {sidecar.key.command} builds it again.",
                EngineWarning,
                stacklevel=2,
            )
        return sidecar.key, engine
    if problems:
        raise problems[-1]
    raise BackendError(
        f"There is no engine for {wanted.graph} in {folder}. {wanted.command} builds one; "
        "screening never builds."
    )


def keys(folder: Path) -> Iterator[tuple[Path, EngineKey | Exception]]:
    """Every engine of a folder with its key, or what is wrong with its sidecar."""
    for path, sidecar in _sidecars(folder, ""):
        yield path, sidecar if isinstance(sidecar, Exception) else sidecar.key


def differences(found: EngineKey, expected: EngineKey) -> list[str]:
    """The fields in which two keys differ, in words."""
    names = (field.name for field in fields(EngineKey))
    pairs = ((name, getattr(found, name), getattr(expected, name)) for name in names)
    return [
        f"{name} is {_short(there)}, here it is {_short(here)}"
        for name, there, here in pairs
        if there != here
    ]


def _sidecars(folder: Path, prefix: str) -> Iterator[tuple[Path, _Sidecar | Exception]]:
    for file in sorted(folder.glob("*.engine.json")) if folder.is_dir() else []:
        if not file.name.startswith(prefix) or file.name.startswith("."):
            continue
        path = file.with_name(file.name.removesuffix(".json"))
        try:
            yield path, _decode(file.read_bytes(), file)
        except (IntegrityError, OSError) as error:
            yield path, error


def _verified(path: Path, sidecar: _Sidecar, expected: EngineKey) -> bytes:
    again = f"{expected.command} builds it again."
    if different := differences(sidecar.key, expected):
        raise BackendError(f"{path} does not fit: {'; '.join(different)}. {again}")
    try:
        engine = path.read_bytes()
    except FileNotFoundError:
        raise BackendError(f"There is no engine {path}, but its sidecar. {again}") from None
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error}. Check its permissions.") from None
    if (hashlib.sha256(engine).hexdigest(), len(engine)) != (
        sidecar.file.sha256,
        sidecar.file.bytes,
    ):
        raise IntegrityError(f"{path} differs from what its sidecar promises (sha256). {again}")
    return engine


def _decode(text: bytes, path: Path) -> _Sidecar:
    try:
        head = msgspec.json.decode(text, type=dict[str, Any])
        if (head.get("kind"), head.get("schema")) == (_KIND, _SCHEMA):
            return msgspec.json.decode(text, type=_Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{path} is damaged: {error}. Build the engine again.") from None
    raise IntegrityError(f"{path} is no sidecar of this version. Build the engine again.")


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def replace_file(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, then rename.

    Raises:
        OSError: it cannot be written; `path` is as it was.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would hide it from whoever serves it
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
