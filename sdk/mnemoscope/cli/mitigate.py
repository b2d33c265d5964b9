"""`mnemoscope mitigate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnemoscope_runtime import Bundle, InputError
from mnemoscope_runtime.errors import CalibrationError

from .. import embedded
from ..alignment import load_alignment
from ..calibration import CalibrationFile
from ..copies import load_descriptor
from ..detector import Detector
from ..opening import own_calibration
from ._comparison import LEARNT_ON, lists_of, write_comparison
from ._loading import (
    ClipSkipOption,
    ConfigOption,
    EmbeddingOption,
    LoraOption,
    NegativeOption,
    VariantOption,
    load_options,
)
from ._options import (
    BackendOption,
    CalibrationOption,
    DeviceOption,
    EnginesOption,
    NoQuotesOption,
    ThreadsOption,
    prompts_of,
    require_folder,
    require_place,
    say,
)
from ._quiet import quiet_libraries
from ._writers import printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from mnemoscope_export import StableDiffusion

    from ..mitigate import Mitigation, Rule

__all__ = ["EPILOG", "command"]

EPILOG = """
[bold]Examples[/bold]

mnemoscope mitigate "google icon of tokyo tower, on rings, in zagreb 2020" --output tower.png

mnemoscope mitigate "a prompt" --model DIR --bundle BUNDLE --descriptor sscd.pt --clip CLIP -o a.png

mnemoscope mitigate --compare --output comparison

