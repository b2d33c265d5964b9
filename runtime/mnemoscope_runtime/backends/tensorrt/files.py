"""Plans in files: what one was built from, with and for is checked before its bytes are looked at.

A plan is two files: what the library serialized, and beside it a JSON sidecar with its key and
sha256, and a seal that says that this user built it (`user_cache`). It is loaded only if the seal
is this user's, or who is trusted signed the sidecar, and every field of the key is as it was;
otherwise the error says which differ, and the command that builds it again. The driver is recorded
too, but a changed one only warns.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ...errors import BackendError, IntegrityError, SignatureError
from ...manifest import FileRecord
from ...reading import read_file
from ...signatures import check_signature
from ...staging import replace_file
from ...user_cache import cache_folder, check_private, is_sealed, private_folder, seal
from ..cover import Profile
from ..nvidia.gpu import Gpu
from .library import needs_target, version_of

__all__ = [
    "VERSION_COMPATIBLE",
    "PlanKey",
    "PlanWarning",
    "differences",
    "find_plan",
    "folder_of",
    "keys",
    "read_plan",
    "sidecars_of",
    "write_plan",
]

_PLANS = "plans"  # the folder in the user's cache
VERSION_COMPATIBLE = "version-compatible"  # a flag: newer versions of the library run it too
_SCHEMA, _KIND = 3, "mnemoscope-engine"


_LONGEST = 2**20  # bytes of a sidecar


class PlanWarning(UserWarning):
    """A plan runs, but not in the surroundings that it was built in."""


@dataclass(frozen=True)
class PlanKey:
    """What a plan depends on.

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

    def to_run(self, built: PlanKey, device: Gpu | None) -> PlanKey:
        """What the key of a plan that was built must be for it to run on a GPU.

        `self` is the key of what would be built here. What the builder chose is free, and an
        plan of TensorRT for RTX must have been built for the GPU's compute capability.

        Args:
            built: The plan's.
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
        """Its file name."""
        sizes = "+".join(map(str, self.profiles))
        return f"{self.backend}.{self.graph}.{self.precision}.{sizes}.engine"

    @property
    def most(self) -> int:
        """Samples in its largest call."""
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
    key: PlanKey
    driver: str | None
    file: FileRecord
    seal: str = ""

    @property
    def sealed(self) -> bytes:
        """What the seal is of."""
        return b"plan\0" + msgspec.json.encode(replace(self, seal=""))


def folder_of(bundle: str, given: str | Path | None, *, make: bool = False) -> Path:
    """Where the plans of a bundle are.

    Args:
        bundle: Its id.
        given: The folder that the caller asked for; by default one of the user's cache.
        make: Whether that is made.

    Raises:
        BackendError: others may write there.
    """
    if given is not None:
        return Path(given)
    if make:
        return private_folder(_PLANS, bundle)
    folder = cache_folder(_PLANS, bundle)
    for each in (cache_folder(), folder.parent, folder):
        check_private(each)
    return folder


def write_plan(folder: Path, key: PlanKey, plan: bytes, driver: str | None = None) -> Path:
    """Write a plan, then its sidecar with this user's seal, each whole or not at all.

    After a crash between the two, `read_plan` refuses the plan and the next build replaces it.

    Raises:
        BackendError: the folder cannot be written, or nothing can be sealed.
    """
    record = FileRecord(hashlib.sha256(plan).hexdigest(), len(plan))
    sidecar = _Sidecar(_SCHEMA, _KIND, key, driver, record)
    sidecar = replace(sidecar, seal=seal(sidecar.sealed))
    path = folder / key.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, plan)
        replace_file(_sidecar(path), msgspec.json.format(msgspec.json.encode(sidecar)))
    except OSError as error:
        raise BackendError(
            f"{path} cannot be written: {error}. Free some space, or choose another folder with "
            "--engines."
        ) from error
    return path


def read_plan(folder: Path, key: PlanKey) -> bytes:
    """The verified bytes of the plan with that key which this user built.

    Raises:
        BackendError: there is none, or it was built from, with or for something else.
        IntegrityError: the sidecar is damaged or not this user's, or the plan differs from what it
            promises.
    """
    path = folder / key.name
    try:
        text = read_file(_sidecar(path), _LONGEST)
    except FileNotFoundError:
        raise BackendError(f"There is no plan {path}. {key.command} builds it.") from None
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error}. Check its permissions.") from None
    return _verified(path, _authentic(text, _sidecar(path)), key)


def find_plan(
    folder: Path,
    wanted: PlanKey,
    here: Callable[[PlanKey], PlanKey],
    driver: str | None = None,
    trust: str | Path | None = None,
) -> tuple[PlanKey, bytes]:
    """The plan of a graph that takes the largest calls of those that fit.

    Args:
        folder: Where plans are.
        wanted: Its backend, graph and precision choose the files; the rest is for the error.
        here: What the key of a file would have to be for the plan to run here.
        driver: The driver here.
        trust: File of a public key, whose plans run too.

    Returns:
        The plan's key and verified bytes.

    Raises:
        BackendError: there is none, or what there is was built from, with or for something else.
        IntegrityError: a file is damaged, or somebody else's.
    """
    problems: list[Exception] = []
    found = []
    prefix = f"{wanted.backend}.{wanted.graph}.{wanted.precision}."
    for path, sidecar in _sidecars(folder, prefix, trust):
        if isinstance(sidecar, Exception):
            problems.append(sidecar)
        else:
            found.append((path, sidecar))
    for path, sidecar in sorted(found, key=lambda item: -item[1].key.most):
        try:
            plan = _verified(path, sidecar, here(sidecar.key))
        except (BackendError, IntegrityError) as error:
            problems.append(error)
            continue
        if driver is not None and sidecar.driver is not None and driver != sidecar.driver:
            warnings.warn(
                f"{path} was built with driver {sidecar.driver}, here it is {driver}: it runs, but "
                f"may not be the fastest. {sidecar.key.command} builds it again.",
                PlanWarning,
                stacklevel=2,
            )
        return sidecar.key, plan
    if problems:
        raise problems[-1]
    raise BackendError(
        f"There is no plan of {wanted.graph} in {folder}. {wanted.command} builds one; "
        "screening never builds."
    )


def keys(
    folder: Path, trust: str | Path | None = None
) -> Iterator[tuple[Path, PlanKey | Exception]]:
    """Every plan of a folder with its key, or what is wrong with its sidecar."""
    for path, sidecar in _sidecars(folder, "", trust):
        yield path, sidecar if isinstance(sidecar, Exception) else sidecar.key


def sidecars_of(folder: Path, bundle: str) -> dict[Path, bytes]:
    """The sidecars of a bundle's plans that this user built, to be signed.

    Raises:
        IntegrityError: one is damaged or somebody else's, or its plan differs from what it says.
        BackendError: one cannot be read.
    """
    found = {}
    for file in _files(folder):
        try:
            text = read_file(file, _LONGEST)
        except OSError as error:
            raise BackendError(f"{file} cannot be read: {error}. Check its permissions.") from None
        sidecar = _authentic(text, file)
        if sidecar.key.bundle == bundle:
            _verified(file.with_name(file.name.removesuffix(".json")), sidecar, sidecar.key)
            found[file] = text
    return found


def differences(found: PlanKey, expected: PlanKey) -> list[str]:
    """The fields in which two keys differ, in words."""
    names = (field.name for field in fields(PlanKey))
    pairs = ((name, getattr(found, name), getattr(expected, name)) for name in names)
    return [
        f"{name} is {_short(there)}, here it is {_short(here)}"
        for name, there, here in pairs
        if there != here
    ]


def _files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.engine.json")) if folder.is_dir() else []
    return [file for file in found if not file.name.startswith(".")]


def _sidecars(
    folder: Path, prefix: str, trust: str | Path | None
) -> Iterator[tuple[Path, _Sidecar | Exception]]:
    for file in _files(folder):
        if not file.name.startswith(prefix):
            continue
        path = file.with_name(file.name.removesuffix(".json"))
        try:
            yield path, _authentic(read_file(file, _LONGEST), file, trust)
        except (IntegrityError, SignatureError, OSError) as error:
            yield path, error


def _authentic(text: bytes, file: Path, trust: str | Path | None = None) -> _Sidecar:
    """A sidecar that this user sealed, or that was signed by who is trusted."""
    sidecar = _decode(text, file)
    if is_sealed(sidecar.sealed, sidecar.seal):
        return sidecar
    if trust is None:
        raise IntegrityError(
            f"{file} was not sealed by this user: somebody else built the plan, or it was changed. "
            "Plans contain programs. `mnemoscope build BUNDLE` builds one here; one that was built "
            "elsewhere runs with --trust KEY, if KEY signed it (`mnemoscope sign --engines`)."
        )
    check_signature(file, text, trust)
    return sidecar


def _verified(path: Path, sidecar: _Sidecar, expected: PlanKey) -> bytes:
    again = f"{expected.command} builds it again."
    if different := differences(sidecar.key, expected):
        raise BackendError(f"{path} does not fit: {'; '.join(different)}. {again}")
    try:
        plan = read_file(path, sidecar.file.bytes + 1)
    except FileNotFoundError:
        raise BackendError(f"There is no plan {path}, but its sidecar. {again}") from None
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error}. Check its permissions.") from None
    if (hashlib.sha256(plan).hexdigest(), len(plan)) != (
        sidecar.file.sha256,
        sidecar.file.bytes,
    ):
        raise IntegrityError(f"{path} differs from what its sidecar promises (sha256). {again}")
    return plan


def _decode(text: bytes, path: Path) -> _Sidecar:
    try:
        head = msgspec.json.decode(text, type=dict[str, Any])
        if (head.get("kind"), head.get("schema")) == (_KIND, _SCHEMA):
            return msgspec.json.decode(text, type=_Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{path} is damaged: {error}. Build the plan again.") from None
    raise IntegrityError(f"{path} is no sidecar of this version. Build the plan again.")


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
