"""`mnemoscope`: the command line.

Exit codes: 0 nothing flagged, 1 something flagged, 2 usage, 3 environment or backend, 4 bundle or
calibration mismatch. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import os
import sys

import typer

from mnemoscope_runtime import MnemoscopeError, __version__

from . import demo, doctor, export, generate, inspect, screen

__all__ = ["app", "main"]

app = typer.Typer(
    name="mnemoscope",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tells, before an image is drawn, whether a diffusion model is about to reproduce a "
    "training image.",
)
app.command("screen")(screen.command)
app.command("demo")(demo.command)
app.command("export")(export.command)
app.command("inspect")(inspect.command)
app.command("generate")(generate.command)
app.command("doctor")(doctor.command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mnemoscope {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line; errors of ours become one clear line and an exit code."""
    try:
        app()
    except MnemoscopeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # whoever read our output has seen enough; keep Python from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
