"""A model of Triton's model repository, with all that it runs on: bundle and calibration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

from mnemoscope_runtime import Bundle, CalibrationError, InputError, IntegrityError
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.signatures import signature_of

from ...calibration import CalibrationFile, Setting
from ...detectors import find_statistic
from ...screening.opening import CALIBRATION, own_calibration
from ...shipped import bundle_at
from ..service.options import MODEL, is_name
from ..service.v2.tensors import encode_texts
from .config import WARMUP, Scheduling, config_text
from .graph import graph_config, graph_files, graph_model
from .options import ModelOptions

__all__ = ["BUNDLE", "CONFIG", "check_place", "write_model"]

CONFIG = "config.pbtxt"
BUNDLE = "bundle"  # in the folder of the version


def write_model(
    repository: str | Path,
    bundle: str | Path | None = None,
    options: ModelOptions | None = None,
    scheduling: Scheduling | None = None,
    *,
    name: str = MODEL,
    calibration: str | Path | None = None,
    by_triton: bool = False,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write a model for Triton's Python backend: REPOSITORY/NAME, whole or not at all.

    Args:
        repository: The model repository, which may hold other models and is made if need be.
        bundle: Directory that `mnemoscope export` wrote, or the name of one that ships: the
            embedded one by default. What is copied is what was verified.
        options: How the model measures.
        scheduling: How Triton runs it.
        name: What clients call it.
        calibration: A calibration file; by default the bundle's own.
        by_triton: Whether a backend of Triton's runs the screening graph, as a second model that
            is written beside (`graph`).
        overwrite: Whether to replace a model of that name.
        tell: Told of what is written but will not be loaded as it is.

    Returns:
        The model's folder.

    Raises:
        InputError: an option cannot be used.
        BundleError: the bundle cannot be used.
        SignatureError: it, or the calibration, is not signed by the key that is trusted.
        CalibrationError: the calibration is of another bundle, or cannot be read.
        ExportError: something is there already, or cannot be written.
    """
    options, scheduling = options or ModelOptions(), scheduling or Scheduling()
    if not is_name(name):
        raise InputError(
            f"Triton's model cannot be called {name!r:.80}. Use letters, digits, _, . and -."
        )
    opened = Bundle.open(bundle_at(bundle), trust=options.trust)
    known = own_calibration(opened.path) if calibration is None else Path(calibration)
    out, inner = Path(repository) / name, f"1/{BUNDLE}"
    lacking = _lacking(opened, known, options, out / inner)
    if by_triton:
        files, calls = graph_files(opened, options)
        files = {f"1/{each}": content for each, content in files.items()}
        files[CONFIG] = graph_config(name, opened, options).encode()
        check_place(out.parent, name, overwrite=overwrite)
        _publish(out.with_name(graph_model(name)), files, overwrite)
        options = replace(options, calls=calls, engines=None)
    files = {f"{inner}/{each}": content for each, content in _contents(opened, known).items()}
    files["1/model.py"] = resources.files(__package__).joinpath("template.py").read_bytes()
    files[f"warmup/{WARMUP}"] = encode_texts([b"a cat"])
    files[CONFIG] = config_text(name, options, scheduling).encode()
    _publish(out, files, overwrite)
    if lacking is not None:
        tell(f"Triton will not load {out} before {out / inner} is calibrated. {lacking}")
    return out


def check_place(repository: Path, name: str = MODEL, *, overwrite: bool) -> None:
    """Refuse a place that is taken, before the work of which the result would go there.

    Raises:
        InputError: a model is there.
    """
    if (repository / name).exists() and not overwrite:
        raise InputError(
            f"{repository / name} exists already. Choose another repository, or pass --overwrite."
        )


def _lacking(
    bundle: Bundle, file: Path | None, options: ModelOptions, inner: Path
) -> CalibrationError | None:
    """Why there are no verdicts in the setting that is wanted, and what makes some `inner`."""
    known = CalibrationFile(()) if file is None else CalibrationFile.read(file, trust=options.trust)
    known.check(bundle.id, bundle.path)
    noises = options.noises or bundle.manifest.noise_bank.shape[0]
    statistic = find_statistic(options.detector).name
    setting = Setting(bundle.id, options.backend, statistic, options.steps, noises)
    return None if known.find(setting) is not None else known.missing(setting, inner)


def _contents(bundle: Bundle, calibration: Path | None) -> dict[str, bytes]:
    """The files of a bundle as they were verified; signatures as they are."""
    manifest = bundle.path / MANIFEST
    content = {MANIFEST: manifest.read_bytes()}
    if hashlib.sha256(content[MANIFEST]).hexdigest() != bundle.id:
        raise IntegrityError(
            f"{bundle.path} was changed while it was copied. Try again when nothing writes there."
        )
    content |= {name: bundle.read(name) for name in bundle.manifest.files}
    signatures = {MANIFEST: signature_of(manifest)}
    if calibration is not None:
        content[CALIBRATION] = calibration.read_bytes()
        signatures[CALIBRATION] = signature_of(calibration)
    for name, signature in signatures.items():
        if signature.exists():
            content[signature_of(Path(name)).name] = signature.read_bytes()
    return content


def _publish(out: Path, files: Mapping[str, bytes], overwrite: bool) -> None:
    """Write a model's folder."""
    from mnemoscope_export.publish import published_at  # which screening does without

    with published_at(out, overwrite, what="model of Triton's", marker=CONFIG) as folder:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
