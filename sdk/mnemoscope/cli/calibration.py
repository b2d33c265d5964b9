"""`mnemoscope calibration`: inspect, merge, carry, update; see whether they still hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mnemoscope_runtime import BackendOptions, CalibrationError, InputError

from .. import embedded
from ..calibration import CalibrationFile
from ..calibration.carrying import carry
from ..calibration.remedies import calibrate_command
from ..calibration.wording import describe
from ..prompts.printable import counted
from ..screening.opening import own_calibration
from ..shipped import is_shipped
from ._calibrations import CalibrationArgument, file_at, own_file_at, show
from ._options import (
    FormatOption,
    NoQuotesOption,
    TrustOption,
    check_columns,
    progress_bar,
    prompts_of,
    require_bundle,
    require_place,
    say,
    say_written,
    takes_backend_options,
)
from ._shipped import takes_names

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Inspect, merge, carry and update calibrations; see whether traffic has drifted.",
)


@app.command("inspect")
def inspect(
    file: CalibrationArgument = None,
    trust: TrustOption = None,
    output_format: FormatOption = "table",
) -> None:
    """Show what was calibrated and what each threshold promises."""
    show(CalibrationFile.read(file_at(file), trust=trust).calibrations, output_format)


@app.command("update")
def update(
    file: Annotated[
        Path, typer.Argument(help="Calibration file of an earlier version, or a bundle with one.")
    ],
) -> None:
    """Write a file of an earlier version anew, with digests that tell what is changed from then on.

    Nothing is measured. What the old file says is believed, unless it contradicts itself.
    """
    file = own_file_at(file)
    known = CalibrationFile.read(file, older=True)
    require_place(file, "FILE", regular=True)
    known.write(file)
    for each in known.calibrations:
        typer.echo(describe(each))
    say_written(file)


@app.command("merge")
def merge(
    files: Annotated[
        list[Path], typer.Argument(help="Calibration files of one bundle, or the bundle itself.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    trust: TrustOption = None,
) -> None:
    """Make one file of several: all their settings, and in each the benign prompts of all."""
    first, *others = (CalibrationFile.read(file_at(file), trust=trust) for file in files)
    for other in others:
        first = first.merged(other)
    first.write(output)
    for each in first.calibrations:
        typer.echo(describe(each))
    say_written(output)


@app.command("carry")
@takes_names
@takes_backend_options
def carry_over(
    target: Annotated[str, typer.Option("--to", help="Backend that is to have its thresholds.")],
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle that was calibrated.", show_default="embedded")
    ] = None,
    source: Annotated[
        str, typer.Option("--from", help="Backend that it was calibrated on.")
    ] = "onnxruntime",
    prompts: Annotated[
        str | None,
        typer.Option(
            help="File of prompts to compare both on, besides the bundle's probes: the benign ones."
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of --prompts.")] = None,
    no_quotes: NoQuotesOption = False,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Calibration file, which is added to.", show_default="the bundle's own"),
    ] = None,
    trust: TrustOption = None,
    *,
    options: BackendOptions,
) -> None:
    """Carry thresholds over from one backend to another, where both give the same scores.

    Nothing is carried over if a calibrated score lies so near to its threshold that the difference
    of the backends, times ten, could push it across: then calibrate the other backend itself.
    """
    check_columns(column, no_quotes, "--prompts", given=prompts is not None)
    path = bundle or embedded.BUNDLE
    if calibration is None and is_shipped(path):
        raise InputError(
            "This bundle is part of the installation, and so is its calibration, "
            f"{own_calibration(path)}. Name a copy of it with --calibration: that one is added to."
        )
    require_bundle(path)
    file = calibration or own_calibration(path)
    if file is None:
        raise CalibrationError(
            f"{path} has no calibration. Make one on {source} first: "
            f"`{calibrate_command(path, f'--backend {source}')}`."
        )
    known = CalibrationFile.read(file, trust=trust)
    require_place(file, "--calibration", regular=True)
    texts = prompts_of(prompts, column, quotes=not no_quotes) if prompts is not None else []
    with progress_bar("comparing") as progress:
        found = carry(
            known,
            path,
            source=source,
            target=target,
            prompts=texts,
            options=options,
            trust=trust,
            progress=progress,
            tell=say,
        )
    CalibrationFile.extend(file, found, trust=trust)
    for each in found:
        typer.echo(describe(each))
    say_written(file)


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
    recent: Annotated[
        Path, typer.Option(help="What `mnemoscope screen --format json` wrote of recent traffic.")
    ],
    file: CalibrationArgument = None,
    trust: TrustOption = None,
    level: Annotated[float, typer.Option(help="p-value below which it is said to drift.")] = 0.01,
) -> None:
    """Test whether recent prompts, benign in the main, score higher than the calibrated ones did.

    Exit code 1 if so: calibrate again on recent benign prompts.
    """
    if not 0 < level < 1:
        raise InputError(f"A level lies between 0 and 1, {level} does not.")
    known = CalibrationFile.read(path := file_at(file), trust=trust)
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
            f"{path} has no calibration of what {recent} holds ({first.detector}, "
            f"{first.backend}, {counted(first.steps, 'step')}, {counted(first.noises, 'noise')}, "
            f"{f'after {first.first}, ' if first.first else ''}bundle {first.bundle[:12]}). "
            f"`mnemoscope calibration inspect {path}` shows what it has."
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
        rows = msgspec.json.Decoder(dict[str, Any]).decode_lines(file.read_bytes())
        measured = [row for row in rows if row.get("error") is None]
        results = msgspec.convert(measured, list[_Result])
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is not what `mnemoscope screen --format json` writes: {error}."
        ) from None
    if not results:
        raise InputError(f"{file} holds no results. Screen some prompts first.")
    return results
