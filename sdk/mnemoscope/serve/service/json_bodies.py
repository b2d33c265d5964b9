"""JSON of bodies: refused where two parsers could make different things of it."""

from __future__ import annotations

from typing import Any

from mnemoscope_runtime import strict_json
from mnemoscope_runtime.errors import InputError

__all__ = ["read_json"]


def read_json(body: bytes) -> dict[str, Any]:
    """The object that a body holds.

    Raises:
        InputError: it is no JSON object in UTF-8, says something twice, or NaN, or nests without
            end.
    """
    try:
        return strict_json.parse(body)
    except UnicodeDecodeError as error:
        raise InputError(
            f"The body is no UTF-8 ({error.reason} at byte {error.start}). Encode it so."
        ) from None
    except ValueError as error:
        raise InputError(f"The body cannot be read: {error}. Send one JSON object.") from None
