"""Which NVIDIA GPUs and which driver are here, asked of the driver itself: nothing to install."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...errors import BackendUnavailable
from .errors import remedy

__all__ = ["Driver", "Gpu", "driver", "find", "lacking"]

_WINDOWS = sys.platform == "win32"
_CUDA = "nvcuda.dll" if _WINDOWS else "libcuda.so.1"
_NVML = "nvml.dll" if _WINDOWS else "libnvidia-ml.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: As its maker calls it.
        sm: Compute capability as engines are built for: "SM89".
        memory: In bytes.
    """

    name: str
    sm: str
    memory: int

    def __str__(self) -> str:
        return f"{self.name}, {self.sm}, {self.memory / 2**30:.0f} GiB"


@dataclass(frozen=True)
class Driver:
    """The driver and its GPUs.

    Attributes:
        version: "580.65.06"; None where the driver does not tell.
        cuda: The latest CUDA that it supports: "13.0".
        gpus: In CUDA's order.
    """

    version: str | None
    cuda: str
    gpus: tuple[Gpu, ...]

    def __str__(self) -> str:
        return self.version or f"for CUDA {self.cuda}"


def find(device: int) -> Gpu:
    """One GPU.

    Raises:
        BackendUnavailable: there is no driver, or no such GPU.
    """
    gpus = driver().gpus
    if device >= len(gpus):
        raise BackendUnavailable(
            f"There is no GPU {device} here, counted from 0: the driver shows {len(gpus)}. "
            "CUDA_VISIBLE_DEVICES may hide some; `mnemoscope doctor` lists them."
        )
    return gpus[device]


def driver() -> Driver:
    """Ask the driver.

    Raises:
        BackendUnavailable: there is none, or it cannot start; says which.
    """
    try:
        cuda = ctypes.CDLL(_CUDA)
    except OSError:
        raise BackendUnavailable(
            f"There is no NVIDIA driver here ({_CUDA} cannot be loaded). Install the driver; in a "
            "container, start it with the NVIDIA runtime (`docker run --gpus all`)."
        ) from None
    _check(cuda, cuda.cuInit(0), "start")
    version, count = ctypes.c_int(), ctypes.c_int()
    _check(cuda, cuda.cuDriverGetVersion(ctypes.byref(version)), "tell its version")
    _check(cuda, cuda.cuDeviceGetCount(ctypes.byref(count)), "count GPUs")
    return Driver(
        version=_driver_version(),
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
        gpus=tuple(_gpu(cuda, index) for index in range(count.value)),
    )


def lacking(libraries: Iterable[str]) -> list[str]:
    """Those shared libraries (Linux's names) that cannot be loaded here."""
    return [] if _WINDOWS else [name for name in libraries if not _loads(name)]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _gpu(cuda: Any, index: int) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _check(cuda, cuda.cuDeviceGet(ctypes.byref(device), index), "open a GPU")
    _check(cuda, cuda.cuDeviceGetName(name, len(name), device), "name a GPU")
    _check(cuda, cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device), "measure memory")
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _check(
            cuda, cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "describe one"
        )
        capability.append(str(value.value))
    return Gpu(name.value.decode(), f"SM{''.join(capability)}", memory.value)


def _driver_version() -> str | None:
    """As nvidia-smi shows it; Jetson's driver does not tell."""
    text = ctypes.create_string_buffer(96)
    try:
        nvml = ctypes.CDLL(_NVML)
        if nvml.nvmlInit_v2() == 0 and nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0:
            return text.value.decode()
    except (OSError, AttributeError):
        pass
    return None


def _check(cuda: Any, code: int, what: str) -> None:
    if code:
        reason = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(reason))
        text = (reason.value or b"no reason given").decode()
        raise BackendUnavailable(
            f"The NVIDIA driver cannot {what}: {text} (CUDA error {code}). {remedy(code)} Check "
            "that `nvidia-smi` shows a GPU."
        )
