"""What to say of a model of the hub that is not at hand."""

from __future__ import annotations

import re

from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

__all__ = ["HUB_ID", "UNREACHED", "why_not_there"]

HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
"""OWNER/NAME: what may be asked for, as a mistyped path may not."""
UNREACHED = (OSError, ValueError, HTTPError)
"""What the hub's library raises of one that cannot be downloaded, and its own client below it."""


def why_not_there(name: str, error: Exception, *, offline: bool = HF_HUB_OFFLINE) -> str:
    """Why it is not at hand, and how it gets here.

    Args:
        name: Its hub id.
        error: What was raised when it was asked for, one of `UNREACHED`.
        offline: Whether the environment forbids to download.
    """
    if offline:
        why = "HF_HUB_OFFLINE is set, so that nothing is downloaded"
    else:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        why = f"it could not be downloaded: {reason.rstrip('.')}"
    return (
        f"{name} is no directory here, the cache of the hub does not hold all of it, and {why}. "
        f"Download it once where there is a network and you have access to it, `hf download {name} "
        "--local-dir DIR`, and give DIR: what is read from a directory asks no network."
    )
