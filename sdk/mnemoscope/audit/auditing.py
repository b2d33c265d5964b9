"""Measure every prompt of a file, then judge them together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from mnemoscope_runtime import InputError, __version__
from mnemoscope_runtime.options import check_options

from ..calibration.conformal import rejected
from ..captioned import picture_column
from ..detector import Detector
from ..duplicates import write_list
from ..outputs import writing_text
from ..prompts.printable import counted
from . import figures, report, table
from .checking import check_audit
from .confirming import Confirming, confirm
from .deciding import group, limitation, limits
from .gallery import gallery
from .journal import Job, Journal
from .judging import judge
from .marking import marked
from .measuring import ask, collect, known_as, measuring
from .result import Audit
from .rows import entries_of, rows_of, with_pictures, with_places
from .source import Source
from .stages import Begins, Here, Progress, Workers, run

__all__ = ["audit"]


def audit(
    detector: Detector | Callable[[], Detector],
    file: str | Path,
    output: str | Path,
    *,
    column: str | None = None,
    quotes: bool = True,
    fdr: float = 0.05,
    dependent: bool = False,
    steps: int = 1,
    noises: int | None = None,
    report_to: str | Path | None = None,
    images: str | None = None,
    confirming: Confirming | None = None,
    duplicates_to: str | Path | None = None,
    restart: bool = False,
    workers: Workers | None = None,
    begins: Begins = lambda *_: None,
    progress: Progress = lambda *_: None,
    tell: Callable[[str], None] = warnings.warn,
) -> Audit:
    """Screen a file of prompts, flag some at a false-discovery rate, write results.

    What was measured is kept in OUTPUT.partial until the end: after a kill the same call goes on
    where it stopped, and writes the same bytes as if it never had.

    Args:
        detector: What measures, or what opens it: workers in other processes take that, if it can
            be pickled (`partial(Detector.load, "my-bundle")`). It needs a calibration of this
            setting.
        file: Prompts, as `read_prompt_file` takes them, or captioned pictures, as `open_captioned`
            does. A row that is empty or cannot be read gets an error and no verdict; prompts
            that the bundle's tokenizers make the same of are measured once, and are one.
        output: Results, one row for each prompt in order: `.jsonl`, `.csv` or `.parquet`.
        column: Key or column that holds the prompt.
        quotes: As in `read_prompt_file`.
        fdr: Of the distinct prompts flagged, at most so many are benign on average, in 0..1.
        dependent: Whether that is to hold for any dependence between scores.
        steps: Denoising steps to measure.
        noises: How many noises of the bank; all by default.
        report_to: HTML report to write.
        images: Of a table: where its pictures are, as `open_captioned` takes it.
        confirming: How flagged captions are drawn and compared with their pictures; by default they
            are not.
        duplicates_to: List to write of which rows repeat the picture of another
            (`mnemoscope.duplicates.write_list`).
        restart: Whether to measure all again, whatever OUTPUT.partial holds.
        workers: Who measures; by default this process. Results are the same bytes in any case.
            They draw, too, if `confirming` says how (`Confirming.opens`).
        begins: Told what each stage does ("drawing captions") and how many items are left.
        progress: Told how many items of a stage's are done.
        tell: Told what the user should know.

    Raises:
        InputError: an option or the file cannot be used, a file cannot be written, or
            OUTPUT.partial belongs to another audit.
        CalibrationError: there is none of this setting, or one that could never flag anything; or
            what draws is another model than the detector's.
        NumericsError: a score is NaN or infinite.
        BundleError: workers have another bundle each.
        BackendUnavailable: something is not installed.
        BackendError: workers die again and again.
    """
    check_options("a path", file=file, output=output)
    check_options("a path or None", report_to=report_to, duplicates_to=duplicates_to)
    file, output = Path(file), Path(output)
    page = None if report_to is None else Path(report_to)
    listed = None if duplicates_to is None else Path(duplicates_to)
    rejected(np.ones(1), fdr, dependent=dependent)  # what would fail at the end fails now
    group([""])
    captioned = check_audit(
        file,
        output,
        images=images,
        column=column,
        quotes=quotes,
        report_to=page,
        duplicates_to=listed,
        confirms=confirming is not None,
    )
    if listed is not None and confirming is not None:
        _check_duplicates(confirming)
    if captioned is None and (likely := picture_column(file, quotes=quotes)) is not None:
        tell(
            f"{file} has a column {likely!r} that looks like pictures: --images {likely} draws "
            "what is flagged, and compares it with them."
        )
    opens = (lambda: nullcontext(detector)) if isinstance(detector, Detector) else detector
    workers = workers or Here()
    way = ask(opens, steps, noises, workers)
    setting, calibration = way.setting, way.calibration
    benign = len(calibration.scores)
    if confirming is not None:
        confirming.artist.require(way.model)

    source = Source.scan(
        *(file, way.tokenizer, column),
        quotes=quotes,
        calibration=calibration,
        captioned=captioned,
        tell=tell,
    )
    for reason, count in source.errors.items():
        tell(
            f"{counted(count, 'prompt')} cannot be screened ({reason}): an `error`, and no verdict."
        )
    for note in _of_prompts(source):
        tell(note)
    limited = limitation(source.measured, benign, fdr, dependent)
    if limited:
        tell(limited)
    known = known_as(calibration)
    job = Job(__version__, setting, known, source.sha256, column, quotes)
    kept = output.with_name(f"{output.name}.partial")
    stage = measuring(source, opens, setting, known)
    with Journal.open(kept, job, restart=restart) as journal:
        found = run(stage, journal, workers, begins=begins, progress=progress, tell=tell)
        scores = collect(found, source.measured)
        try:
            source.check()
        except InputError:
            journal.remove()
            raise
        judged = judge(source, scores, calibration, fdr, dependent, tell)
        confirmation = None
        if confirming is not None:
            flagged = judged.flagged
            who = Here() if confirming.opens is None else workers
            confirmation = confirm(
                *(confirming, source, scores, flagged, journal, who),
                begins=begins,
                progress=progress,
                tell=tell,
            )
            source.check()
        audited = Audit(
            file=file,
            prompts=len(source.place),
            distinct=source.measured,
            flagged=int(judged.flagged.sum()),
            groups=int(judged.groups.max()),
            errors=source.errors,
            repeated=source.repeated,
            truncated=int(source.of_distinct(source.truncated).sum()),
            weighted=int(source.of_distinct(source.weighted).sum()),
            calibrated=int(source.of_distinct(source.calibrated).sum()),
            fdr=fdr,
            dependent=dependent,
            limitation=limited,
            setting=setting,
            benign=benign,
            calibration=known,
            input=source.sha256,
            confirmation=confirmation,
        )
        with ExitStack() as both:
            if page is not None:
                histogram = figures.score_histogram(
                    scores, judged.flagged, calibration.ordered, setting.detector
                )
                compared = limits(source.measured, fdr, dependent)
                curve = figures.p_value_plot(judged.p_values, compared)
                entries = entries_of(source, scores, judged)
                pictures = None
                if confirmation is not None:
                    explained = None
                    if isinstance(detector, Detector):
                        explained = partial(marked, detector, steps, noises)
                    pictures = gallery(confirmation, source, explained)
                text = report.page(audited, entries, histogram, curve, pictures)
                both.enter_context(writing_text(page, table.REMEDY)).write(text)
            rows, columns = rows_of(source, scores, judged), dict(table.COLUMNS)
            if captioned is not None:
                rows = with_places(rows, captioned)
                columns |= table.PLACE_COLUMNS
            if confirmation is not None:
                rows = with_pictures(rows, source, confirmation)
                columns |= table.PICTURE_COLUMNS
            if listed is not None and confirmation is not None:
                assert captioned is not None
                assert confirmation.repeats is not None
                errors = confirmation.picture_errors
                write_list(listed, captioned, confirmation.repeats, table.REMEDY, errors)
            table.write(output, rows, columns)  # takes its place first
        journal.remove()
    return audited


def _of_prompts(source: Source) -> Iterator[str]:
    """What to know of the prompts before they are screened."""
    if source.repeated:
        are = "is" if source.repeated == 1 else "are"
        yield (
            f"{counted(source.repeated, 'prompt')} {are} to the model the same as an earlier one "
            "of the list, and counted with it."
        )
    if calibrated := int(source.of_distinct(source.calibrated).sum()):
        of = "is one" if calibrated == 1 else "are among those"
        yield (
            f"{counted(calibrated, 'distinct prompt')} {of} that the calibration was made with "
            "(`notes` in the results). Their p-values are no evidence: calibrate on other prompts, "
            "or leave these out."
        )
    if weighted := int(source.of_distinct(source.weighted).sum()):
        yield (
            f"{counted(weighted, 'distinct prompt')} {'holds' if weighted == 1 else 'hold'} signs "
            "that some pipelines make weights, choices, adapters or parts of. They were read "
            "literally; `notes` in the results says what each is, and what to screen."
        )


def _check_duplicates(confirming: Confirming) -> None:
    if confirming.artist.descriptor.duplicate_above is None:
        raise InputError(
            f"What cosine makes two pictures of a set the same is not known for "
            f"{confirming.artist.descriptor.name}. Compare by SSCD (--descriptor sscd), or leave "
            "--duplicates out."
        )
