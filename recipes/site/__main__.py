"""`python -m recipes.site SITE`: the exit status is 1 if something is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

from .checking import faults

found = list(faults(Path(sys.argv[1])))
print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
sys.exit(bool(found))
