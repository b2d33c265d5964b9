"""A model for Triton's Python backend, which `mnemoscope triton` copied: Mnemoscope does the work.

Triton calls the class by its name, and has the module that it imports.
"""

from typing import Any

import triton_python_backend_utils as triton

from mnemoscope.serve.triton import Model


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle beside this file, and see whether it measures as it should."""
        self.model = Model.open(args, triton)

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request."""
        return self.model.execute(requests)

    def finalize(self) -> None:
        """Let go of the engines."""
        self.model.close()
