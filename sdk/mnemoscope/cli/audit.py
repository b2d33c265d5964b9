"""`mnemoscope audit`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import (
    BackendOptions,
    Bundle,
    BundleError,
    InputError,
    Manifest,
    tokenizer_of,
)

from .. import embedded
from ..audit import Artist, Confirming, audit
from ..audit.checking import check_audit
from ..audit.confirming import AT_MOST, UNFLAGGED
from ..audit.confirming.artist import Opens
from ..calibration import CalibrationFile
from ..calibration.cascade import First
from ..captioned import has_pictures
from ..detector import Detector
from ..drawing.generate import require_torch
from ..drawing.known_descriptors import descriptor_file
from ..prompts.printable import counted
from ..quiet import quiet_libraries
from ..screening.opening import read_calibration
from ..shipped import model_of
from ._backends import choose_backend, say_unused
from ._detectors import ModelOption, check_model, open_detectors
from ._loading import Loading, takes_loading
from ._options import (
    EXIT_CODES,
    BackendOption,
    BundleOption,
    CalibrationOption,
    DetectorOption,
    NoisesOption,
    NoQuotesOption,
    StepsOption,
    TrustOption,
    say,
    takes_backend_options,
    takes_first_stage,
    verdict_code,
)
from ._stages import stages_shown
from ._workers import OnRay, takes_ray

__all__ = ["EPILOG", "command"]

EPILOG = f"""
[bold]Examples[/bold]

mnemoscope audit prompts.csv --output results.csv

mnemoscope audit captions.parquet --column caption --bundle my-bundle --fdr 0.01
--output results.parquet --report report.html

mnemoscope audit pictures --bundle my-bundle --model DIR --output results.parquet

mnemoscope audit train.parquet --images image --model DIR --bundle my-bundle --output results.csv

mnemoscope audit captions.parquet --bundle /shared/my-bundle --output results.parquet --ray auto
{EXIT_CODES}"""
_SEEDS = 4
_SEVERAL = "of tar files, 'shards/{000..009}.tar' stands for several."


@dataclass(frozen=True)
class _Opening:
    """Opens the detector, in this process or in a worker's. Can be pickled.

    Attributes:
        bundle: As of the command, like the others.
        calibration: Its file; for a worker, what was in it.
        only: Id that the bundle has to have; None for any.
    """

    bundle: Path | None
    backend: str
    model: str | None
    options: BackendOptions
    detector: str
    first: First | None
    calibration: Path | CalibrationFile | None
    trust: Path | None
    only: str | None = None

    def __call__(self) -> Detector:
        runs, told = choose_backend(self.backend, self.bundle, self.model, self.options)
        [statistic] = open_detectors([self.detector], self.bundle, self.model)
        opened = Detector.load(
            self.bundle,
            backend=runs,
            **asdict(told),
            calibration=self.calibration,
            detector=statistic,
            first=self.first,
            trust=self.trust,
        )
        if self.only not in (None, opened.bundle_id):
            opened.close()
            raise BundleError(
                f"{self.bundle or embedded.BUNDLE} is the bundle {opened.bundle_id[:12]} here, and "
                f"{str(self.only)[:12]} where the audit was started. Give every node the same."
            )
        return opened

    def elsewhere(self, bundle: Bundle, options: BackendOptions) -> _Opening:
        """What opens the same bundle on another machine, which needs no calibration file."""
        known = read_calibration(self.calibration, bundle.path, self.trust)
        return replace(
            self,
            bundle=self.bundle and self.bundle.absolute(),
            options=options,
            calibration=known or CalibrationFile(()),
            trust=self.trust and self.trust.absolute(),
            only=bundle.id,
        )


def _drawing_as(
    manifest: Manifest, model: str | None, descriptor: str | None, loading: Loading
) -> Opens:
    """What opens the artist, here or elsewhere, that draws as a bundle's model was measured."""
    require_torch()
    from ..mitigate import Sampling

    sampling = Sampling.of(manifest)
    return partial(
        Artist.load,
        _absolute(model),
        descriptor=_absolute(descriptor),
        options=loading.options(manifest.noise_bank.shape[2:]),
        steps=sampling.steps,
        guidance=sampling.guidance,
        tell=say,
    )


def _absolute(name: str | None) -> str | None:
    """A path as workers elsewhere find it; what is none, a name, as it is."""
    return str(Path(name).absolute()) if name is not None and Path(name).exists() else name


