"""`mnemoscope keygen`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..signing import make_keys

__all__ = ["command"]


def command(
    key: Annotated[Path, typer.Argument(help="File to write; the public key goes to KEY.pub.")],
) -> None:
    """Make a key to sign bundles and calibrations with.

    Keep KEY to yourself, and give KEY.pub to whom --trust is for. Both are Ed25519 keys in PEM, as
    OpenSSL writes them.

    Needs the extra `sign`.
    """
    public = make_keys(key)
    typer.echo(f"private key {key}")
    typer.echo(f"public key {public}")
