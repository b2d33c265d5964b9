"""Figures of matplotlib, which is an extra, without a window or a state of its own."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from mnemoscope_runtime.errors import BackendUnavailable
from mnemoscope_runtime.wording import pip_install

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure", "png", "require_plots"]


def new_figure(width: float, height: float, *, extra: str = "plot", otherwise: str = "") -> Figure:
    """An empty figure.

    Args:
        width: In inches.
        height: In inches.
        extra: What brings matplotlib.
        otherwise: What else can be done about it, for the message.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    require_plots(extra=extra, otherwise=otherwise)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def require_plots(*, extra: str = "plot", otherwise: str = "") -> None:
    """Refuse before anything is measured what could not be plotted in the end.

    Args:
        extra: What brings matplotlib.
        otherwise: What else can be done about it, for the message.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            f"Plots need matplotlib: {error}. Install it with {pip_install(extra)}"
            f"{otherwise and f', or {otherwise}'}."
        ) from None


def png(figure: Figure) -> bytes:
    """A figure as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    return buffer.getvalue()
