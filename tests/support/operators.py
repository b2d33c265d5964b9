"""The exporter reads its library of operators anew for every graph, a tenth of its time; here once.

It only looks things up there: nothing that the product does changes it.
"""

from __future__ import annotations

import sys
from functools import cache

_MODULE = "torch.onnx._internal.exporter._registration"


def pytest_runtest_setup() -> None:
    if _MODULE in sys.modules:  # which the first export loads
        _read_once()


@cache
def _read_once() -> None:
    registry = getattr(sys.modules[_MODULE], "ONNXRegistry", None)
    if registry is not None:
        registry.from_torchlib = staticmethod(cache(registry.from_torchlib))
