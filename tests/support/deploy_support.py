"""The Dockerfiles, and what is in them."""

from __future__ import annotations

import re
from pathlib import Path

from repository import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILES = [DEPLOY / "docker" / "Dockerfile", DEPLOY / "docker" / "Dockerfile.cuda"]
INSTALLED = "/opt/mnemoscope"  # where they install


def instructions(dockerfile: Path) -> dict[str, str]:
    """The last of each kind, with its lines put together."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    return dict(re.findall(r"^\s*([A-Z]+) (.+)$", text, re.MULTILINE))