@takes_backend_options
@takes_first_stage
@takes_loading
@takes_ray
def command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help=".txt, .jsonl, .csv, .tsv or .parquet of prompts; or captioned pictures: a "
            "folder, or tar files of WebDataset ({000..009}.tar).",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Results: .jsonl, .csv or .parquet.")
    ],
    column: Annotated[str | None, typer.Option(help="Column that holds the prompt.")] = None,
    no_quotes: NoQuotesOption = False,
    bundle: BundleOption = None,
    calibration: CalibrationOption = None,
    trust: TrustOption = None,
    backend: BackendOption = "onnxruntime",
    model: ModelOption = None,
    *,
    loading: Loading,
    options: BackendOptions,
    detector: DetectorOption = "magnitude",
    noises: NoisesOption = None,
    steps: StepsOption = 1,
    first: First | None,
    on_ray: OnRay | None,
    fdr: Annotated[
        float, typer.Option(help="Share of the flagged that may be benign, on average.")
    ] = 0.05,
    dependent: Annotated[
        bool,
        typer.Option("--dependent", help="Make it hold for any dependence: flags fewer prompts."),
    ] = False,
    images: Annotated[
        str | None,
        typer.Option(
            help="Of a table: the column with pictures or their paths, or the folder from which "
            "paths in its column file_name start.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--confirm",
            min=0,
            help="Draw captions from so many seeds and compare them with their pictures; 0 not.",
            show_default="4 where there are pictures",
        ),
    ] = None,
    at_most: Annotated[
        int, typer.Option("--confirm-at-most", min=0, help="So many flagged captions.")
    ] = AT_MOST,
    unflagged: Annotated[
        int, typer.Option("--confirm-unflagged", min=0, help="So many of those that are not.")
    ] = UNFLAGGED,
    descriptor: Annotated[
        str | None,
        typer.Option(
            help="Copy descriptor: sscd, if it is installed, or a file, TorchScript or ONNX.",
            show_default="the embedded model's stand-in; for another sscd, or none",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    duplicates: Annotated[
        Path | None,
        typer.Option(
            help="List to write of which rows to leave out of training, since another has the same "
            "picture: .jsonl, .csv or .parquet.",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Measure all again, whatever OUTPUT.partial holds.")
    ] = False,
) -> None:
    """Screen a long list of prompts and flag some at a false-discovery rate.

    What was measured is kept in OUTPUT.partial: after a kill the same command goes on.

    Where captions have pictures, those that are flagged are drawn, and some of the others, and
    compared with their pictures. That takes the model of the bundle (--model).

    Needs the extra `calibrate`, for --report `plot`, for pictures `images` and `torch`.
    """
    file = files[0]
    if len(files) > 1:
        raise InputError(
            f"An audit judges one list, and {counted(len(files), 'file')} were given. Join them "
            f"into one; {_SEVERAL}"
        )
    if file == "-":
        raise InputError("An audit reads its prompts several times: save them to a file.")
    pictured = images is not None or has_pictures(file)
    if not has_pictures(file) and not Path(file).exists():
        many = f" An audit reads one file: join several; {_SEVERAL}" if set("*?[") & {*file} else ""
        raise InputError(f"There is no file or folder {file}. Give one that there is.{many}")
    if not pictured and (seeds or descriptor is not None):
        raise InputError(
            f"{file} has no pictures to confirm anything by. Say where they are (--images), or "
            "leave --confirm and --descriptor out."
        )
    seeds = seeds if seeds is not None else _SEEDS * pictured
    if not seeds:
        check_model(model, [backend], [detector])
        if loading.given:
            raise InputError(f"--{loading.given[0].replace('_', '-')} is for drawing captions.")
    elif bundle is not None and (model := model_of(bundle, model)) is None:
        raise InputError(
            f"Captions are drawn by the model that {bundle} was exported from, which a bundle does "
            "not hold. Give it with --model, or --confirm 0."
        )
    quotes = not no_quotes
    check_audit(
        Path(file),
        output,
        images=images,
        column=column,
        quotes=quotes,
        report_to=report,
        duplicates_to=duplicates,
        confirms=seeds > 0,
    )
    if descriptor is not None:
        descriptor_file(descriptor)
    opens = _Opening(bundle, backend, model, options, detector, first, calibration, trust)
    measures: Detector | _Opening
    with ExitStack() as stack:
        if on_ray is None:
            screen = stack.enter_context(opens())
            if backend == "auto":
                say(f"backend: {screen.screener.backend.name}")
            say_unused(backend, options, screen.screener.backend)
            reads = screen.screener.tokenizer.cut_at
            manifest = screen.screener.bundle.manifest
            measures, workers = screen, None
        else:
            known = Bundle.open(bundle or embedded.BUNDLE, trust=trust)
            reads = tokenizer_of(known).cut_at
            manifest = known.manifest
            measures = opens.elsewhere(known, on_ray.options(backend, options))
            del known  # all of its files
            workers = stack.enter_context(on_ray.running(backend, options))
        confirming = None
        if seeds:
            quiet_libraries()
            draws = _drawing_as(manifest, model, descriptor, loading)
            confirming = Confirming(
                draws(),
                None if on_ray is None else draws,
                seeds=seeds,
                at_most=at_most,
                unflagged=unflagged,
            )
        begins, progress = stack.enter_context(stages_shown())
        try:
            found = audit(
                measures,
                file,
                output,
                column=column,
                quotes=quotes,
                fdr=fdr,
                dependent=dependent,
                steps=steps,
                noises=noises,
                report_to=report,
                images=images,
                confirming=confirming,
                duplicates_to=duplicates,
                restart=restart,
                workers=workers,
                begins=begins,
                progress=progress,
                tell=say,
            )
        except KeyboardInterrupt:
            say(f"stopped; what was measured is in {output}.partial, and the same command goes on.")
            raise
    if found.truncated:
        say(
            f"the bundle reads {reads} tokens, and {counted(found.truncated, 'prompt')} had more "
            "(`truncated`). What came after was not screened. A plain diffusers pipeline does not "
            "read it either; one that reads long prompts in chunks does."
        )
    typer.echo(found.verdict)
    for sentence in [] if found.confirmation is None else found.confirmation.sentences():
        typer.echo(sentence)
    typer.echo(f"results {output}")
    if report is not None:
        typer.echo(f"report {report}")
    if duplicates is not None:
        typer.echo(f"duplicates {duplicates}")
    raise typer.Exit(verdict_code(flagged=found.flagged > 0, judged=not found.errors))
