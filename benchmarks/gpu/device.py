"""The device, in the one place where the GPU is asked or waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._dynamo.utils import counters

from mnemoscope_runtime import BackendUnavailable

from .setting import Setting

__all__ = ["Device"]


class Device:
    """What a setting's networks run on.

    Raises:
        BackendUnavailable: it is a GPU, and PyTorch cannot use one here.
    """

    def __init__(self, setting: Setting) -> None:
        self.name = setting.device
        self.dtype: torch.dtype = getattr(torch, setting.precision)
        self._gpu = not setting.is_rehearsal
        if self._gpu and not torch.cuda.is_available():
            raise BackendUnavailable(
                f"torch {torch.__version__} cannot use a GPU here. Install a build of PyTorch for "
                "CUDA; constraints.txt pins one for the CPU."
            )
        torch.backends.cudnn.benchmark = self._gpu  # few shapes: let it try out which is fastest

    def wait(self) -> None:
        """Until everything is done that was launched."""
        if self._gpu:
            torch.cuda.synchronize()

    def figures(self) -> dict[str, Any]:
        """What this process took of it, and where compiled code is not all in one CUDA graph."""
        found: dict[str, Any] = {
            "torch": torch.__version__,
            "graph_breaks": dict(counters["graph_break"]),
            "cudagraph_skips": counters["inductor"]["cudagraph_skips"],
        }
        if self._gpu:
            found["peak_bytes"] = torch.cuda.max_memory_allocated()
        return found

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Float32 as it is: convolutions round to TF32 otherwise."""
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before
