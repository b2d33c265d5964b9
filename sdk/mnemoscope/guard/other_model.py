"""In what a pipeline is another one than a calibration is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["differing", "read", "why", "written"]

_WEIGHTS, _DTYPE = " weights", " dtype"
_SHORT = 8  # of a hash's characters


def written(hashes: Mapping[str, str], dtypes: Mapping[str, str]) -> str:
    """Short hashes and dtypes of what a pipeline is made of, for a calibration."""
    found = {name: value[:_SHORT] for name, value in hashes.items()}
    found |= {part + _DTYPE: dtype for part, dtype in dtypes.items()}
    return ", ".join(f"{name} {value}" for name, value in sorted(found.items()))


def read(text: str) -> dict[str, str]:
    """What was `written`, by what it is of."""
    pairs = (each.rpartition(" ") for each in text.split(", ") if each)
    return {name: value for name, _, value in pairs}


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Of what a hash or a dtype is another one; of weights only where their dtype is none."""
    found = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    cast = {name.removesuffix(_DTYPE) for name in found if name.endswith(_DTYPE)}
    return [name for name in found if name.removesuffix(_WEIGHTS) not in cast]


def why(pipeline: str, now: str, calibrated: Sequence[Mapping[str, str]]) -> str:
    """Why a calibration is not of a pipeline whose hashes are others, in words.

    Args:
        pipeline: Its class.
        now: What it is made of.
        calibrated: What calibrations say of theirs: `pipeline`, and `made of` if they are not old.
    """
    known = [each for each in calibrated if each.get("made of")]
    nearest = min(known or calibrated, key=lambda each: len(_all(pipeline, now, each)))
    return "; ".join(_all(pipeline, now, nearest)) or (
        "its hash is another one (another model, dtype, tokenizer, or LoRA that is fused: a "
        "calibration of this age does not say which)"
    )


def _all(pipeline: str, now: str, calibrated: Mapping[str, str]) -> list[str]:
    found = []
    if (other := calibrated.get("pipeline")) != pipeline:
        found.append(f"it is a {pipeline}, calibrated was a {other}")
    before, after = read(calibrated.get("made of", "")), read(now)
    if not before:
        return found
    if found:  # one of pictures also has a VAE that counts
        both = before.keys() & after.keys()
        before, after = ({name: each[name] for name in both} for each in (before, after))
    return found + [_told(name, before, after) for name in differing(before, after)]


def _told(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    if name.endswith(_DTYPE):
        return f"{name} is {after.get(name, 'none')}, calibrated was {before.get(name, 'none')}"
    if name.endswith(_WEIGHTS):
        return f"{name} are others (another model, fewer bits, or a LoRA that is fused)"
    return f"{name} is another one"
