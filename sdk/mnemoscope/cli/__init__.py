"""`mnemoscope`: the command line.

Exit codes: 0 nothing flagged, 1 something flagged, 2 usage, 3 environment or backend, 4 bundle or
calibration mismatch, 5 no verdict: nothing is flagged, but not everything was judged. Results go to
stdout, everything else to stderr.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from mnemoscope_runtime import InputError, MnemoscopeError, __version__

from . import (
    audit,
    bench,
    build,
    calibrate,
    calibration,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    generate,
    inspect,
    keygen,
    mitigate,
    parity,
    screen,
    serve,
    sign,
    triton,
    ui,
)
from ._shipped import takes_names
from ._writers import printable

__all__ = ["app", "main"]

_UNREAD = 141  # as a shell says of what SIGPIPE ended


class _Commands(TyperGroup):
    """Ends quietly when whoever reads our output has seen enough."""

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            raise typer.Exit(_UNREAD) from None


app = typer.Typer(
    cls=_Commands,
    name="mnemoscope",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tells, before an image is drawn, whether a diffusion model is about to reproduce a "
    "training image.",
)
"""The commands."""
app.command("screen", epilog=screen.EPILOG)(takes_names(screen.command))
app.command("audit", epilog=audit.EPILOG)(takes_names(audit.command))
app.command("serve", epilog=serve.EPILOG)(takes_names(serve.command))
app.command("ui", epilog=ui.EPILOG)(takes_names(ui.command))
app.command("demo")(demo.command)
app.command("calibrate")(takes_names(calibrate.command))
app.command("evaluate")(takes_names(evaluate.command))
app.command("explain", epilog=explain.EPILOG)(takes_names(explain.command))
app.add_typer(calibration.app, name="calibration")
app.command("export")(takes_names(export.command))
app.command("inspect")(takes_names(inspect.command))
app.command("keygen")(keygen.command)
app.command("sign")(sign.command)
app.command("generate")(takes_names(generate.command))
app.command("mitigate", epilog=mitigate.EPILOG)(takes_names(mitigate.command))
app.command("build")(takes_names(build.command))
app.command("triton")(takes_names(triton.command))
app.command("bench")(takes_names(bench.command))
app.command("parity")(takes_names(parity.command))
app.command("doctor")(takes_names(doctor.command))


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


@cache
def _command() -> TyperGroup:
    """What all signatures come to, put together once: it takes a moment."""
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def main() -> None:
    """Run the command line; errors of ours become one clear line and an exit code."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # prompts are in any script, locales are not
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        _command()(prog_name="mnemoscope")
    except MnemoscopeError as error:
        _fail(error, error.exit_code)
    except OSError as error:  # stdout on a full disk, for one
        _drop_stdout()
        if error.errno == errno.ENOSPC and error.filename is None:
            _fail(InputError(f"Standard output cannot be written: {error.strerror}."), 3)
        _fail(error, 3)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as ended:
        sys.exit(_code(ended))
    except BaseException:  # a defect, or a panic of Rust: Python's code is 1, "something flagged"
        with suppress(Exception):  # nobody may be there to hear it
            traceback.print_exc()
        sys.exit(3)


def _code(ended: SystemExit) -> int:
    """Only what a command decided ends with 0 or 1: libraries end with 1 whatever went wrong."""
    code, why = ended.code, ended.__context__
    if isinstance(why, BrokenPipeError):
        code = _UNREAD
    if code == _UNREAD:
        _drop_stdout()
    ours = isinstance(why, typer.Exit) or code not in (0, 1)
    return code if ours and isinstance(code, int) else 3


def _open_closed() -> None:
    """What a shell closed (`>&-`) is None in Python, and its number is the next file's."""
    unheard = sys.stdout is None
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # for good
    if unheard:
        told = "Standard output is closed, so that nobody would see a result. Write to /dev/null "
        _fail(InputError(f"{told}(`>/dev/null`) if that is meant."), 3)


def _fail(error: Exception, code: int) -> None:
    with suppress(Exception):
        typer.echo(f"error: {printable(' '.join(str(error).split()))}", err=True)
    sys.exit(code)


def _drop_stdout() -> None:
    """Keep Python from complaining at exit about what it cannot write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
