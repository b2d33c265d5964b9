"""Measure every prompt of a file, then judge them together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from mnemoscope_runtime import InputError, __version__
from mnemoscope_runtime.options import check_options

from ..calibration.conformal import rejected
from ..captioned import CaptionedSet, has_pictures, open_captioned
from ..detector import Detector
from ..duplicates import write_list
from ..outputs import require_place, writing_text
from ..prompts.printable import counted
from ..tables import check_table
from . import figures, report, table
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
            does. A row that is empty or cannot be read gets an error and no verdict; exact
            repetitions are measured once.
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
    _check_outputs(file, output, page, listed)
    if listed is not None:
        _check_duplicates(confirming)
    opens = (lambda: nullcontext(detector)) if isinstance(detector, Detector) else detector
    workers = workers or Here()
    way = ask(opens, steps, noises, workers)
    setting, calibration = way.setting, way.calibration
    benign = len(calibration.scores)
    captioned = _captioned(file, images, column, quotes)
    if confirming is not None:
        if captioned is None:
            raise InputError(
                f"{file} has no pictures to compare with. Say where they are (--images), give a "
                "folder of pictures or tar files, or leave confirming out."
            )
        confirming.artist.require(way.model)

    source = Source.scan(file, column, quotes=quotes, captioned=captioned, tell=tell)
    for reason, count in source.errors.items():
        tell(
            f"{counted(count, 'prompt')} cannot be screened ({reason}): an `error`, and no verdict."
        )
    limited = limitation(source.measured, benign, fdr, dependent)
    if limited:
        tell(limited)
    known = known_as(calibration)
    job = Job(__version__, setting, known, source.sha256, column, quotes)
    kept = output.with_name(f"{output.name}.partial")
    stage = measuring(source, opens, setting, known)
    with Journal.open(kept, job, restart=restart) as journal:
        found = run(stage, journal, workers, begins=begins, progress=progress, tell=tell)
        measured = collect(found, source.measured)
        try:
            source.check()
        except InputError:
            journal.remove()
            raise
        judged = judge(source, measured, calibration, fdr, dependent, tell)
        confirmation = None
        if confirming is not None:
            flagged = judged.flagged
            who = Here() if confirming.opens is None else workers
            confirmation = confirm(
                *(confirming, source, measured.scores, flagged, journal, who),
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
            truncated=int(measured.truncated.sum()),
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
                    measured.scores, judged.flagged, calibration.ordered, setting.detector
                )
                compared = limits(source.measured, fdr, dependent)
                curve = figures.p_value_plot(judged.p_values, compared)
                entries = entries_of(source, measured, judged)
                pictures = None
                if confirmation is not None:
                    explained = None
                    if isinstance(detector, Detector):
                        explained = partial(marked, detector, steps, noises)
                    pictures = gallery(confirmation, source, explained)
                text = report.page(audited, entries, histogram, curve, pictures)
                both.enter_context(writing_text(page, table.REMEDY)).write(text)
            rows, columns = rows_of(source, measured, judged), dict(table.COLUMNS)
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


def _captioned(
    file: Path, images: str | None, column: str | None, quotes: bool
) -> CaptionedSet | None:
    """The set, if it is one of captioned pictures; None for a file of prompts."""
    if images is None and not has_pictures(file):
        return None
    return open_captioned(file, images=images, column=column, quotes=quotes)


def _check_duplicates(confirming: Confirming | None) -> None:
    if confirming is None:
        raise InputError(
            "Duplicates are found by what the pictures of a set are like, which an audit only "
            "looks at where it draws captions. Confirm findings (--confirm), or leave --duplicates "
            "out."
        )
    if confirming.artist.descriptor.duplicate_above is None:
        raise InputError(
            f"What cosine makes two pictures of a set the same is not known for "
            f"{confirming.artist.descriptor.name}. Compare by SSCD (--descriptor sscd), or leave "
            "--duplicates out."
        )


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
