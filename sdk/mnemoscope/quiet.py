"""Only our own words on stderr."""

from __future__ import annotations

import os

__all__ = ["quiet_libraries"]


def quiet_libraries() -> None:
    """Silence the advice and the per-tensor progress bars of transformers and diffusers.

    Call it before they are imported. Downloads from the hub still show progress.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    try:
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging
    except ImportError:
        return  # whoever needs them will say so
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
