"""`mnemoscope inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mnemoscope_runtime import Bundle, Manifest
from mnemoscope_runtime.manifest import ModelRecord
from mnemoscope_runtime.schedulers import timesteps

from .. import embedded
from ..calibration import CalibrationFile, Setting
from ..prompts.printable import counted
from ..screening.opening import own_calibration
from ._options import FormatOption, TrustOption
from ._writers import printable

__all__ = ["command"]

_TOKENIZERS = {
    "clip": "CLIPTokenizer",
    "t5": "T5Tokenizer",
    "qwen2": "Qwen2Tokenizer",
    "gemma": "GemmaTokenizer",
}
_SAMPLERS = {
    "ddim": "DDIM",
    "flow-euler": "Euler's steps along a flow",
    "flow-dpm": "DPM-Solver++ of first order along a flow",
}


def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to look into.", show_default="embedded")
    ] = None,
    trust: TrustOption = None,
    output_format: FormatOption = "table",
) -> None:
    """Verify a bundle and show what is in it."""
    opened = Bundle.open(bundle or embedded.BUNDLE, trust=trust)
    manifest = opened.manifest
    file = own_calibration(opened.path)
    calibration = None if file is None else CalibrationFile.read(file, trust=trust)
    if calibration is not None:
        calibration.check(opened.id, opened.path)
    if output_format == "json":
        typer.echo(json.dumps({"id": opened.id, **msgspec.to_builtins(manifest)}, indent=2))
        return
    model, scheduler = manifest.model, manifest.scheduler
    rows = {
        "bundle": opened.id,
        "model": f"{model.id} ({model.family}, {model.prediction_type})",
        "weights": model.weights_sha256,
        **_put_in(model),
        "sampler": f"{_SAMPLERS[scheduler.kind]}, {counted(scheduler.inference_steps, 'step')}, "
        f"guidance {manifest.guidance}",
        "measured in": f"{manifest.unit} units",
        "screening timestep": _timestep(manifest),
        "noise bank": f"{manifest.noise_bank.shape}, seed {manifest.noise_bank.seed}",
        "precision": f"{manifest.precision}, opset {manifest.opset}",
        **{
            name.replace("_", " "): f"ids of {each.follows}'s {_TOKENIZERS[each.kind]}, "
            f"{each.length} a prompt"
            for name, each in manifest.tokenizers.items()
        },
        **({"taps": ", ".join(manifest.taps)} if manifest.taps else {}),
        **{
            f"arithmetic of {graph}": f"{flops / 1e6:,.1f} MFLOP for one prompt on one noise"
            for graph, flops in manifest.flops.items()
        },
        **_calibrations(calibration),
        **{
            f"parity of {graph}": f"relative error {figures['max_relative_error']:.1e}"
            for graph, figures in manifest.parity.items()
            if "max_relative_error" in figures
        },
        "made with": ", ".join(f"{tool} {number}" for tool, number in manifest.tools.items()),
    }
    for name, record in manifest.files.items():
        rows[name] = f"{record.bytes:>12,} bytes  {record.sha256[:12]}"
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{printable(name):<{width}}  {printable(str(value))}")
    typer.echo("every file is what the manifest promises")


def _put_in(model: ModelRecord) -> dict[str, str]:
    """What was put into the model, or changed in how it is told of prompts."""
    rows = {
        f"{each.kind} {each.file}": f"scale {each.scale:g}, sha256 {each.sha256[:12]}"
        if each.kind == "lora"
        else f"{each.token!r}, {counted(each.vectors or 0, 'vector')}, sha256 {each.sha256[:12]}"
        for each in model.adapters
    }
    told = {
        "variant": model.variant,
        "clip_skip": model.clip_skip,
        "negative": model.negative,
        "guidance that it is told": model.told_guidance,
    }
    return rows | {name: str(value) for name, value in told.items() if value is not None}


def _timestep(manifest: Manifest) -> str:
    first = int(timesteps(manifest.scheduler)[0])
    if manifest.timestep == first:
        return str(first)
    return f"{manifest.timestep} (sampling begins at {first}, so one step is no part of more)"


def _calibrations(file: CalibrationFile | None) -> dict[str, str]:
    if file is None:
        return {"calibration": "none; `mnemoscope calibrate` makes one"}
    return {
        f"calibration of {_setting(c.setting)}": f"FPR {c.fpr:.3g} with {1 - c.delta:.0%} "
        f"confidence, {counted(len(c.scores), 'benign prompt')}, threshold {c.threshold:.4g}"
        for c in file.calibrations
    }


def _setting(of: Setting) -> str:
    steps, noises = counted(of.steps, "step"), counted(of.noises, "noise")
    return f"{of.detector}, {of.backend}, {steps}, {noises}"
