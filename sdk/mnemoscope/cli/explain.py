"""`mnemoscope explain`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console

from mnemoscope_runtime import BackendOptions, InputError
from mnemoscope_runtime.wording import counted

from .. import embedded
from ..detector import Detector
from ..explain import (
    DEFAULT,
    METHODS,
    EditOptions,
    Explainer,
    Explanation,
    Listed,
    Occlusion,
    Summary,
    Vocabulary,
    find_edits,
    load_attribution,
    load_model,
    read_lexicon,
    read_lists,
    summarize,
)
from ..explain.edits import Alternatives
from ..explain.pictures import show, show_flagged, show_summary, to_html
from ..explain.words import words_of
from ..prompts import read_prompt_file
from ..prompts.printable import json_text, printable
from ..quiet import quiet_libraries
from ..shipped import is_shipped, model_of
from ._backends import choose_backend, say_unused
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
    progress_bar,
    prompts_of,
    require_place,
    say,
    takes_backend_options,
    verdict_code,
)
from ._texts import refuse_files
from ._writers import opened

__all__ = ["EPILOG", "command"]

_NAMED = 5  # words that a note lists

EPILOG = f"""
[bold]Examples[/bold]

mnemoscope explain "google icon of tokyo tower, on rings, in zagreb 2020" --keep tower

mnemoscope explain "a prompt" --method gradient --format html --output why.html

