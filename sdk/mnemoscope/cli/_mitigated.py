"""What `mnemoscope mitigate` says of a prompt that it drew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..calibration.remedies import calibrate_command
from ..prompts.printable import counted, json_text
from ..shipped import bundle_option, name_of
from ._mitigating import AUTO
from ._options import say
from ._writers import printable

if TYPE_CHECKING:
    from ..mitigate import Mitigation, Mitigator, Rule

__all__ = ["note", "tell", "terms_of"]

_FLAGGED = {  # what a prompt is flagged by, in words
    "screening": "by its score",
    "drawing": "by the score of an unmitigated picture on its way",
    "reference": "an unmitigated picture is like one that must not come out",
    "agreement": "not by its score, but several seeds draw one picture",
}


def terms_of(bundle: Path | None, mitigator: Mitigator, rule: Rule, *, own: bool) -> dict[str, Any]:
    """What figures rest on: the bundle, how pictures are drawn and scored, what is suspicious."""
    sampling = mitigator.sampling or mitigator.painter.sampling()
    return {
        "bundle": None if bundle is None else name_of(bundle),
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "scored_steps": min(mitigator.yardstick.steps, sampling.steps),
        "level": rule.level,
        "compared_with": "training pictures" if own else "references",
    }


def tell(done: Mitigation, terms: Mapping[str, Any], output: Path, output_format: str) -> None:
    """What came of it, and on what terms, as a table or as JSON."""
    if output_format == "json":
        typer.echo(json_text({**done.as_json(), **terms, "output": str(output)}))
        return

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = {
        "score": "score",
        "p": "p_value",
        f"like {terms['compared_with']}": "copy_similarity",
        "like the unmitigated": "unmitigated_similarity",
        "alignment": "alignment",
    }
    typer.echo(f"{'':22}{'before':>10}{'after':>10}  {printable(done.prompt, 70)}")
    for name, what in rows.items():
        before, after = (shown(getattr(each, what)) for each in (done.before, done.after))
        typer.echo(f"{name:22}{before:>10}{after:>10}")
    verified = {True: "yes", False: "no", None: "not known"}[done.verified]
    typer.echo(f"{'flagged':22}{_flagged(done)}")
    typer.echo(f"{'verified':22}{verified}")
    by = ", ".join(f"{each.strategy} (seed {each.seed})" for each in done.pictures)
    how = "drawn as ever" if done.pictures == done.originals else f"drawn by {by}"
    typer.echo(f"{how} in {done.seconds:.1f} s, to {output}")
    typer.echo(_in_words(terms, compared=done.after.p_value is not None))


def _flagged(done: Mitigation) -> str:
    """Whether the prompt was flagged, and by what."""
    if done.flagged is None:
        return "not known"
    return f"yes: {_FLAGGED[done.flagged_by or '']}" if done.flagged else "no"


def _in_words(terms: Mapping[str, Any], *, compared: bool) -> str:
    bundle = "no bundle" if terms["bundle"] is None else f"bundle {terms['bundle']}"
    guidance = "no guidance" if terms["guidance"] is None else f"guidance {terms['guidance']:g}"
    scored = terms["scored_steps"]
    first = "the first step" if scored == 1 else f"the first {scored} steps"
    text = f"{bundle}: {counted(terms['steps'], 'step')}, {guidance}; score: mean of {first}"
    return printable(f"{text}; suspicious: p up to {terms['level']:g}" if compared else text)


def _unknown(done: Mitigation, bundle: Path | None, model: str | None) -> list[str]:
    """What is a dash in the table, and what it takes to know it."""
    calibrated = f"the model's calibrated bundle ({bundle_option(model)})"
    if bundle is not None:
        calibrated = f"a calibration of {name_of(bundle)} (`{calibrate_command(bundle)}`)"
    takes = {
        "p": (done.after.p_value, calibrated),
        "likeness to training pictures": (
            done.before.copy_similarity,
            "those that must not come out (--reference)",
        ),
        "alignment": (done.after.alignment, "a CLIP (--clip)"),
    }
    return [
        f"{what}, which takes {needs}" for what, (value, needs) in takes.items() if value is None
    ]


def _next(done: Mitigation) -> str:
    """What to do when nothing that was tried passes: what was not tried."""
    from ..mitigate import LADDER

    if done.strategy == AUTO:
        return "`mnemoscope explain` shows which words to change"
    others = [next(name for name in LADDER if name != done.strategy)]
    if done.after.p_value is not None:  # it takes a calibration
        others.append(AUTO)
    return f"Try --strategy {' or '.join(others)}"


def note(done: Mitigation, rule: Rule, bundle: Path | None, model: str | None) -> None:
    """What a user should not overlook."""
    lost = done.after.lost(done.before)
    if unknown := _unknown(done, bundle, model):
        say(f"not known: {'; '.join(unknown)}.")
    if done.verified is False:
        say(f"nothing that was tried passes: {done.why}. Do not use it. {_next(done)}.")
    elif done.flagged is False:
        drawn = (
            "it was drawn as ever" if done.pictures == done.originals else "it needs no strategy"
        )
        say(f"{done.why}, so that {drawn}.")
    elif done.verified is None:
        say(f"not verified: {done.why}. Look at it before you use it.")
    if done.verified is not False and lost > rule.tolerance:
        say(f"it follows the prompt less than before: its alignment fell by {lost:.3f}.")
