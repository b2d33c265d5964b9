"""`mnemoscope mitigate`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import BackendOptions, Bundle, InputError
from mnemoscope_runtime.errors import BundleError, CalibrationError

from .. import embedded
from ..calibration import CalibrationFile
from ..calibration.remedies import calibrate_command
from ..detector import Detector
from ..drawing.alignment import load_alignment
from ..drawing.sheets import ENDINGS, write_sheet
from ..plotting import require_plots
from ..quiet import quiet_libraries
from ..screening.opening import own_calibration
from ..shipped import bundle_option, is_shipped, model_of
from ._backends import say_unused
from ._comparison import LEARNT_ON, lists_of, write_comparison
from ._loading import LatentSizeOption, Loading, sides_of, takes_loading
from ._mitigated import note, tell, terms_of
from ._mitigating import (
    AUTO,
    TARGETED,
    check_family,
    descriptor_for,
    is_cut,
    memorised_those,
    on_what_is_usual,
    references_of,
    told_apart,
)
from ._options import (
    BackendOption,
    CalibrationOption,
    FormatOption,
    NoQuotesOption,
    TrustOption,
    check_columns,
    prompts_of,
    require_folder,
    require_place,
    say,
    stages,
    takes_backend_options,
)
from ._texts import refuse_files

__all__ = ["EPILOG", "command"]

EPILOG = """
[bold]Examples[/bold]

mnemoscope mitigate "google icon of tokyo tower, on rings, in zagreb 2020" --output tower.png

mnemoscope mitigate "a prompt" --model DIR --bundle BUNDLE --descriptor sscd.pt --clip CLIP -o a.png

mnemoscope mitigate --compare --output comparison

mnemoscope mitigate "a prompt" --model DIR --strategy guidance -o a.png

