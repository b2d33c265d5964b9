"""Pictures of strangers, decoded by Pillow within limits."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from mnemoscope_runtime.errors import BackendUnavailable
from mnemoscope_runtime.wording import pip_install

from ..prompts import Broken
from ..prompts.printable import reason_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BYTES", "decode", "too_large"]

BYTES = 2**27  # of a file
_PIXELS = 2**26
_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")  # Pillow runs other programs for some others
_KNOWN = "JPEG, PNG, WebP or BMP"
_BEGINNINGS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM")  # of their files


def decode(content: bytes) -> Image | Broken:
    """A picture in RGB, turned as its camera was held; or why there is none.

    Of an animation the first frame. Transparency is dropped, as training scripts do.

    Raises:
        BackendUnavailable: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise BackendUnavailable(
            f"Pictures need Pillow: {error}. Install it with {pip_install('images')}."
        ) from None
    if len(content) > BYTES:
        return too_large(len(content))
    if not content:
        return Broken("its picture is empty", "a file of no bytes. Fetch it again, or remove it.")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
            width, height = opened.size
            if width * height > _PIXELS:
                return _bomb(f"{width:,} x {height:,} pixels")
            return ImageOps.exif_transpose(opened).convert("RGB")
    except Image.DecompressionBombError as error:
        return _bomb(str(error))
    except Exception as error:  # damaged files raise whatever their decoder stumbles over
        if isinstance(error, UnidentifiedImageError) and not content.startswith(_BEGINNINGS):
            return Broken(
                f"its picture is no {_KNOWN}",
                f"no picture of a kind that is known ({_KNOWN}). Convert it or remove it.",
            )
        return Broken(
            "its picture is cut or damaged",
            f"a picture that is cut or damaged: {reason_of(error)}. Fetch it again, or remove it.",
        )


def too_large(size: int) -> Broken:
    """What there is in place of a file of so many bytes."""
    return Broken(
        "its picture is too large",
        f"{size:,} bytes; {BYTES:,} are accepted. Make it smaller.",
    )


def _bomb(what: str) -> Broken:
    return Broken("its picture is too large", f"{what}; {_PIXELS:,} are accepted. Make it smaller.")
