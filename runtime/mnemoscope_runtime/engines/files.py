"""Engine files: what one was built from, with and for is checked before its bytes are looked at.

An engine is two files: the engine, and beside it a JSON sidecar with its key and sha256. It is
loaded only where every field of the key is as it was; otherwise the error says which differ, and
the command that builds it again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..errors import BackendError, IntegrityError
from ..manifest import FileRecord

__all__ = ["EngineKey", "read_engine", "write_engine"]

_SCHEMA, _KIND = 1, "mnemoscope-engine"


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on.

    Attributes:
        backend: "tensorrt-rtx"
        version: Of the library that built it.
        bundle: Id of the bundle.
        graph: "screen", "step" or "text_encoder".
        graph_sha256: Of the ONNX file.
        weights_sha256: Of the files with its weights.
        precision: Of the graph.
        batch: Largest number of prompts in one call.
        platform: Operating system and architecture.
        gpu: Which GPUs it runs on: compute capabilities, or one device's name.
        flags: Options of the builder.
    """

    backend: str
    version: str
    bundle: str
    graph: str
    graph_sha256: str
    weights_sha256: tuple[str, ...]
    precision: str
    batch: int
    platform: str
    gpu: str
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name of the engine."""
        return f"{self.backend}.{self.graph}.{self.precision}.batch{self.batch}.engine"


@dataclass(frozen=True)
class _Sidecar:
    schema: int
    kind: str
    key: EngineKey
    file: FileRecord


def write_engine(folder: Path, key: EngineKey, engine: bytes) -> Path:
    """Write an engine, then its sidecar, each whole or not at all.

    After a crash between the two, `read_engine` refuses the engine and the next build replaces it.

    Raises:
        BackendError: the folder cannot be written.
    """
    record = FileRecord(hashlib.sha256(engine).hexdigest(), len(engine))
    sidecar = msgspec.json.format(msgspec.json.encode(_Sidecar(_SCHEMA, _KIND, key, record)))
    path = folder / key.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(path, engine)
        _replace(_sidecar(path), sidecar)
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
    again = f"`mnemoscope build BUNDLE --backend {key.backend} --batch {key.batch}` builds it."
    try:
        text = _sidecar(path).read_bytes()
        engine = path.read_bytes()
    except FileNotFoundError:
        raise BackendError(f"There is no engine {path}. {again}") from None
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error}. Check its permissions.") from None
    sidecar = _decode(text, _sidecar(path))
    expected, found = asdict(key), asdict(sidecar.key)
    differing = [
        f"{name} is {_short(found[name])}, here it is {_short(expected[name])}"
        for name in expected
        if found[name] != expected[name]
    ]
    if differing:
        raise BackendError(f"{path} does not fit: {'; '.join(differing)}. {again}")
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


def _replace(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, then rename."""
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
