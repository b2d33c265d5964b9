"""Commands that make a calibration of a bundle, as messages tell them: to be copied and run."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..shipped import is_shipped, name_of

__all__ = ["calibrate_command", "calibrates", "carries"]

_OWN = "OWN.json"


def calibrate_command(bundle: Path | None, options: str = "") -> str:
    """What calibrates a bundle, in a file of its own if it ships.

    Args:
        bundle: Its directory, if that is known.
        options: Those of the setting, if they are.
    """
    words = ["mnemoscope calibrate", _named(bundle), "--benign FILE", options]
    if _ships(bundle):
        words.append(f"--output {_OWN}")
    return " ".join(filter(None, words))


def calibrates(bundle: Path | None, options: str = "") -> str:
    """The same as a sentence, which says what becomes of the file.

    Args:
        bundle: As of `calibrate_command`.
        options: Likewise.
    """
    use = f", which is then to be given as the calibration (--calibration {_OWN})"
    return f"`{calibrate_command(bundle, options)}` makes one{use if _ships(bundle) else ''}."


def carries(bundle: Path | None, source: str, target: str) -> str:
    """What carries thresholds over from a backend to another, as the end of a sentence.

    Args:
        bundle: As of `calibrate_command`.
        source: The backend that is calibrated.
        target: The other.
    """
    command = f"mnemoscope calibration carry {_named(bundle)} --from {source} --to {target}"
    if not _ships(bundle):
        return f"`{command}` carries its threshold over."
    return (
        f"`{command} --calibration COPY` carries its threshold over, in a COPY of "
        f"{shlex.quote(f'{bundle}/calibration.json')}."
    )


def _ships(bundle: Path | None) -> bool:
    return bundle is not None and is_shipped(bundle)


def _named(bundle: Path | None) -> str:
    return "BUNDLE" if bundle is None else shlex.quote(name_of(bundle))
