"""Libraries that report their use to their makers, asked not to."""

from __future__ import annotations

import os

__all__ = ["switch_off_reports"]


def switch_off_reports() -> None:
    """Have ONNX Runtime report nothing from this process and its children.

    Its builds for Linux (1.31) look a host up some seconds after they are loaded, and keep a
    database in the user's cache. They read this as they are loaded, and diffusers loads them with
    any pipeline of a directory: it has to be said before. What the user has set stands.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
