"""Parameters of requests: which say something here, and which must not be passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mnemoscope_runtime.errors import InputError

from ..json_bodies import read_json

__all__ = ["decode_parameters", "refuse_overrides", "seconds_to_wait"]

_SETTLED = ("backend", "bundle", "calibration", "detector", "noises", "steps", "threshold")


class _Request(msgspec.Struct):
    parameters: dict[str, Any] = {}


def decode_parameters(body: bytes) -> dict[str, Any]:
    """Those of a request that has nothing else.

    Raises:
        InputError: it is no JSON object, or its parameters are none.
    """
    try:
        return msgspec.convert(read_json(body), _Request).parameters
    except msgspec.ValidationError:
        raise InputError("The parameters are no JSON object. Send one, or none.") from None


def seconds_to_wait(parameters: Mapping[str, object]) -> float | None:
    """How long the client waits: `timeout`, in microseconds, as Triton has it; None or 0 is none.

    Other parameters may say what they like, as the protocol wants it, unless they would have
    something else measured than is.

    Raises:
        InputError: they would, or it is no such number.
    """
    for name in _SETTLED:
        if name in parameters:
            raise InputError(
                f"{name} is settled by whoever runs the service. Leave the parameter out, or ask a "
                "model that was set up so."
            )
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if type(timeout) is not int or timeout < 0:
        raise InputError(f"timeout is {timeout!r:.40}. Give whole microseconds.")
    return timeout / 1e6 or None


def refuse_overrides(parameters: Mapping[str, object]) -> None:
    """Refuse to load a model otherwise than it is, which Triton's `config` and `file:` ask for.

    Raises:
        InputError: that was asked for.
    """
    if parameters:
        raise InputError(
            f"A model is loaded as it lies there, without {', '.join(sorted(parameters))[:80]!r}. "
            "Leave all parameters out."
        )