[bold]Exit codes[/bold]: 0 what was drawn passes, 1 it does not, 2 usage, 3 environment or backend,
4 bundle or calibration mismatch.
"""
_AUTO = "auto"

_TARGETED = {_AUTO, "embedding", "embedding-guidance", "noise"}


class Format(StrEnum):
    """How what came of it is told."""

    table = "table"
    json = "json"


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
            help="auto, embedding, stepwise, guidance, embedding-guidance, noise, padding, "
            "attention, clamp, random-tokens, random-words or random-numbers; with --compare "
            "several, with commas.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Directory or hub id.", show_default="embedded")
    ] = None,
    variant: VariantOption = None,
    config: ConfigOption = None,
    lora: LoraOption = None,
    embedding: EmbeddingOption = None,
    clip_skip: ClipSkipOption = None,
    negative: NegativeOption = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="The model's calibrated bundle.", show_default="the embedded model's"),
    ] = None,
    calibration: CalibrationOption = None,
    backend: BackendOption = "onnxruntime",
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    engines: EnginesOption = None,
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
        Path | None,
        typer.Option(help="Copy descriptor, TorchScript or ONNX.", show_default="a stand-in"),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(help="CLIP, a directory or hub id.", show_default="the embedded model's own"),
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
            help="File of prompts that are not memorised: `stepwise` and `clamp` learn from the "
            "first 20, --compare shows what becomes of the next 20.",
            show_default="the embedded model's",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the files that holds the prompt.")
    ] = None,
    no_quotes: NoQuotesOption = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="--compare: so many prompts.", show_default="all")
    ] = None,
    steps: Annotated[int, typer.Option(help="DDIM steps, those of the bundle.")] = 50,
    guidance: Annotated[
        float, typer.Option(help="Classifier-free guidance, that of the bundle.")
    ] = 7.5,
    output_format: Annotated[
        Format, typer.Option("--format", help="How figures are told.")
    ] = Format.table,
) -> None:
    """Draw a prompt so that the training picture does not come out, and check that it did not.

    `auto` screens the prompt first; one that is not flagged is drawn as ever. A flagged one is
    drawn with one strategy after another until the picture is no copy, its score is one that benign
    prompts have, and it follows the prompt.

    Needs `pip install 'mnemoscope\\[torch]'`, and the extra `plot` for --compare.
    """
    if compare == (prompt is not None):
        raise InputError("Give a PROMPT to draw, or --compare; one of them.")
    if prompt is not None and not prompt.strip():
        raise InputError("The prompt is empty, so there is nothing to mitigate. Give one.")
    if not compare and (file is not None or limit is not None):
        raise InputError("--file and --limit belong to --compare. Leave them out, or add it.")
    screening = partial(
        Detector.load,
        calibration=calibration,
        backend=backend,
        threads=threads,
        device=device,
        engines=engines,
    )
    own = model is None
    if own and bundle is not None:
        raise InputError("Give the bundle's model too: --model.")
    if not own and (descriptor is None or clip is None):
        raise InputError(
            "Without --model's own copy descriptor and CLIP nobody can tell whether mitigation "
            "worked: the stand-ins know the embedded model's pictures only. Give --descriptor FILE "
            "(SSCD) and --clip DIR."
        )
    if output is None:
        raise InputError("Name an image to write, or with --compare a folder: --output.")
    _require_place(output, compare=compare)
    quiet_libraries()
    from ..mitigate import LADDER, STRATEGIES, Kit, Mitigator, Painter, Rule, Sampling, Yardstick

    chosen = _names(strategy, list(STRATEGIES), LADDER, compare=compare)
    if target is not None and not _TARGETED & set(chosen):
        raise InputError(f"--target is for {', '.join(sorted(_TARGETED))}. Leave it out.")
    sampling = Sampling(steps, guidance)
    rule = Rule(1.0, level)  # checked before anything is loaded
    given = _references(reference or [], own=own)
    path = embedded.BUNDLE if own else bundle
    known = _calibration(path, calibration)
    yardstick = Yardstick()
    opened = None
    if path is not None:
        opened = Bundle.open(path)
        yardstick = Yardstick.of(known, opened, sampling)
    options = load_options(
        variant=variant, config=config, lora=lora, embedding=embedding, clip_skip=clip_skip,
        negative=negative,
    )  # fmt: skip
    painter = Painter.load(model, options=options)
    if (
        opened is not None
        and (difference := painter.model.difference(opened.manifest.model)) is not None
    ):
        raise CalibrationError(
            f"{path} was exported from {opened.manifest.model.id}, {difference} of "
            f"{painter.model.id}: its scores say nothing of it. Give the bundle of this model, and "
            "load it as it was exported."
        )
    judges = load_descriptor(descriptor), load_alignment(clip)
    mitigator = Mitigator(painter, *judges, yardstick, sampling)
    read = partial(prompts_of, column=column, quotes=not no_quotes)
    others = read(benign) if benign is not None else []
    if own and benign is None:
        others = [row.prompt for row in embedded.read_prompts("calibration")[:LEARNT_ON]]
    kit = Kit(painter, yardstick, target, others[:LEARNT_ON], sampling)
    if benign is not None and 0 < len(others) < LEARNT_ON and {"stepwise", "clamp"} & set(chosen):
        say(f"what is benign is learnt from {len(others)} prompts; {LEARNT_ON} would be better.")
    rule = replace(rule, copied_above=mitigator.descriptor.copied_above)
    numbers = range(seed, seed + seeds)
    calibrated = path if known is not None else None
    if compare:
        if strategy is None and painter.model.family != "sd1":
            chosen.remove("padding")
            say("padding is for Stable Diffusion 1.x, and is left out.")
        lists = lists_of(file, read, limit, others)
        with ExitStack() as stack:
            detector = None
            if _AUTO in chosen and calibrated is None:
                say("auto is left out: it screens first, which takes a calibrated bundle.")
            elif _AUTO in chosen:
                detector = stack.enter_context(screening(calibrated))
            names = [name for name in chosen if name != _AUTO]
            write_comparison(mitigator, kit, rule, names, numbers, lists, detector, output)
        return
    assert prompt is not None
    if _is_cut(painter.model, prompt):
        say("the prompt has more tokens than the model reads: its end is neither seen nor drawn.")
    if strategy in (None, _AUTO):
        if path is None:
            raise CalibrationError(
                "`auto` screens first, which takes a calibrated bundle of the model. Give "
                "--bundle, or name a --strategy."
            )
        with screening(path) as detector:
            names = [name for name in LADDER if others or name != "stepwise"]
            if not others:
                say("stepwise is left out: it learns from benign prompts (--benign FILE).")
            ladder = map(kit.make, names)  # made when it is their turn: learning draws pictures
            done = mitigator.auto(prompt, ladder, detector, numbers, references=given, rule=rule)
    else:
        named = kit.make(chosen[0])
        done = mitigator.mitigate(prompt, named, numbers, references=given, rule=rule)
    _save(done, output)
    _tell(done, output, output_format)
    _note(done, rule)
    raise typer.Exit(0 if done.passed else 1)


def _names(
    given: str | None, known: Sequence[str], ladder: Sequence[str], *, compare: bool
) -> list[str]:
    """Strategies that are asked for, `auto` among them where it is.

    With --compare `auto` takes what the strategies that it tries have drawn, so these are too.
    """
    if given is None:
        return [*known, _AUTO] if compare else [_AUTO]
    names = [each.strip() for each in given.split(",")] if compare else [given]
    if compare:  # what is drawn without one is always shown
        names = [name for name in names if name != "none"]
    for name in names:
        if name not in (*known, _AUTO):
            raise InputError(
                f"There is no strategy {name!r}. Choose auto, or one of: {', '.join(known)}."
            )
    if compare and _AUTO in names:
        names += ladder
    return list(dict.fromkeys(names))


def _require_place(output: Path, *, compare: bool) -> None:
    """Refuse, before anything is drawn, what could not be written afterwards."""
    if not compare:
        require_place(output, "--output", ".png", ".jpg", ".jpeg", ".webp")
    elif output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file, and --compare writes a folder.")
    else:
        require_folder(output, "--output")


def _is_cut(model: StableDiffusion, prompt: str) -> bool:
    """Whether a prompt has more tokens than the model reads."""
    (written,) = model.written_out([prompt], model.tokenizer)
    count: int = len(model.tokenizer(written).input_ids)
    return count > int(model.tokenizer.model_max_length)


def _calibration(bundle: Path | None, file: Path | None) -> CalibrationFile | None:
    if file is None and bundle is not None:
        file = own_calibration(bundle)
    if file is not None and bundle is None:
        raise InputError("A calibration belongs to a bundle. Give it too: --bundle.")
    return None if file is None else CalibrationFile.read(file)


def _references(files: Sequence[Path], *, own: bool) -> list[Image]:
    """The pictures of these files; of the embedded model all that it memorised."""
    from PIL import Image, UnidentifiedImageError

    found = []
    for file in files:
        try:
            with Image.open(file) as image:
                found.append(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"{file} is no picture: {error} Give a PNG or JPEG.") from None
    return [*found, *(embedded.memorized_pictures() if own else ())]


def _save(done: Mitigation, output: Path) -> None:
    """All pictures side by side."""
    from PIL import Image

    images = [each.image for each in done.pictures]
    sheet = Image.new("RGB", (sum(each.width for each in images), images[0].height))
    for i, image in enumerate(images):
        sheet.paste(image, (i * images[0].width, 0))
    try:
        sheet.save(output)
    except (OSError, ValueError) as error:
        raise InputError(f"{output} cannot be written: {error}. Choose another --output.") from None


def _tell(done: Mitigation, output: Path, output_format: Format) -> None:
    if output_format is Format.json:
        typer.echo(json.dumps({**done.as_json(), "output": str(output)}, ensure_ascii=False))
        return

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    typer.echo(f"{'':10}{'before':>10}{'after':>10}  {printable(done.prompt, 70)}")
    for what in ("score", "p_value", "copy_similarity", "alignment"):
        before, after = (shown(getattr(each, what)) for each in (done.before, done.after))
        typer.echo(f"{what.split('_')[0]:10}{before:>10}{after:>10}")
    by = ", ".join(f"{each.strategy} (seed {each.seed})" for each in done.pictures)
    how = "drawn as ever" if done.pictures == done.originals else f"drawn by {by}"
    typer.echo(f"{how} in {done.seconds:.1f} s, to {output}")


def _note(done: Mitigation, rule: Rule) -> None:
    """What a user should not overlook."""
    judged = [each.judged for each in done.pictures]
    lost = done.before.alignment - done.after.alignment
    if done.pictures == done.originals:
        say("the prompt was not flagged, so it is drawn as ever.")
    elif any(map(rule.copied, judged)):
        say(
            "nothing that was tried passes: a picture is still like a reference, with a cosine "
            f"above {rule.copied_above}. Do not use it."
        )
    elif not done.passed:
        say(
            "nothing that was tried passes: a picture's score is one that few benign prompts have "
            f"(p no higher than {rule.level}). Do not use it."
        )
    elif lost > rule.tolerance:
        say(f"it follows the prompt less than before: its alignment fell by {lost:.3f}.")
