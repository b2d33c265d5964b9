"""What came of a file, and whether that may be."""

from __future__ import annotations

from typing import Any

from mnemoscope import MnemoscopeError

from .targets import Target

__all__ = ["Changed", "known", "passes"]


class Changed(AssertionError):
    """A changed file was taken for something else."""


def known(target: Target) -> list[Any]:
    """What comes of what has not been changed."""
    return [target.read(each) for each in target.seeds]


def passes(target: Target, seeds: list[Any], content: bytes) -> bool:
    """Whether a content is accepted, or refused as it should be.

    Raises:
        Changed: something else came of it.
        BaseException: any that is no error of ours.
    """
    try:
        found = target.read(content)
    except MnemoscopeError:
        return False
    if not any(target.may_be(found, each) for each in seeds):
        raise Changed(f"{found!r:.2000}")
    return True
