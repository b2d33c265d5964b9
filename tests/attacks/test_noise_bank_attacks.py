from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack_support import plant
from numpy.typing import NDArray

from mnemoscope_runtime import Bundle, IntegrityError, Screener

SHAPE = (3, 4, 8, 8)


def npy(array: NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npy_header(header: str) -> bytes:
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npy_of_shape(shape: str) -> bytes:
    return npy_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}")


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, bank=np.zeros(SHAPE, np.float32))
    return file.getvalue()


class Trap:
    """Calls `sprung` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return sprung, ()


SPRUNG: list[int] = []


def sprung() -> None:
    SPRUNG.append(1)


def test_pickled_noise_bank(bundle: Path) -> None:
    SPRUNG.clear()
    array = np.full(SHAPE, None, object)
    array.flat[0] = Trap()
    for content in (npy(array, allow_pickle=True), pickle.dumps(Trap())):
        plant(bundle, "noise_bank.npy", content)
        with pytest.raises(IntegrityError, match="is no noise bank"):
            Bundle.open(bundle).noise_bank()
        with pytest.raises(IntegrityError, match="is no noise bank"):
            Screener.open(bundle)
    assert not SPRUNG
    pickle.loads(pickle.dumps(Trap()))
    assert SPRUNG  # the trap does work


@pytest.mark.parametrize(
    "content",
    [
        npy(np.full(SHAPE, np.nan, np.float32)),
        npy(np.where(np.arange(768).reshape(SHAPE) == 700, np.inf, 0).astype(np.float32)),
        npy(np.zeros(SHAPE, np.float64)),
        npy(np.zeros(SHAPE, np.float16)),
        npy(np.zeros(SHAPE, np.complex64)),
        npy(np.zeros(SHAPE, [("a", np.float32)])),
        npy(np.zeros((4, 4, 8, 8), np.float32)),
        npy(np.zeros((2, 4, 8, 8), np.float32)),
        npy(np.zeros(768, np.float32)),
        npy(np.float32(1)),
    ],
    ids=["nan", "inf", "f64", "f16", "complex", "record", "more", "fewer", "flat", "scalar"],
)
def test_noise_bank_of_another_kind(bundle: Path, content: bytes) -> None:
    plant(bundle, "noise_bank.npy", content)
    with pytest.raises(IntegrityError, match="the manifest promises finite float32"):
        Screener.open(bundle)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"PK\x03\x04",
        npz(),
        npy(np.zeros(SHAPE, np.float32))[:-1],
        npy_header("(" * 100),
        npy_header("__import__('os').abort()"),
        npy_of_shape("(10**14,)"),
        npy_of_shape("(100000000000000,)"),
        npy_of_shape("(99999999999999999999999999,)"),
        npy_of_shape("(-1,)"),
    ],
    ids=[
        "empty",
        "garbage",
        "zip",
        "archive",
        "truncated",
        "nested",
        "code",
        "expression",
        "terabytes",
        "overflow",
        "negative",
    ],
)
def test_noise_bank_that_is_none(bundle: Path, content: bytes) -> None:
    plant(bundle, "noise_bank.npy", content)
    with pytest.raises(IntegrityError, match="is no noise bank"):
        Screener.open(bundle)
