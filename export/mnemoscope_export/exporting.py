"""From a model to a bundle, or to nothing: a bundle appears whole or not at all.

What PyTorch or ONNX are needed for is loaded when options and target have been found usable.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope_runtime import Bundle
from mnemoscope_runtime.errors import InputError

from .options import ExportOptions

if TYPE_CHECKING:
    from .models import Model
    from .writing import Contents

__all__ = ["export_bundle", "export_onnx"]


def export_bundle(
    model: Model | Callable[[], Model],
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Write a bundle to `out` and return it, opened.

    Everything is staged beside `out` and passes the parity gate there; then one rename publishes
    it. A crash or a full disk leaves nothing at `out`.

    Args:
        model: In float32; or what loads it, and then it is let go as soon as its graphs are
            written, so that it is not in memory beside the graphs that are compared with it.
        out: A directory that does not exist yet, unless `options.overwrite`.
        options: What goes into the bundle.
        progress: Told the name of each stage as it begins.

    Raises:
        ExportError: the model cannot be exported, or `out` cannot be written.
        BackendError: PyTorch's exporter failed.
        ParityError: a graph does not agree with PyTorch.
        BackendUnavailable: the backend that runs the graphs for that comparison is not installed.
        InputError: `out` is not a path, a layer cannot be tapped, or the model does not take the
            timestep or the size of the latents.
    """
    from .writing import write_bundle

    chosen = options or ExportOptions()

    def prepare(_: Path) -> Contents:
        loaded = model() if callable(model) else model
        from .torch.export import prepare

        return prepare(loaded, chosen, progress, may_change=callable(model))

    return write_bundle(prepare, out, chosen, progress)


def export_onnx(
    folder: str | Path,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Write a bundle of an ONNX export to `out` and return it, opened; torch is not needed.

    The export's own graphs, run by ONNX Runtime with two UNet calls a step, are the oracle of the
    parity gate. As with `export_bundle`, nothing is left at `out` if anything fails.

    Args:
        folder: What Optimum's `ORTStableDiffusionPipeline.save_pretrained` wrote: text_encoder,
            unet, tokenizer and scheduler.
        out: A directory that does not exist yet, unless `options.overwrite`.
        options: What goes into the bundle; the precision is the export's.
        progress: Told the name of each stage as it begins.

    Raises:
        ExportError: the export cannot be used, or `out` cannot be written.
        InputError: another precision than the export's was asked for, taps, or a timestep or size
            of latents that it does not take.
        ParityError: a graph does not agree with the export.
        NumericsError: the export's own magnitudes are not finite.
    """
    from .onnx.export import prepare
    from .writing import write_bundle

    chosen = options or ExportOptions()
    refused = []
    if chosen.taps is not None:
        refused.append(
            "An ONNX export does not say which of its nodes are which layers, so it has no taps. "
            "Leave them out, or export the PyTorch model."
        )
    if chosen.any_length:
        refused.append(
            "The shapes of an ONNX export are evaluated for one number of tokens, so its bundle "
            "takes no other. Leave any_length out, or export the PyTorch model."
        )
    if refused:
        raise InputError(" ".join(refused))
    return write_bundle(lambda work: prepare(folder, work, chosen, progress), out, chosen, progress)
