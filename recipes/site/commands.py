"""The page on the command line, from the commands themselves."""

from __future__ import annotations

import re

import typer
from typer.cli import get_docs_for_click

from mnemoscope.cli import app


def page() -> str:
    """Every command with its arguments, options and examples, in Markdown."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="mnemoscope", obj={})
    told = get_docs_for_click(obj=command, ctx=context, name="mnemoscope", title="Command line")
    told = re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+", "", told)  # each has a heading anyway
    told = re.sub(r"\[/?bold\]", "**", told).replace("\\[", "[")
    told = re.sub(r"^\$ ", "", told, flags=re.M).replace("```console", "```sh")
    return re.sub(r"\n\n((?:mnemoscope|cat) .*)(?=\n)", r"\n\n    \1", told)