[bold]Exit codes[/bold]: 0 what was drawn passes, 1 it does not, 2 usage, 3 environment or backend,
4 bundle or calibration mismatch, 5 it was drawn, and not verified.
"""


@takes_backend_options
@takes_loading
def command(
    prompt: Annotated[str | None, typer.Argument(help="What to draw.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Image to write; with --compare a folder."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            show_default="auto; with --compare all",
            help="auto, embedding, stepwise, stepwise-firm, guidance, embedding-guidance, noise, "
            "leave-out, leave-out-stepwise, padding, attention, clamp, random-tokens, "
            "random-words or random-numbers; with --compare several, with commas.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Directory, .safetensors file, or hub id.",
            show_default="embedded; of a bundle that ships its own",
        ),
    ] = None,
    *,
    loading: Loading,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="The model's calibrated bundle. Pictures are drawn at the size of its latents.",
            show_default="the embedded model's",
        ),
    ] = None,
    latent_size: LatentSizeOption = None,
    calibration: CalibrationOption = None,
    trust: TrustOption = None,
    backend: BackendOption = "onnxruntime",
    options: BackendOptions,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many, one for each picture.")] = 1,
    reference: Annotated[
        list[Path] | None, typer.Option(help="Image that must not come out; may be repeated.")
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Magnitude to come down to.", show_default="of the calibration"),
    ] = None,
    level: Annotated[
        float, typer.Option(help="p-value up to which a prompt or a picture is suspicious.")
    ] = 0.05,
    descriptor: Annotated[
        str | None,
        typer.Option(
            help="Copy descriptor: sscd, if it is installed, or a file, TorchScript or ONNX.",
            show_default="for what ships its stand-in; for another sscd, or none",
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            help="CLIP, a directory or hub id.",
            show_default="for what ships its own; for another none",
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="All strategies on many prompts.")
    ] = False,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            "-f",
            help="--compare: memorised prompts.",
            show_default="the embedded model's",
        ),
    ] = None,
    benign: Annotated[
        str | None,
        typer.Option(
            help="File of prompts that are not memorised: what is usual is learnt from the first "
            "20, --compare shows what becomes of the next 20.",
            show_default="of what ships its own; for another random words",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the files that holds the prompt.")
    ] = None,
    no_quotes: NoQuotesOption = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="--compare: so many prompts.", show_default="all")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Steps.", show_default="of the bundle; without one its pipeline's"),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Classifier-free guidance; of FLUX.1 dev what it is told.",
            show_default="of the bundle; without one its pipeline's",
        ),
    ] = None,
    output_format: FormatOption = "table",
) -> None:
    """Draw a prompt so that the training picture does not come out, and check that it did not.

    `auto` screens the prompt first, and looks at the scores of its pictures, whether one is like a
    --reference, and whether several seeds draw one; a prompt that is not flagged is drawn as ever.
    A flagged one is drawn with one strategy after another until the picture is no copy, its score
    is one that benign prompts have, and it follows the prompt.
    Without SSCD nobody can tell whether another model's picture is a copy: it is drawn, and not
    verified.

    Needs the extra `torch`, and `plot` for --compare.
    """
    if compare == (prompt is not None):
        raise InputError("Give a PROMPT to draw, or --compare; one of them.")
    if prompt is not None and not prompt.strip():
        raise InputError("The prompt is empty, so there is nothing to mitigate. Give one.")
    refuse_files(
        [prompt] if prompt is not None else (),
        "Give one prompt of it, or --compare with --file.",
        "put a space behind it",
    )
    if not compare and (file is not None or limit is not None):
        raise InputError("--file and --limit belong to --compare. Leave them out, or add it.")

    check_columns(column, no_quotes, "--benign and --file", given=bool(benign or file))

    def screening(path: Path | None) -> Detector:
        found = Detector.load(
            path, calibration=calibration, backend=backend, trust=trust, **asdict(options)
        )
        say_unused(backend, options, found.screener.backend)
        return found

    model = model_of(bundle, model)
    if model is None and bundle is not None:
        raise InputError(
            f"Pictures are drawn by the model that {bundle} was exported from, which a bundle does "
            "not hold. Give it with --model."
        )
    own = memorised_those(model)
    if compare and not own and clip is None:
        raise InputError(
            "--compare tells copies against how pictures follow their prompts, and the embedded "
            "model's CLIP does not know those of a model of yours. Give --clip DIR."
        )
    if output is None:
        raise InputError("Name an image to write, or with --compare a folder: --output.")
    _require_place(output, compare=compare)
    if compare:
        require_plots()
    quiet_libraries()
    from ..mitigate import LADDER, STRATEGIES, Kit, Mitigator, Painter, Rule, Sampling, Yardstick

    chosen = _names(strategy, list(STRATEGIES), LADDER, compare=compare)
    if target is not None and not TARGETED & set(chosen):
        raise InputError(f"--target is for {', '.join(sorted(TARGETED))}. Leave it out.")
    rule = Rule(1.0, level)  # checked before anything is loaded
    given = references_of(reference or [], own=own)
    path = embedded.BUNDLE if model is None else bundle
    if not compare and AUTO in chosen and path is None:
        raise CalibrationError(
            "`auto` screens first, which takes a calibrated bundle of the model. Give "
            f"{bundle_option(model)}, or name a --strategy."
        )
    known = _calibration(path, calibration, trust)
    if not compare and AUTO in chosen and known is None:
        raise CalibrationError(
            f"`auto` screens first, and {path} has no calibration. Make one with "
            f"`{calibrate_command(path)}`, or name a --strategy."
        )
    opened = None if path is None else Bundle.open(path, trust=trust)
    usual = Sampling() if opened is None else Sampling.of(opened.manifest)
    sampling = usual.but(steps, guidance)
    yardstick = Yardstick() if opened is None else Yardstick.of(known, opened, sampling)
    sides = _sides(opened, latent_size)
    read = partial(prompts_of, column=column, quotes=not no_quotes)
    others = told_apart(read(benign), opened) if benign is not None else []
    memorized = told_apart(read(file), opened) if file is not None else None
    if path is not None and is_shipped(path) and benign is None:
        others = [row.prompt for row in embedded.read_prompts("calibration")[:LEARNT_ON]]
    with ExitStack() as stack:
        detector = None
        if AUTO in chosen and (known is not None or not compare):
            detector = stack.enter_context(screening(path))
        if detector is not None and prompt is not None:
            detector.check(prompt)
        painter = Painter.load(model, options=loading.options(sides))
        if opened is None:
            sampling = painter.sampling(steps, guidance)
        drawing, _ = painter.model.guided(sampling.guidance)
        if opened is not None and (why := drawing.unlike(opened.manifest.model, opened.path)):
            raise BundleError(why)
        kit = Kit(painter, yardstick, target, others[:LEARNT_ON], sampling)
        if strategy is not None:
            check_family(kit, chosen)
        judge, notes = descriptor_for(descriptor, painter, own=own, compare=compare)
        alignment = load_alignment(clip) if own or clip is not None else None
        mitigator = Mitigator(painter, judge, alignment, yardstick, sampling, kit.benign)
        rule = replace(rule, copied_above=judge.copied_above)
        numbers = range(seed, seed + seeds)
        for each in (*notes, *on_what_is_usual(kit, chosen)):
            say(each)
        if compare:
            if strategy is None and painter.model.family != "sd1":
                chosen.remove("padding")
                say("padding is for Stable Diffusion 1.x, and is left out.")
            if strategy is None and painter.model.predictor != "unet":
                chosen.remove("attention")
                say("attention is for Stable Diffusion 1.x, 2.x and XL, and is left out.")
            if AUTO in chosen and detector is None:
                say("auto is left out: it screens first, which takes a calibrated bundle.")
            names = [name for name in chosen if name != AUTO]
            lists = lists_of(memorized, limit, others)
            write_comparison(mitigator, kit, rule, names, numbers, lists, detector, output)
            return
        assert prompt is not None
        if is_cut(painter.model, prompt):
            say("the prompt has more tokens than the model reads: its end is not seen nor drawn.")
        with stages("preparing the strategy" if detector is None else "screening it") as progress:
            if detector is None:
                named = kit.make(chosen[0])
                done = mitigator.mitigate(
                    prompt, named, numbers, references=given, rule=rule, progress=progress
                )
            else:
                ladder = map(kit.make, LADDER)  # made when it is their turn: learning draws
                done = mitigator.auto(
                    prompt, ladder, detector, numbers,
                    references=given, rule=rule, progress=progress,
                )  # fmt: skip
    write_sheet(output, [each.image for each in done.pictures])
    terms = terms_of(path, mitigator, rule, own=own and not reference)
    tell(done, terms, output, output_format)
    note(done, rule, path, model)
    raise typer.Exit(0 if done.passed else 5 if done.verified is None else 1)


def _sides(bundle: Bundle | None, latent_size: str | None) -> tuple[int, int] | None:
    """Height and width of the latents: the bundle's, or those asked for; None for the model's."""
    asked = None if latent_size is None else sides_of(latent_size)
    if bundle is None:
        return asked
    _, _, height, width = bundle.manifest.noise_bank.shape
    if asked not in (None, (height, width)):
        raise InputError(
            f"{bundle.path} is of latents of {height}x{width}, which is what mitigate draws with a "
            "bundle. Leave --latent-size out, or give a bundle of that size (`mnemoscope export "
            f"--latent-size {latent_size}`)."
        )
    return height, width


def _names(
    given: str | None, known: Sequence[str], ladder: Sequence[str], *, compare: bool
) -> list[str]:
    """Strategies that are asked for, `auto` among them where it is.

    With --compare `auto` takes what the strategies that it tries have drawn, so these are too.
    """
    if given is None:
        return [*known, AUTO] if compare else [AUTO]
    names = [each.strip() for each in given.split(",")] if compare else [given]
    if compare:  # what is drawn without one is always shown
        names = [name for name in names if name != "none"]
    for name in names:
        if name not in (*known, AUTO):
            raise InputError(
                f"There is no strategy {name!r}. Choose auto, or one of: {', '.join(known)}."
            )
    if compare and AUTO in names:
        names += ladder
    return list(dict.fromkeys(names))


def _require_place(output: Path, *, compare: bool) -> None:
    """Refuse, before anything is drawn, what could not be written afterwards."""
    if not compare:
        require_place(output, "--output", *ENDINGS)
    elif output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file, and --compare writes a folder.")
    else:
        require_folder(output, "--output")


def _calibration(
    bundle: Path | None, file: Path | None, trust: Path | None
) -> CalibrationFile | None:
    if file is None and bundle is not None:
        file = own_calibration(bundle)
    if file is not None and bundle is None:
        raise InputError("A calibration belongs to a bundle. Give it too: --bundle.")
    return None if file is None else CalibrationFile.read(file, trust=trust)
