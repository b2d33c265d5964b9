"""Running benchmarks and recipes: what cannot be used is a line and a code, as of `mnemoscope`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mnemoscope_runtime import MnemoscopeError

__all__ = ["run_main"]


def run_main(main: Callable[[], None]) -> None:
    """Run one that was called by name.

    An error of ours says what to do next, and where in our code it was raised helps nobody.

    Args:
        main: The benchmark or recipe, which reads its arguments itself.
    """
    try:
        main()
    except MnemoscopeError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
