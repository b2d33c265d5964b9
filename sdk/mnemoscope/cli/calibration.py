"""`mnemoscope calibration`: look at calibrations, merge them, see whether they are still good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mnemoscope_runtime import CalibrationError, InputError

from ..calibration import CalibrationFile
from .calibrate import describe

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Inspect and merge calibrations; see whether traffic has drifted."
)


@app.command("inspect")
def inspect(file: Annotated[Path, typer.Argument(help="Calibration file.")]) -> None:
    """Show what was calibrated and what each threshold promises."""
    for each in CalibrationFile.read(file).calibrations:
        typer.echo(describe(each))


@app.command("merge")
def merge(
    files: Annotated[list[Path], typer.Argument(help="Calibration files of one bundle.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
) -> None:
    """Make one file of several: all their settings, and in each the benign prompts of all."""
    first, *others = map(CalibrationFile.read, files)
    for other in others:
        first = first.merged(other)
    first.write(output)
    for each in first.calibrations:
        typer.echo(describe(each))
    typer.echo(f"calibration {output}")


class _Result(msgspec.Struct):
    """A line of `mnemoscope screen --format json`, as far as it matters here."""

    score: float
    detector: str
    backend: str
    bundle: str
    steps: int
    noises: int
    first: str | None = None


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="Calibration file.")],
    recent: Annotated[
        Path, typer.Option(help="What `mnemoscope screen --format json` wrote of recent traffic.")
    ],
    level: Annotated[float, typer.Option(help="p-value below which it is said to drift.")] = 0.01,
) -> None:
    """Test whether recent prompts, benign in the main, score higher than the calibrated ones did.

    Exit code 1 if so: calibrate again on recent benign prompts.
    """
    if not 0 < level < 1:
        raise InputError(f"A level lies between 0 and 1, {level} does not.")
    known = CalibrationFile.read(file)
    results = _read(recent)
    first = results[0]
    for each in results:
        if _setting(each) != _setting(first):
            raise InputError(f"{recent} mixes settings. Give the results of one.")
    wanted = _setting(first)
    for calibration in known.calibrations:
        s = calibration.setting
        before = None if s.first is None else str(s.first)
        if (s.bundle, s.backend, s.detector, s.steps, s.noises, before) == wanted:
            break
    else:
        raise CalibrationError(
            f"{file} has no calibration of what {recent} holds ({first.detector}, "
            f"{first.backend}, {first.steps} step(s), {first.noises} noise(s), "
            f"{f'after {first.first}, ' if first.first else ''}bundle {first.bundle[:12]}). "
            f"`mnemoscope calibration inspect {file}` shows what it has."
        )
    drift = calibration.drift([each.score for each in results], level)
    verdict = (
        "recent prompts score higher than those calibrated on: the promised rate may no longer "
        "hold. Calibrate again on recent benign prompts"
        if drift.drifted
        else "no sign that recent prompts score higher than those calibrated on"
    )
    typer.echo(
        f"{verdict} (p = {drift.p_value:.2g}, {drift.recent:,} recent against "
        f"{len(calibration.scores):,} calibrated)"
    )
    raise typer.Exit(1 if drift.drifted else 0)


def _setting(result: _Result) -> tuple[str, str, str, int, int, str | None]:
    each = result
    return each.bundle, each.backend, each.detector, each.steps, each.noises, each.first


def _read(file: Path) -> list[_Result]:
    try:
        results = msgspec.json.Decoder(_Result).decode_lines(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is not what `mnemoscope screen --format json` writes: {error}."
        ) from None
    if not results:
        raise InputError(f"{file} holds no results. Screen some prompts first.")
    return results
