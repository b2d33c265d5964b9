"""CUDA graphs on a processor: what is captured is kept operator by operator, and replayed.

As a GPU does, a replay computes from what the tensors of the capture hold now, into the same
tensors; what came from the host while it was captured stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Graph(TorchDispatchMode):
    """Stands in for `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0
        self.shares: object = None

    def pool(self) -> tuple[int, int]:
        return (id(self), 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default):
            raise RuntimeError("operation not permitted when stream is capturing")
        found = func(*args, **(kwargs or {}))
        self.operators.append((func, args, kwargs or {}, found))
        return found

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, before in self.operators:
            for old, new in zip(
                tree_leaves(before), tree_leaves(func(*args, **kwargs)), strict=True
            ):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Stream:
    """Everything is done when it is asked for."""

    def __init__(self, *_: object) -> None: ...

    def wait_stream(self, _: object) -> None: ...

    def synchronize(self) -> None: ...


def stand_in(patch: pytest.MonkeyPatch) -> list[Graph]:
    """Put it in the place of PyTorch's; graphs in the order in which they were recorded."""
    made: list[Graph] = []

    @contextmanager
    def capture(graph: Graph, pool: object, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        graph.shares = pool
        made.append(graph)
        with graph:
            yield

    empty = torch.empty
    patch.setattr(
        torch, "empty", lambda *size, **how: empty(*size, **(how | {"pin_memory": False}))
    )
    patch.setattr(torch.cuda, "CUDAGraph", Graph)
    patch.setattr(torch.cuda, "Stream", Stream)
    patch.setattr(torch.cuda, "current_stream", Stream)
    patch.setattr(torch.cuda, "stream", nullcontext)
    patch.setattr(torch.cuda, "device", nullcontext)
    patch.setattr(torch.cuda, "graph", capture)
    return made
