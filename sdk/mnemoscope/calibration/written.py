"""How calibrations are written: as JSON, each with the sha256 of the very bytes that say it.

    {"kind": "mnemoscope-calibration", "schema": 4, "calibrations": [
        {"sha256": "...", "calibration": {...}}, ...]}

A digest tells what an accident changed, and not what a forger did: that takes a signature (see
`mnemoscope_runtime.signatures`).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import msgspec

from mnemoscope_runtime import strict_json
from mnemoscope_runtime.errors import CalibrationError

from .calibration import AGAIN, Calibration

__all__ = ["WROTE", "decode", "encode", "text_of"]

_KIND, _SCHEMA = "mnemoscope-calibration", 4
_OLDER = (2, 3)  # without digests; 2 knew no cascades
WROTE = "Name a file that `mnemoscope calibrate` or `calibrate_guard` wrote."


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    sha256: str
    calibration: msgspec.Raw


class _File(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    schema: int
    calibrations: list[_Entry]


class _Older(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    schema: int
    calibrations: list[msgspec.Raw]


def text_of(calibration: Calibration) -> bytes:
    """The bytes that say a calibration, however it was made or read."""
    said = asdict(calibration)
    if calibration.named_by == "text":
        del said["named_by"]  # as earlier versions wrote it, and signed
    return msgspec.json.encode(said)


def encode(calibrations: tuple[Calibration, ...]) -> bytes:
    """The bytes of a file."""
    texts = map(text_of, calibrations)
    entries = [_Entry(hashlib.sha256(text).hexdigest(), msgspec.Raw(text)) for text in texts]
    return msgspec.json.encode(_File(_KIND, _SCHEMA, entries)) + b"\n"


def decode(text: bytes, origin: str, *, older: bool) -> tuple[Calibration, ...]:
    """The calibrations of a file.

    Args:
        text: Its bytes.
        origin: Its name in messages.
        older: Whether files of older schemas will do, which have no digests.

    Raises:
        CalibrationError: it is no calibration, of another version, or not what was written.
    """
    try:
        if _KIND.encode() not in text:  # prompts, or whatever else
            raise CalibrationError(f"{origin} is no calibration, or the rest of one. {WROTE}")
        head = strict_json.parse(text)
        schema = head.get("schema") if head.get("kind") == _KIND else None
        if schema == _SCHEMA:
            raw = _undamaged(text, origin)
            said = [each["calibration"] for each in head["calibrations"]]
        elif schema in _OLDER and older:
            raw = msgspec.json.decode(text, type=_Older).calibrations
            said = head["calibrations"]
        elif schema in _OLDER:
            raise CalibrationError(
                f"{origin} was written by an earlier version, without the digests that tell what "
                f"was changed since. `mnemoscope calibration update {origin}` adds them, and "
                "measures nothing again."
            )
        else:
            raise CalibrationError(f"{origin} is no calibration of this version. {AGAIN}")
        return tuple(_calibration(*both, origin) for both in zip(raw, said, strict=True))
    except (ValueError, RecursionError) as error:  # msgspec's too
        raise CalibrationError(f"{origin} is damaged: {error}. {AGAIN}") from None


def _undamaged(text: bytes, origin: str) -> list[msgspec.Raw]:
    """The bytes of each calibration, which are those that were written."""
    entries = msgspec.json.decode(text, type=_File).calibrations
    for entry in entries:
        if hashlib.sha256(entry.calibration).hexdigest() != entry.sha256:
            raise CalibrationError(f"{origin} is not what was written (sha256). {AGAIN}")
    return [entry.calibration for entry in entries]


def _calibration(raw: msgspec.Raw, said: dict[str, Any], origin: str) -> Calibration:
    """A calibration that says nothing else."""
    try:
        found = msgspec.json.decode(raw, type=Calibration)
    except CalibrationError as error:
        raise CalibrationError(f"{origin} is no calibration: {error}") from None
    if fields := strict_json.unknown(said, msgspec.to_builtins(found)):
        raise ValueError(f"it says {fields[0]}, which this version does not know")
    return found
