"""`mnemoscope screen`."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mnemoscope_runtime import BackendOptions, InputError, Manifest, MnemoscopeError
from mnemoscope_runtime.families import family_named
from mnemoscope_runtime.staging import unfinished
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT

from ..calibration.cascade import First
from ..detector import Detector
from ..prompts import Broken, read_rows
from ..prompts.printable import counted
from ..screening.detection import Detection
from ..screening.weighting import weighting
from ._backends import choose_backend, say_unused
from ._detectors import ModelOption, check_model, open_detectors
from ._options import (
    EXIT_CODES,
    BackendOption,
    BundleOption,
    CalibrationOption,
    ColumnOption,
    DetectorOption,
    NoisesOption,
    NoQuotesOption,
    StepsOption,
    TrustOption,
    check_columns,
    named,
    require_place,
    say,
    takes_backend_options,
    takes_first_stage,
    verdict_code,
)
from ._rows import screen_rows
from ._texts import refuse_files
from ._writers import Format, opened, printable, writer

__all__ = ["EPILOG", "command"]

EPILOG = f"""
[bold]Examples[/bold]

mnemoscope screen "google icon of rocket, huge" "a cat"

mnemoscope screen --file prompts.csv --format json --output results.jsonl

cat prompts.txt | mnemoscope screen --file - --steps 10
{EXIT_CODES}"""


@takes_backend_options
@takes_first_stage
def command(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts to screen.")] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", help=".txt, .jsonl, .csv, .tsv, .parquet, or - for stdin."),
    ] = None,
    column: ColumnOption = None,
    no_quotes: NoQuotesOption = False,
    bundle: BundleOption = None,
    calibration: CalibrationOption = None,
    trust: TrustOption = None,
    backend: BackendOption = "onnxruntime",
    model: ModelOption = None,
    *,
    options: BackendOptions,
    detector: DetectorOption = "magnitude",
    noises: NoisesOption = None,
    steps: StepsOption = 1,
    first: First | None,
    chunks: Annotated[
        bool,
        typer.Option(
            "--chunks",
            help="Read long prompts in chunks, as some pipelines do, and cut nothing off; there "
            "are scores of those, and no verdicts. Of a bundle exported with --any-length.",
        ),
    ] = False,
    output_format: Annotated[
        Format | None,
        typer.Option("--format", help="How to write results.", show_default="table, or by ending"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", show_default="stdout")
    ] = None,
) -> None:
    """Screen prompts: the score of each, and whether the model is about to recite.

    p is the share of benign prompts, counting this one, that score as high.
    """
    if not prompts and file is None:
        raise InputError("Nothing to screen. Give prompts, or --file FILE (- for stdin).")
    if prompts and file is not None:
        raise InputError("Give either prompts or --file, not both.")
    if file is not None and output is not None:
        _check_different(Path(file), output)
    refuse_files(
        prompts or (),
        "Give it with --file.",
        "give it through a pipe: `echo TEXT | mnemoscope screen --file -`",
    )
    check_columns(column, no_quotes, "--file", given=file is not None)
    if output is not None and output_format is None:
        _by_ending(output)
    if output is not None:
        require_place(output, "--output")
    told: list[str] = []
    source: Iterable[str | Broken] = prompts or ()
    if file is not None:
        source = read_rows(
            file, column=column, quotes=not no_quotes, longest=LONGEST_PROMPT, tell=told.append
        )
    broken: Counter[str] = Counter()
    flagged = screened = cleared = passes = truncated = in_chunks = empty = weighted = 0
    first_weighted: Detection | None = None
    check_model(model, [backend], [detector])
    runs, told_to = choose_backend(backend, bundle, model, options)
    [statistic] = open_detectors([detector], bundle, model)
    with Detector.load(
        bundle,
        backend=runs,
        **asdict(told_to),
        calibration=calibration,
        detector=statistic,
        first=first,
        uncalibrated="score" if calibration is None else "raise",
        trust=trust,
    ) as screen:
        if backend == "auto":
            typer.echo(f"backend: {screen.screener.backend.name}", err=True)
        say_unused(backend, options, screen.screener.backend)
        detections = _shown(
            screen_rows(screen, source, steps=steps, noises=noises, chunks=chunks),
            output is not None,
        )
        unjudged = screen.missing(steps=steps, noises=noises)
        begun = list(itertools.islice(detections, 1))
        if not begun:
            raise InputError(f"{named(file)} holds no prompts: there is nothing to say.")
        with _accounted(output, lambda: screened + broken.total()), opened(output) as stream:
            write = writer(output_format or _by_ending(output), stream)
            for detection in itertools.chain(begun, detections):
                write(detection)
                if isinstance(detection, Broken):
                    broken[detection.reason] += 1
                    continue
                flagged += bool(detection.memorized)
                truncated += detection.truncated
                empty += detection.empty
                unread = detection.memorized is None and not detection.empty
                in_chunks += unjudged is None and unread
                if weighting(detection.prompt):
                    weighted += 1
                    first_weighted = first_weighted or detection
                cleared += detection.cleared
                passes += detection.passes
                screened += 1
            if not screened and isinstance(begun[0], Broken):
                raise InputError(
                    f"None of the {counted(broken.total(), 'prompt')} of {named(file)} can be "
                    f"screened. The first: {begun[0].detail}"
                )
        reads = screen.screener.tokenizer.cut_at
        manifest = screen.screener.bundle.manifest
    if output is not None:
        judged = 0 if unjudged is not None else screened - in_chunks - empty
        rows = counted(screened + broken.total(), "prompt")
        say(f"{rows} in {output}: {judged} judged, {flagged} flagged.")
    for note in told:
        say(note)
    for reason, count in broken.items():
        say(
            f"{counted(count, 'prompt')} cannot be screened ({reason}): an `error`, and no verdict."
        )
    if unjudged is not None:
        say(f"no verdicts. {unjudged}")
    if first is not None:
        say(
            f"the first stage cleared {cleared:,} of {counted(screened, 'prompt')}; "
            f"{passes / screened:.3g} network passes a prompt on average."
        )
    if truncated:
        say(
            f"the bundle reads {reads} tokens, and {truncated} of the prompts had more (+ in the "
            "table, `truncated` in JSON and CSV). What came after was not screened. A plain "
            f"diffusers pipeline does not read it either{_read_in_chunks(manifest)}."
        )
    if in_chunks:
        say(
            f"{in_chunks} of the prompts were read in chunks. Their scores are on a scale of their "
            "own, so that there are no verdicts on them."
        )
    if empty:
        say(
            f"{empty} of the prompts are empty. There is nothing to compare with the empty prompt, "
            "so that there are no verdicts on them."
        )
    if first_weighted is not None:
        many = (
            f"{weighted} of the prompts hold signs that were read literally (`notes` in JSON and "
            "CSV). The first, "
        )
        said = f"{printable(first_weighted.prompt, 40)!r}: {printable(first_weighted.notes[-1])}"
        say(f"{many if weighted > 1 else ''}{said}")
    if prompts:
        _hint_at_quotes(prompts)
    raise typer.Exit(
        verdict_code(
            flagged=flagged > 0,
            judged=unjudged is None and not in_chunks + empty + broken.total(),
        )
    )


def _hint_at_quotes(prompts: list[str]) -> None:
    """Single words are seldom prompts: more likely a shell took one prompt apart."""
    if len(prompts) > 1 and all(len(prompt.split()) == 1 for prompt in prompts):
        whole = printable(shlex.quote(" ".join(prompts)), 60)
        typer.echo(
            f"hint: each of these {len(prompts)} words was screened as a prompt of its own. "
            f"If they are one prompt, put it in quotes: {whole}",
            err=True,
        )


def _read_in_chunks(manifest: Manifest) -> str:
    """What else may be said of long prompts, behind that a plain pipeline cuts them."""
    if manifest.any_length:
        return "; one that reads long prompts in chunks does: --chunks"
    if family_named(manifest.model.family).any_length:
        return (
            "; one that reads long prompts in chunks does: --chunks, of a bundle exported with "
            "--any-length"
        )
    return ""


@contextmanager
def _accounted(output: Path | None, screened: Callable[[], int]) -> Iterator[None]:
    """Says where results are that were measured before something went wrong."""
    try:
        yield
    except (MnemoscopeError, KeyboardInterrupt):
        if output is not None and screened() and (there := unfinished(output)).is_file():
            say(
                f"the first {counted(screened(), 'result')} are in {there}, and {output} is what "
                "it was before."
            )
        raise


def _check_different(file: Path, output: Path) -> None:
    for each in (output, unfinished(output)):
        if file.exists() and each.exists() and file.samefile(each):
            raise InputError(f"{each} is the file of prompts itself. Choose another --output.")


def _by_ending(output: Path | None) -> Format:
    if output is None:
        return Format.table
    ending = output.suffix.lower()
    endings = {".json": Format.json, ".jsonl": Format.json, ".csv": Format.csv}
    endings |= {".txt": Format.table, "": Format.table}
    if ending not in endings:
        raise InputError(
            f"Results are not written as {ending}. Name a .jsonl or .csv file, or pass --format."
        )
    return endings[ending]


def _shown(detections: Iterable[Detection | Broken], to_file: bool) -> Iterator[Detection | Broken]:
    """Show progress on stderr, unless results scroll by on the same terminal."""
    console = Console(stderr=True)
    if not console.is_terminal or (sys.stdout.isatty() and not to_file):
        yield from detections
        return
    columns = (SpinnerColumn(), TextColumn("screened"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(detections)
