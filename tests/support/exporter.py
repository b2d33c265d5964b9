"""What PyTorch's exporter makes anew for every graph, made once a process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import copy
from functools import cache
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def operators_read_once() -> Iterator[None]:
    """It parses the sources of all operators for each, which is a twelfth of a small export."""
    if "onnxscript" not in sys.modules:  # nothing that was collected exports, or it is not there
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = cache(ONNXRegistry.from_torchlib)

    def registry(**told: Any) -> ONNXRegistry:
        """One of the caller's own, to which it may add operators."""
        own = copy(read(**told))
        own.functions = {name: [*found] for name, found in own.functions.items()}
        return own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(registry))
        yield
