"""Pictures of strangers."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from captioned_support import picture
from PIL import Image

from mnemoscope.captioned import Broken, decoding
from mnemoscope.captioned.decoding import decode


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def reason(content: bytes) -> str:
    found = decode(content)
    assert isinstance(found, Broken)
    return found.reason


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (5, 4), "white").convert(mode)
    found = decode(saved(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert isinstance(found, Image.Image)
    assert (found.mode, found.size) == ("RGB", (5, 4))
    assert np.asarray(found).min() > 250


def test_a_picture_is_turned_as_its_camera_was_held() -> None:
    image = Image.new("RGB", (16, 8))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    found = decode(saved(image, "JPEG", exif=exif))
    assert isinstance(found, Image.Image)
    assert found.size == (8, 16)


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def test_a_small_file_of_many_pixels() -> None:
    for side in (10_000, 2**16):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            assert reason(bomb) == "its picture is too large"


def test_a_large_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BYTES", 10)
    assert reason(picture("red")) == "its picture is too large"


def test_truncated_and_damaged_pictures() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        whole = saved(noise, kind)
        assert isinstance(decode(whole), Image.Image)
        for end in (4, 10, len(whole) // 2):
            assert reason(whole[:end]) == "its picture is cut or damaged", (kind, end)
    assert reason(b"") == "its picture is empty"


def test_other_formats_are_not_tried() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"
    for content in (postscript, saved(Image.new("L", (4, 4)), "TIFF"), b"\x80\x04N."):
        assert reason(content) == "its picture is no JPEG, PNG, WebP or BMP"
