"""What `mnemoscope mitigate` says of a prompt that it drew."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..prompts.printable import json_text
from ._options import say
from ._writers import printable

if TYPE_CHECKING:
    from ..mitigate import Mitigation, Rule

__all__ = ["Format", "note", "tell"]

_LATE = {  # by what a prompt was flagged that screening did not
    "drawing": "not flagged before it was drawn, but by the score of a picture on its way",
    "agreement": "not flagged by its score, but several seeds draw one picture",
}


class Format(StrEnum):
    """How what came of it is told."""

    table = "table"
    json = "json"


def tell(done: Mitigation, output: Path, output_format: Format) -> None:
    """What came of it, as a table or as JSON."""
    if output_format is Format.json:
        typer.echo(json_text({**done.as_json(), "output": str(output)}))
        return

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    typer.echo(f"{'':10}{'before':>10}{'after':>10}  {printable(done.prompt, 70)}")
    for what in ("score", "p_value", "copy_similarity", "alignment"):
        before, after = (shown(getattr(each, what)) for each in (done.before, done.after))
        typer.echo(f"{what.split('_')[0]:10}{before:>10}{after:>10}")
    by = ", ".join(f"{each.strategy} (seed {each.seed})" for each in done.pictures)
    if late := _LATE.get(done.flagged_by or ""):
        typer.echo(late)
    how = f"drawn by {by}" if done.flagged else "drawn as ever"
    verified = {True: "yes", False: "no", None: "not known"}[done.verified]
    typer.echo(f"{'verified':10}{verified:>20}")
    typer.echo(f"{how} in {done.seconds:.1f} s, to {output}")


def note(done: Mitigation, rule: Rule) -> None:
    """What a user should not overlook."""
    lost = done.after.lost(done.before)
    if not done.flagged:
        say(f"{done.why}.")
    elif done.verified is False:
        say(f"nothing that was tried passes: {done.why}. Do not use it.")
    elif done.verified is None:
        say(f"not verified: {done.why}. Look at it before you use it.")
    if done.flagged and done.verified is not False and lost > rule.tolerance:
        say(f"it follows the prompt less than before: its alignment fell by {lost:.3f}.")
