"""For libraries that find weights by path only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..bundle import Bundle
from ..errors import BackendError
from ..staging import staging_folder

__all__ = ["private_copy"]


@contextmanager
def private_copy(reader: str, bundle: Bundle, graph: str) -> Iterator[Path]:
    """A copy of a graph and its weights, of the bytes that were verified, while it is read.

    Args:
        reader: What reads it, for the error.
        bundle: Where they come from.
        graph: The graph's file.

    Yields:
        The copy of the graph; the weights lie where it looks for them.

    Raises:
        BackendError: it cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(staging_folder(Path(tempfile.gettempdir())))
            for name in (graph, *bundle.data_files()):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bundle.read(name))
        except OSError as error:
            raise BackendError(
                f"{reader} needs a copy of {bundle.path / graph} and its weights among the "
                f"temporary files, and there it cannot be written: {error}. Free some space, or "
                "set TMPDIR to a directory that has it."
            ) from None
        yield folder / graph
