"""What of an audit can be refused before a model is loaded: its data, and where results go."""

from __future__ import annotations

from pathlib import Path

from mnemoscope_runtime import InputError

from ..captioned import CaptionedSet, has_pictures, open_captioned
from ..outputs import require_place
from ..prompts import read_rows
from ..tables import check_table
from . import figures
from .source import require_file

__all__ = ["check_audit"]


def check_audit(
    file: Path,
    output: Path,
    *,
    images: str | None = None,
    column: str | None = None,
    quotes: bool = True,
    report_to: Path | None = None,
    duplicates_to: Path | None = None,
    confirms: bool = False,
) -> CaptionedSet | None:
    """Find what is wrong with what was asked for, by the first row of the data.

    Args:
        file: As of `audit`, like the others.
        output: Where results go.
        images: Where pictures are.
        column: Which holds the prompts.
        quotes: As in `read_prompt_file`.
        report_to: Where the report goes.
        duplicates_to: Where the list of duplicates goes.
        confirms: Whether captions are to be drawn and compared.

    Returns:
        The set, if it is one of captioned pictures; None for a file of prompts.

    Raises:
        InputError: the data or a place cannot be used.
        BackendUnavailable: what reads or writes a file, or draws a report, is not installed.
    """
    _check_outputs(file, output, report_to, duplicates_to)
    captioned = None
    if images is not None or has_pictures(file):
        captioned = open_captioned(file, images=images, column=column, quotes=quotes)
    elif confirms or duplicates_to is not None:
        wanted = "--duplicates out" if duplicates_to is not None else "confirming out"
        raise InputError(
            f"{file} has no pictures to compare with. Say where they are (--images), give a "
            f"folder of pictures or tar files, or leave {wanted}."
        )
    if duplicates_to is not None and not confirms:
        raise InputError(
            "Duplicates are found by what the pictures of a set are like, which the model's VAE "
            "and a copy descriptor tell where an audit draws captions (--confirm). To describe "
            "pictures and draw none, give --confirm-at-most 0 --confirm-unflagged 0 in place of "
            "--confirm 0; or leave --duplicates out."
        )
    if captioned is None:
        require_file(file)
        next(read_rows(file, column=column, quotes=quotes), None)
    else:
        next(iter(captioned.rows()), None)
    return captioned


def _check_outputs(file: Path, output: Path, page: Path | None, listed: Path | None) -> None:
    check_table(output)
    require_place(output, "--output", regular=True)
    paths = [each for each in (file, output, page, listed) if each is not None]
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(
            f"{file} is read; --output, --report and --duplicates are written. Name different "
            "files."
        )
    if listed is not None:
        check_table(listed)
        require_place(listed, "--duplicates", regular=True)
    if page is not None:
        figures.blank()
        require_place(page, "--report", regular=True)
