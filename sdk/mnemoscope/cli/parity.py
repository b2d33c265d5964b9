"""`mnemoscope parity`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from mnemoscope_runtime import BackendOptions, InputError

from .. import embedded
from ..benchmark.precision import Comparison, compare
from ..detector import Detector
from ..prompts.printable import counted
from ._backends import choose_backend, options_of_each, say_unused
from ._detectors import ModelOption, check_model
from ._options import (
    FormatOption,
    NoisesOption,
    NoQuotesOption,
    TrustOption,
    check_columns,
    progress_bar,
    prompts_of,
    say,
    takes_backend_options,
)

__all__ = ["command"]


@takes_backend_options
def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to judge.", show_default="embedded")
    ] = None,
    backend: Annotated[str, typer.Option(help="Backend to judge.")] = "onnxruntime",
    reference: Annotated[
        Path | None, typer.Option(help="Bundle to compare with.", show_default="BUNDLE")
    ] = None,
    reference_backend: Annotated[
        str, typer.Option(help="Backend to compare with.")
    ] = "onnxruntime",
    positives: Annotated[
        str | None,
        typer.Option(help="File of memorised prompts.", show_default="the embedded model's"),
    ] = None,
    benign: Annotated[
        str | None,
        typer.Option(help="File of other prompts.", show_default="the embedded model's"),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the files that holds the prompt.")
    ] = None,
    no_quotes: NoQuotesOption = False,
    noises: NoisesOption = None,
    model: ModelOption = None,
    trust: TrustOption = None,
    *,
    options: BackendOptions,
    force: Annotated[
        bool, typer.Option(help="Accept a lower TPR, too few prompts, or another model.")
    ] = False,
    output_format: FormatOption = "table",
) -> None:
    """Compare what two precisions or backends say of the same prompts.

    Exit code 3 if TPR@1%FPR falls by more than half a point.
    """
    check_model(model, [backend, reference_backend])
    check_columns(column, no_quotes, "--positives and --benign", given=bool(positives or benign))
    judged = bundle or embedded.BUNDLE
    other = reference or judged
    if (judged.resolve(), backend) == (other.resolve(), reference_backend):
        raise InputError(
            f"{backend} on {judged} would be compared with itself. Give a BUNDLE of another "
            "precision, or a --backend other than the reference's."
        )
    read = partial(prompts_of, column=column, quotes=not no_quotes)
    memorized = _prompts(positives, read, "memorized")
    others = _prompts(benign, read, "seen", "held_out")
    if both := set(memorized) & set(others):
        raise InputError(
            f"The lists share {counted(len(both), 'prompt')}, such as {min(both)!r}. A prompt is "
            "memorised or it is not: take it out of one."
        )
    prompts = memorized + others
    weights, floors = set(), []

    told = options_of_each([backend, reference_backend], options)

    def scores(path: Path, name: str) -> np.ndarray:
        own = None if path == embedded.BUNDLE else path
        runs, rest = choose_backend(name, own, model, told[name])
        with Detector.load(
            path, backend=runs, uncalibrated="score", trust=trust, **asdict(rest)
        ) as detector:
            say_unused(name, told[name], detector.screener.backend)
            floors.append(detector.screener.smallest_magnitude)
            weights.add(detector.screener.bundle.manifest.model.weights_sha256)
            if len(weights) > 1 and not force:
                raise InputError(
                    f"{judged} was exported from other weights than {other}, so their scores say "
                    "nothing of each other. Give two exports of one model; if they are (one made "
                    "from ONNX, for one), pass --force."
                )
            with progress_bar(f"{name} on {path.name}") as progress:
                found = []
                for each in detector.stream(prompts, noises=noises):
                    found.append(each.score)
                    progress(len(found), len(prompts))
            return np.array(found)

    labels = np.arange(len(prompts)) < len(memorized)
    expected, found = scores(other, reference_backend), scores(judged, backend)
    comparison = compare(expected, found, labels, max(floors))
    if output_format == "json":
        typer.echo(json.dumps(asdict(comparison), indent=2))
    else:
        _print(comparison)
    if not force:
        comparison.check()


def _prompts(
    file: str | None, read: Callable[[str], list[str]], *splits: embedded.Split
) -> list[str]:
    if file is None:
        return [row.prompt for row in embedded.read_prompts(*splits)]
    found = read(file)
    prompts = [prompt for prompt in found if prompt]
    if not prompts:
        raise InputError(f"{file} holds no prompts. Give a file with some.")
    if empty := len(found) - len(prompts):
        say(f"{empty} empty prompts of {file} are left out: they score 0 wherever they run.")
    return prompts


def _print(comparison: Comparison) -> None:
    rows = {
        "prompts": str(comparison.prompts),
        "relative error": f"median {comparison.median_error:.1e}, "
        f"largest {comparison.largest_error:.1e}",
        "rank correlation": f"{comparison.rank_correlation:.6f}",
    }
    for name, pair in (("AUC", comparison.auc), ("TPR@1%FPR", comparison.tpr)):
        if pair is not None:
            rows[name] = f"{pair[0]:.3f} -> {pair[1]:.3f}"
    for name, value in rows.items():
        typer.echo(f"{name:<16}  {value}")
