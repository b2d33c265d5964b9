"""`mnemoscope sign`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import Bundle, InputError, IntegrityError
from mnemoscope_runtime.bundle import MANIFEST

from ..calibration import CalibrationFile
from ..calibration.file import read_whole
from ..screening.opening import own_calibration
from ..signing import private_key, sign

__all__ = ["command"]


def command(
    key: Annotated[Path, typer.Option(help="Private key that `mnemoscope keygen` wrote.")],
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to sign, with its own calibration.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Calibration file elsewhere, such as a guard's.", show_default="none"),
    ] = None,
    engines: Annotated[
        Path | None,
        typer.Option(
            help="Folder of plans that you built of the bundle, to run on other machines too.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Sign a bundle and its calibrations, so that --trust KEY.pub tells them from all others.

    What is signed is verified first. Each signature is a file of its own, with .sig behind its
    name; sign again after calibrating again.

    Needs the extra `sign`.
    """
    if bundle is None and calibration is None:
        raise InputError("Nothing to sign. Give a BUNDLE, or a file with --calibration.")
    if bundle is None and engines is not None:
        raise InputError("--engines is of a bundle's plans. Give the BUNDLE that they are of.")
    signer, contents = private_key(key), {}
    files = [] if calibration is None else [calibration]
    if bundle is not None:
        opened = Bundle.open(bundle)
        contents[bundle / MANIFEST] = _manifest(opened)
        if engines is not None:
            contents |= _plans(engines, opened)
        files += filter(None, [own_calibration(bundle)])
    for file in files:
        contents[file] = read_whole(file)
        known = CalibrationFile.from_json(contents[file], str(file))
        if bundle is not None:
            known.check(opened.id, opened.path)
    for file, content in contents.items():
        typer.echo(f"signature {sign(file, content, signer)}")


def _plans(folder: Path, bundle: Bundle) -> dict[Path, bytes]:
    from mnemoscope_runtime.backends.tensorrt import sidecars_of

    if found := sidecars_of(folder, bundle.id):
        return found
    raise InputError(
        f"{folder} holds no plans of {bundle.path}. `mnemoscope build --engines` puts them there."
    )


def _manifest(bundle: Bundle) -> bytes:
    content = (bundle.path / MANIFEST).read_bytes()
    if hashlib.sha256(content).hexdigest() != bundle.id:
        raise IntegrityError(f"{bundle.path / MANIFEST} was changed meanwhile. Sign it again.")
    return content