mnemoscope explain --file prompts.txt --format json --output why.json
{EXIT_CODES}"""


class Format(StrEnum):
    """How an explanation is written."""

    heat = "heat"
    json = "json"
    html = "html"


@takes_backend_options
def command(
    prompt: Annotated[str | None, typer.Argument(help="The prompt.")] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", help="Many prompts: .txt, .jsonl, .csv, .tsv, .parquet, -."),
    ] = None,
    column: ColumnOption = None,
    no_quotes: NoQuotesOption = False,
    bundle: BundleOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model of the bundle, for gradients and torch.",
            show_default="of a bundle that ships its own",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help=f"How words are weighed: {', '.join(METHODS)}.")
    ] = DEFAULT,
    calibration: CalibrationOption = None,
    trust: TrustOption = None,
    backend: BackendOption = "onnxruntime",
    *,
    options: BackendOptions,
    detector: DetectorOption = "magnitude",
    noises: NoisesOption = None,
    steps: StepsOption = 1,
    edits: Annotated[
        bool | None,
        typer.Option(
            "--edits/--no-edits", help="Look for edits.", show_default="for a single prompt"
        ),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Words that must stay; may be repeated.")
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Score that edits have to get under.", show_default="the threshold"),
    ] = None,
    replacements: Annotated[
        Path | None, typer.Option(help="What may replace words: lines `word: other, other`.")
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            help="File of prompts whose words may replace others.",
            show_default="the embedded captions, for a bundle that ships",
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1, help="The most prompts to score for edits.", show_default=f"{EditOptions.budget}"
        ),
    ] = None,
    lexicon: Annotated[
        Path | None,
        typer.Option(help="Kinds of words: lines `kind: word, word`."),
    ] = None,
    output_format: Annotated[
        Format | None,
        typer.Option("--format", help="How to write it.", show_default="heat, or by ending"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", show_default="stdout")
    ] = None,
) -> None:
    """Show which words a prompt's score comes from, and what to change.

    Gradients need the extra `torch`, occlusion does not. With --file also: which
    words trigger most, and what kind of words they are.
    """
    if (prompt is None) == (file is None):
        raise InputError("Give one prompt to explain, or --file FILE (- for stdin).")
    refuse_files(
        [prompt] if prompt is not None else (),
        "Give it with --file.",
        "give it through a pipe: `echo TEXT | mnemoscope explain --file -`",
    )
    check_columns(column, no_quotes, "--file", given=file is not None)
    chosen = output_format or _by_ending(output)
    if output is not None:
        require_place(output, "--output")
    prompts = (
        [prompt] if prompt is not None else prompts_of(file or "", column, quotes=not no_quotes)
    )
    given = len(prompts)
    if file is not None:
        prompts = [each for each in prompts if each.strip()]
        if not prompts:
            raise InputError(f"All prompts of {file} are empty, so there is nothing to explain.")
    wanted = edits if edits is not None else file is None
    ships = bundle is None or is_shipped(bundle)
    about_edits = {
        "--keep": keep,
        "--target": target,
        "--replacements": replacements,
        "--vocabulary": vocabulary,
        "--budget": budget,
    }
    unused = [option for option, value in about_edits.items() if value is not None]
    if unused and not wanted:
        verb = "is" if len(unused) == 1 else "are"
        way = "Pass --edits" if edits is None else "Drop --no-edits"
        raise InputError(
            f"{', '.join(unused)} {verb} about edits, and no edits are looked for. {way}, or leave "
            f"{'it' if len(unused) == 1 else 'them'} out."
        )
    listed = read_lists(replacements) if replacements is not None else {}
    kept = [word for phrase in keep or () for word in words_of(phrase)]
    _note_unused(kept, listed, prompts, several=file is not None)
    editing = EditOptions(
        keep=tuple(kept),
        target=target,
        alternatives=_alternatives(listed, vocabulary, ships=ships) if wanted else None,
        budget=EditOptions.budget if budget is None else budget,
        signs=True,
    )
    kinds = read_lexicon(embedded.LEXICON) if ships else {}
    kinds |= read_lexicon(lexicon) if lexicon is not None else {}
    attribution = Occlusion() if method == "occlusion" else _gradient(method, bundle, model)
    runs, told = choose_backend(backend, bundle, model, options)
    if model is not None and isinstance(runs, str) and isinstance(attribution, Occlusion):
        raise InputError(
            f"--model is for gradients and the torch backends, and occlusion on {backend} runs the "
            "bundle alone. Leave --model out, or pass --method gradient or --backend torch."
        )
    with (
        Detector.load(
            bundle,
            backend=runs,
            **asdict(told),
            calibration=calibration,
            detector=detector,
            uncalibrated="score" if calibration is None else "raise",
            trust=trust,
        ) as screen,
        progress_bar("explaining") as progress,
    ):
        say_unused(backend, options, screen.screener.backend)
        explainer = Explainer(screen, attribution, lexicon=kinds)
        found = []
        for done, each in enumerate(prompts, 1):
            explanation = explainer.explain(each, steps=steps, noises=noises)
            if wanted:
                explanation = _with_edits(screen, explanation, editing, several=file is not None)
            found.append(explanation)
            progress(done, len(prompts))
        unjudged = screen.missing(steps=steps, noises=noises)
    summary = summarize(found) if file is not None else None
    with opened(output) as stream:
        _write(chosen, stream, found, summary)
    if output is not None:
        typer.echo(output)
    if unjudged is not None:
        no_edits = wanted and target is None
        way = " Edits can do with --target." if no_edits else ""
        say(f"no verdicts{' and no edits' if no_edits else ''}. {unjudged}{way}")
    truncated = [each for each in found if each.unread]
    if truncated:
        say(
            f"{len(truncated)} of the prompts had more tokens than the model reads. What it does "
            "not see is struck out, and `unread` in JSON."
        )
    if empty := given - len(prompts):
        say(f"{counted(empty, 'empty prompt')} of {file} left out: there are no words to explain.")
    flagged = any(each.memorized for each in found)
    raise typer.Exit(verdict_code(flagged=flagged, judged=unjudged is None and not empty))


def _gradient(method: str, bundle: Path | None, model: str | None) -> Any:
    if method not in METHODS:
        load_attribution(method)  # says which there are
    model = model_of(bundle, model)
    if bundle is not None and model is None:
        raise InputError(
            f"A gradient is that of the model {bundle} was exported from, which a bundle does not "
            "hold. Give it with --model, or explain by --method occlusion."
        )
    quiet_libraries()
    return load_attribution(method, load_model(model))


def _alternatives(
    listed: dict[str, list[str]], vocabulary: Path | None, *, ships: bool
) -> Alternatives | None:
    """What the options allow to replace words; what a user listed comes first."""
    offered: list[Alternatives] = []
    if listed:
        offered.append(Listed(listed))
    if vocabulary is not None:
        offered.append(Vocabulary(read_prompt_file(vocabulary, tell=say)))
    elif ships and not listed:
        captions = embedded.read_prompts("seen", "held_out", "calibration")
        offered.append(Vocabulary(row.prompt for row in captions))
    if not offered:
        return None
    return lambda words, index: list(
        itertools.chain.from_iterable(each(words, index) for each in offered)
    )


def _note_unused(
    kept: Sequence[str],
    listed: Mapping[str, Sequence[str]],
    prompts: Sequence[str],
    *,
    several: bool,
) -> None:
    """Say which words of --keep and --replacements change nothing."""
    stay = {word.casefold() for word in kept}
    if both := [word for word in listed if word.casefold() in stay]:
        verb, them = ("stays", "it") if len(both) == 1 else ("stay", "them")
        say(
            f"{_named(both)} {verb}, as --keep says: what --replacements offers for {them} is not "
            "tried."
        )
    held = {word.casefold() for each in prompts for word in words_of(each)}
    whose = "none of the prompts holds" if several else "the prompt does not hold"
    for option, words in (("--keep", kept if several else ()), ("--replacements", listed)):
        if missing := [word for word in words if word.casefold() not in held]:
            say(f"{whose} {_named(missing)}, so {option} says nothing there. Check the spelling.")


def _named(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return ", ".join(printable(word, 40) for word in words[:_NAMED]) + more


def _quoted(explanation: Explanation) -> str:
    return repr(printable(explanation.prompt, 60))


def _with_edits(
    screen: Detector, explanation: Explanation, options: EditOptions, *, several: bool
) -> Explanation:
    """With edits; one of several prompts need not hold every word to keep."""
    if options.target is None and explanation.threshold is None:
        return explanation
    if several:
        held = {word.word.casefold() for word in explanation.words}
        options = replace(options, keep=tuple(w for w in options.keep if w.casefold() in held))
        if held == {word.casefold() for word in options.keep} and not explanation.signs:
            say(f"every word of {_quoted(explanation)} is to be kept, so no edits are looked for.")
            return explanation
    found = find_edits(
        screen, explanation.prompt, options, steps=explanation.steps, noises=explanation.noises
    )
    if found.needed and not found.found:
        which = _quoted(explanation) if several else "the prompt"
        ways = ["free more words"] if options.keep else []
        ways += ["allow other replacements"]
        ways += ["raise --budget"] if found.tried >= options.budget else []
        say(
            f"no edit brings {which} under {found.target:.4f} ({found.tried} tried). "
            f"{' or '.join(ways).capitalize()}."
        )
    return replace(explanation, edits=found.found)


def _write(
    chosen: Format, stream: IO[str], found: Sequence[Explanation], summary: Summary | None
) -> None:
    if chosen is Format.html:
        stream.write(to_html(found, summary))
    elif chosen is Format.json:
        rows = [each.as_json() for each in found]
        whole = rows[0] if summary is None else {"explanations": rows, **summary.as_json()}
        stream.write(json_text(whole) + "\n")
    else:
        console = Console(file=stream, width=None if stream.isatty() else 120)
        if summary is not None:
            show_summary(console, summary)
            show_flagged(console, found)
        else:
            show(console, found[0])


def _by_ending(output: Path | None) -> Format:
    endings = {".json": Format.json, ".jsonl": Format.json, ".html": Format.html}
    endings |= {".txt": Format.heat, "": Format.heat}
    ending = "" if output is None else output.suffix.lower()
    if ending not in endings:
        raise InputError(
            f"Explanations are not written as {ending}. Name a .html, .json or .txt file, or pass "
            "--format."
        )
    return endings[ending]
