"""`mnemoscope export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mnemoscope_runtime import BackendUnavailable, InputError, tokenizer_of
from mnemoscope_runtime.backends.tensorrt.library import import_library
from mnemoscope_runtime.manifest import Follows, Manifest, Precision
from mnemoscope_runtime.wording import counted, pip_install

from ..quiet import quiet_libraries
from ..serve.triton import check_place, write_model
from ._loading import LatentSizeOption, Loading, say_if_cut, sides_of, takes_loading
from ._options import say, stages
from .build import check_builds

if TYPE_CHECKING:
    from mnemoscope_export import Model

__all__ = ["command"]


@takes_loading
def command(
    model: Annotated[
        str,
        typer.Argument(help="Directory in diffusers' layout, .safetensors file, or hub id."),
    ],
    out: Annotated[Path, typer.Argument(help="Directory to write; must not exist.")],
    from_onnx: Annotated[
        bool,
        typer.Option("--from-onnx", help="MODEL is a directory that Optimum exported to ONNX."),
    ] = False,
    noises: Annotated[int, typer.Option(help="Size of the noise bank.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the noise bank.")] = 0,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Classifier-free guidance of sampling, or what FLUX.1 dev is told.",
            show_default="its pipeline's, 7.5 for Stable Diffusion",
        ),
    ] = None,
    inference_steps: Annotated[
        int | None,
        typer.Option(
            help="Steps of a whole image, as many as you draw with.",
            show_default="its pipeline's, 50 for Stable Diffusion",
        ),
    ] = None,
    timestep: Annotated[
        int | None,
        typer.Option(
            help="What screening tells the network of its pure noise.",
            show_default="sampler's first",
        ),
    ] = None,
    latent_size: LatentSizeOption = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="What the graphs compute in.", show_default="float32; with --from-onnx the model's"
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest relative error of a magnitude.", show_default="1e-4 in float32"),
    ] = None,
    taps: Annotated[
        str | None,
        typer.Option(
            help="Layers of the network that detectors may look at: module names with commas, auto "
            "for those that the family is known to show most in, or none.",
            show_default="none",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="The last tap: write a graph that stops there, and screens for less."),
    ] = None,
    tokenizer: Annotated[
        Follows | None,
        typer.Option(
            help="Whose CLIPTokenizer the pipeline has that draws.",
            show_default="transformers-5; with --from-onnx transformers-4",
        ),
    ] = None,
    *,
    loading: Loading,
    any_length: Annotated[
        bool,
        typer.Option(
            "--any-length",
            help="Let the bundle take embeddings of any number of tokens: long prompts in chunks. "
            "For CPUs.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    check: Annotated[
        str | None,
        typer.Option(
            help="tensorrt: after exporting, see whether every graph builds there. TensorRT for "
            "RTX, which needs no GPU, stands in for it."
        ),
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(
            help="Triton's model repository: write a model of the bundle there as well, as "
            "`mnemoscope triton` does.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Export a model to a bundle: graphs, tokenizer, noise bank, checked against the model.

    Needs the extra `export`; with --from-onnx no PyTorch, but `from-onnx`. Screening the bundle
    needs neither.
    """
    if check not in (None, "tensorrt"):
        raise InputError(f"There is no check {check!r}. Leave it out, or give tensorrt.")
    if check:
        import_library("tensorrt-rtx")  # before the work, not after

    if triton is not None:
        check_place(triton, overwrite=overwrite)
    if from_onnx and loading.given:
        odd = " and ".join(f"--{name.replace('_', '-')}" for name in loading.given)
        raise InputError(
            f"{odd} would change the PyTorch model, and an ONNX export stays what it is. Leave out "
            "what does, or export the PyTorch model."
        )

    try:
        from mnemoscope_export import ExportOptions, Tolerance, export_bundle, export_onnx

        options = ExportOptions(
            noises=noises,
            seed=seed,
            guidance=guidance,
            inference_steps=inference_steps,
            timestep=timestep,
            latent_size=None if latent_size is None else sides_of(latent_size),
            precision=precision,
            tolerance=None if tolerance is None else Tolerance(tolerance),
            overwrite=overwrite,
            taps=_taps(taps),
            until=until,
            tokenizer=tokenizer,
            any_length=any_length,
        )

        def load(progress: Callable[[str], None]) -> Model:
            quiet_libraries()
            from mnemoscope_export import check_export, load_model

            how = loading.options(options.latent_sides)
            check_export(model, how, options)
            progress(f"loading {model}")
            return load_model(model, options=how)

        with stages("reading configs", logged=True) as progress:
            if from_onnx:
                bundle = export_onnx(model, out, options, progress=progress)
            else:
                bundle = export_bundle(lambda: load(progress), out, options, progress=progress)
    except ImportError as error:
        what, extra = ("ONNX", "from-onnx") if from_onnx else ("PyTorch and ONNX", "export")
        raise BackendUnavailable(
            f"Exporting needs {what}: {error}. Install them with {pip_install(extra)}."
        ) from None
    for graph, figures in bundle.manifest.parity.items():
        typer.echo(f"{graph}: relative error {figures['max_relative_error']:.1e}", err=True)
    if loading.negative:
        say_if_cut(loading.negative, tokenizer_of(bundle))
    typer.echo(f"{out}  {bundle.id[:12]}")
    _say_assumed(bundle.manifest, steps=inference_steps is None, guidance=guidance is None)
    if check:
        check_builds(bundle)
    if triton is not None:
        typer.echo(write_model(triton, out, overwrite=overwrite, tell=say))


def _say_assumed(manifest: Manifest, *, steps: bool, guidance: bool) -> None:
    """With what pictures are taken to be drawn, where nobody said it."""
    told = manifest.model.told_guidance
    scale = manifest.guidance if told is None else told
    assumed = {}
    if steps:
        assumed["--inference-steps"] = counted(manifest.scheduler.inference_steps, "step")
    if guidance and scale != 1:  # with 1, as for FLUX.1 schnell, there is none
        assumed["--guidance"] = f"guidance {scale:g}"
    if assumed:
        say(
            f"drawn with: {', '.join(assumed.values())}; say what you draw with: "
            f"{', '.join(assumed)}"
        )


def _taps(text: str | None) -> list[str] | Literal["auto"] | None:
    if text is None or text == "none":
        return None
    if text == "auto":
        return "auto"
    return [name for part in text.split(",") if (name := part.strip())]
