"""`mnemoscope evaluate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnemoscope_runtime import Backend, BackendOptions, Bundle, InputError

from .. import embedded
from ..benchmark.latency import environment
from ..detectors import CHOICES, DETECTORS, Statistic
from ..detectors.magnitude import Magnitude
from ..evaluate import PromptLists, Scored, judge, score, style_aucs
from ..evaluate.files import write
from ..evaluate.paper import GUIDANCE, INFERENCE_STEPS, follow, load_model, scored_by, written
from ..evaluate.pictures import blank
from ..evaluate.report import Evaluation, Grid
from ..prompts import read_labelled_file
from ..quiet import quiet_libraries
from ..screening.opening import open_screener
from ._backends import choose_backend, say_unused
from ._detectors import ModelOption, check_model, open_detectors
from ._options import (
    BackendOption,
    NoQuotesOption,
    TrustOption,
    numbers,
    progress_bar,
    prompts_of,
    require_folder,
    say,
    takes_backend_options,
)

__all__ = ["command"]

_GENERATIONS = "4"  # the paper's default
Subject = dict[str, str]


def _detectors(names: str, backend: str, bundle: Path, trust: Path | None) -> list[str]:
    if names != "all":
        return list(dict.fromkeys(name.strip() for name in names.split(",")))
    manifest = Bundle.open(bundle, trust=trust).manifest
    taps = ["taps"] if manifest.taps else []
    if manifest.unit != "eps":
        say("Of flows the magnitude and taps are measured, and the other detectors are left out.")
        return [Magnitude.name, *taps]
    drawing = [name for name, each in DETECTORS.items() if each.draws]
    say(f"{', '.join(drawing)} take whole pictures, and are left out: name them.")
    inside = [n for n, each in DETECTORS.items() if each.needs_torch and not each.draws]
    if backend.startswith("torch"):
        return [name for name in DETECTORS if name not in drawing] + taps
    say(f"{', '.join(inside)} need --backend torch, and are left out.")
    return [name for name in DETECTORS if name not in drawing + inside] + taps


class Protocol(StrEnum):
    """Which noises prompts are measured on."""

    bundle = "bundle"
    paper = "paper"


@takes_backend_options
def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to judge.", show_default="embedded")
    ] = None,
    positives: Annotated[
        str | None,
        typer.Option(help="File of memorised prompts.", show_default="the embedded model's"),
    ] = None,
    negatives: Annotated[
        str | None,
        typer.Option(
            help="File of other prompts, written in the same style.",
            show_default="the embedded model's",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the files that holds the prompt.")
    ] = None,
    no_quotes: NoQuotesOption = False,
    label: Annotated[
        str | None, typer.Option(help="Column of --positives to break the figures down by.")
    ] = None,
    detector: Annotated[
        str, typer.Option(help=f"Detectors, with commas, or all: {CHOICES}.")
    ] = "magnitude",
    steps: Annotated[str, typer.Option(help="Numbers of denoising steps, with commas.")] = "1",
    noises: Annotated[
        str | None, typer.Option(help="Numbers of noises, with commas.", show_default="all")
    ] = None,
    trust: TrustOption = None,
    backend: BackendOption = "onnxruntime",
    model: ModelOption = None,
    *,
    options: BackendOptions,
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="bundle: its graphs and noise bank. paper: Wen et al.'s, with --model in PyTorch "
            "and new noises for every prompt; writes the magnitudes of every step to --output."
        ),
    ] = Protocol.bundle,
    gen_seed: Annotated[int, typer.Option(help="paper: seed of each list's first prompt.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for report.json, report.md and report.html."),
    ] = None,
) -> None:
    """Judge detectors on prompts known to be memorised and on others: the detection table.

    Intervals are of a bootstrap over groups of near duplicates. What the text alone gives away is
    shown beside it.

    Needs the extra `calibrate`, and `plot` for --output.
    """
    paper = protocol is Protocol.paper
    if paper and (bundle is not None or backend != "onnxruntime" or detector != "magnitude"):
        raise InputError(
            "The paper's protocol measures the magnitude with the model itself in PyTorch. Give "
            "the model with --model, and neither BUNDLE, --backend nor --detector."
        )
    if not paper and gen_seed != 0:
        raise InputError("--gen-seed belongs to --protocol paper. Leave it out.")
    if not paper:
        check_model(model, [backend], [name.strip() for name in detector.split(",")])
    others = [option for option in options.given if option not in ("device", "threads")]
    if paper and others:
        raise InputError(
            f"The paper's protocol runs no engines, and takes no {', '.join(others)}. Leave "
            f"{', '.join(f'--{option}' for option in others)} out."
        )
    if paper and output is None:
        raise InputError("The paper's protocol writes what it measures. Name a folder: --output.")
    own = model is None if paper else bundle is None
    lists = _lists(positives, negatives, column, label, own=own, quotes=not no_quotes)
    lengths = numbers(steps, "--steps")
    if output is not None:
        _prepare(output)
    if output is not None and paper:
        counts = numbers(noises or _GENERATIONS, "--noises")
        scored, subject = _by_paper(
            lists,
            lengths,
            counts,
            model,
            gen_seed,
            "cpu" if options.device is None else f"cuda:{options.device}",
            options.threads,
            output,
        )
    else:
        lists, scored, subject = _by_bundle(
            lists,
            open_detectors(
                _detectors(detector, backend, bundle or embedded.BUNDLE, trust), bundle, model
            ),
            lengths,
            numbers(noises, "--noises") if noises is not None else None,
            bundle or embedded.BUNDLE,
            *choose_backend(backend, bundle, model, options),
            trust,
        )
    evaluation = Evaluation(
        subject=subject,
        environment=environment(options.threads),
        lists=lists,
        scored=scored,
        rows=judge(scored, lists),
        style=style_aucs(lists),
    )
    _show(evaluation)
    for file in write(evaluation, output) if output is not None else ():
        typer.echo(f"report {file}")


def _by_bundle(
    lists: PromptLists,
    detectors: list[Statistic],
    steps: list[int],
    noises: list[int] | None,
    bundle: Path,
    backend: str | Backend,
    options: BackendOptions,
    trust: Path | None,
) -> tuple[PromptLists, list[Scored], Subject]:
    with (
        open_screener(bundle, backend, options, detectors, trust=trust) as screener,
        progress_bar("measuring") as progress,
    ):
        if isinstance(backend, str):
            say_unused(backend, options, screener.backend)
        lists = lists.told_apart(screener.tokenizer.digests)
        scored = score(
            screener, lists, detectors=detectors, steps=steps, noises=noises, progress=progress
        )
        manifest = screener.bundle.manifest
        return (
            lists,
            scored,
            {
                "model": manifest.model.id,
                "weights_sha256": manifest.model.weights_sha256,
                "bundle": screener.bundle.id,
                "precision": manifest.precision,
                "backend": screener.backend.name,
                "noises": "the bundle's noise bank, the same for every prompt",
            },
        )


def _by_paper(
    lists: PromptLists,
    steps: list[int],
    generations: list[int],
    name: str | None,
    gen_seed: int,
    device: str,
    threads: int | None,
    output: Path,
) -> tuple[list[Scored], Subject]:
    if max(steps) > INFERENCE_STEPS or gen_seed < 0:
        raise InputError(
            f"The paper's protocol has {INFERENCE_STEPS} steps and seeds from 0 on: --steps "
            f"{max(steps)} with --gen-seed {gen_seed} cannot be measured."
        )
    quiet_libraries()
    model = load_model(str(name or embedded.MODEL), device, threads)
    files = {
        "memorized_prompts.jsonl": lists.positives,
        "non_memorized_prompts.jsonl": lists.negatives,
    }
    tracks = []
    with progress_bar("drawing") as progress:
        for file, prompts in files.items():
            found = follow(
                model, prompts, steps=max(steps), generations=max(generations), gen_seed=gen_seed
            )
            for track in written(found, output / file):
                tracks.append(track)
                progress(len(tracks), len(lists.prompts))
            say(f"magnitudes of every step are in {output / file}")
    return scored_by(tracks, steps, generations), {
        "model": model.id,
        "weights_sha256": model.weights_sha256(),
        "precision": "float32",
        "device": device,
        "sampler": f"DDIM, {INFERENCE_STEPS} steps, guidance {GUIDANCE}",
        "noises": f"new for every prompt, seed {gen_seed} + its position in its list, from 0",
    }


def _lists(
    positives: str | None,
    negatives: str | None,
    column: str | None,
    label: str | None,
    *,
    own: bool,
    quotes: bool,
) -> PromptLists:
    if (positives is None) != (negatives is None):
        raise InputError("Give both --positives and --negatives, or neither.")
    if positives is None or negatives is None:
        if not own:
            raise InputError(
                "The embedded captions mean nothing to another model. Give files of prompts that "
                "this one memorised (--positives) and did not (--negatives)."
            )
        if label is not None or column is not None or not quotes:
            raise InputError("--label, --column and --no-quotes are about files. Give --positives.")
        known, others = (
            [row.prompt for row in embedded.read_prompts(*splits)]
            for splits in (("memorized",), ("seen", "held_out"))
        )
        return PromptLists.of(known, others, tell=_quiet)
    others = prompts_of(negatives, column, quotes=quotes)
    if label is None:
        return PromptLists.of(prompts_of(positives, column, quotes=quotes), others, tell=_quiet)
    pairs = list(read_labelled_file(positives, label=label, column=column, quotes=quotes, tell=say))
    known, labels = [prompt for prompt, _ in pairs], [kind for _, kind in pairs]
    return PromptLists.of(known, others, labels=labels, tell=_quiet)


def _quiet(_: str) -> None:
    """Notes are shown with the table, and written into reports."""


def _prepare(output: Path) -> None:
    """Find out before measuring for an hour whether a report can be written."""
    blank(1, 1)
    require_folder(output, "--output")
    output.mkdir(parents=True, exist_ok=True)


def _show(evaluation: Evaluation) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a pipe has no width, and figures must not be cut
    for grid in evaluation.grids():
        console.print(_table(grid))
    for note in evaluation.notes:
        say(note)


def _table(grid: Grid) -> Table:
    table = Table(title=grid.title, title_justify="left", box=None)
    for name in grid.header:
        table.add_column(name)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table
