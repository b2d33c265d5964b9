from __future__ import annotations

import ctypes
from typing import Any

import pytest

from mnemoscope_runtime import BackendUnavailable
from mnemoscope_runtime.backends.nvidia import gpu


class Library:
    """libcuda and libnvidia-ml in one, for two GPUs."""

    def __init__(self, init: int = 0, count: int = 2) -> None:
        self.init, self.count = init, count

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self.init

    def cuGetErrorString(self, _: int, text: Any) -> int:  # noqa: N802
        text._obj.value = b"no CUDA-capable device is detected"
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13010
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = 10 + index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        assert size == 256
        name.value = f"NVIDIA {device.value}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, _: Any) -> int:  # noqa: N802
        memory._obj.value = 8 * 2**30
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: device.value - 2, 76: 6}[attribute]
        return 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, _: int) -> int:  # noqa: N802
        text.value = b"580.65.06"
        return 0


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, Library]:
    there: dict[str, Library] = {}

    def load(name: str) -> Library:
        if name not in there:
            raise OSError(name)
        return there[name]

    monkeypatch.setattr(ctypes, "CDLL", load)
    return there


def test_driver_and_gpus(libraries: dict[str, Library]) -> None:
    libraries["libcuda.so.1"] = libraries["libnvidia-ml.so.1"] = Library()
    driver = gpu.driver()
    assert (str(driver), driver.cuda) == ("580.65.06", "13.1")
    assert [str(found) for found in driver.gpus] == [
        "NVIDIA 10, SM86, 8 GiB",
        "NVIDIA 11, SM96, 8 GiB",
    ]
    assert gpu.find(1).name == "NVIDIA 11"


def test_a_driver_that_does_not_tell(libraries: dict[str, Library]) -> None:
    libraries["libcuda.so.1"] = Library()
    assert str(gpu.driver()) == "for CUDA 13.1"


@pytest.mark.usefixtures("libraries")
def test_no_driver() -> None:
    with pytest.raises(BackendUnavailable, match=r"no NVIDIA driver.*docker run --gpus all"):
        gpu.driver()


def test_a_driver_without_a_gpu(libraries: dict[str, Library]) -> None:
    libraries["libcuda.so.1"] = Library(init=100)
    with pytest.raises(BackendUnavailable, match=r"cannot start: no CUDA-capable.*error 100"):
        gpu.driver()


def test_no_such_gpu(libraries: dict[str, Library]) -> None:
    libraries["libcuda.so.1"] = Library(count=1)
    with pytest.raises(BackendUnavailable, match=r"no GPU 1 here.*CUDA_VISIBLE_DEVICES"):
        gpu.find(1)


def test_lacking(libraries: dict[str, Library]) -> None:
    libraries["libcudart.so.13"] = Library()
    assert gpu.lacking(["libcudart.so.13", "libcudnn.so.9"]) == ["libcudnn.so.9"]
