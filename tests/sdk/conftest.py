"""For tests below this folder alone: a painter, which takes seconds to import, and sessions of ONNX
Runtime that are made once for all that open the same bundle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
from descriptor_support import sscd
from mitigate_support import loaded_once, mitigator, painter

from mnemoscope_runtime import Bundle
from mnemoscope_runtime.backends import onnxruntime as backend

__all__ = ["loaded_once", "mitigator", "painter", "sscd"]

_MADE: OrderedDict[tuple[object, ...], Any] = OrderedDict()
_KEPT = 12


@pytest.fixture(autouse=True)
def reused_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making one takes longer than most tests of the SDK use it; files are verified as ever."""
    make_session = backend.make_session

    def reused(
        onnxruntime: ModuleType, bundle: Bundle, graph: str, providers: Sequence[Any], **told: Any
    ) -> Any:
        for name in (*bundle.data_files(), bundle.manifest.graphs[graph]):
            bundle.read(name)
        key = (bundle.id, graph, *providers, *sorted(told.items()))
        if key not in _MADE:
            _MADE[key] = make_session(onnxruntime, bundle, graph, providers, **told)
        _MADE.move_to_end(key)
        if len(_MADE) > _KEPT:
            _MADE.popitem(last=False)
        return _MADE[key]

    monkeypatch.setattr(backend, "make_session", reused)
