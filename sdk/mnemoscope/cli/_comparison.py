"""What `mnemoscope mitigate --compare` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .. import embedded
from ..benchmark.latency import environment
from ..detector import Detector
from ._options import progress_bar, say

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..mitigate import Comparison, Kit, Mitigator, Rule

__all__ = ["LEARNT_ON", "Lists", "lists_of", "write_comparison"]

LEARNT_ON, _BENIGN = 20, 20  # benign prompts: to learn from, and to see what becomes of them


@dataclass(frozen=True)
class Lists:
    """What strategies are compared on.

    Attributes:
        memorized: Prompts.
        pictures: What each must not draw; None if that is what it draws unmitigated.
        benign: Prompts, to see what becomes of them.
    """

    memorized: list[str]
    pictures: list[Image] | None
    benign: list[str]


def lists_of(memorized: list[str] | None, limit: int | None, others: list[str]) -> Lists:
    """What is compared on; of the embedded model, whose settings were chosen on the other half."""
    if memorized is not None:
        benign = others[LEARNT_ON:][:_BENIGN][:limit]
        if not benign:
            say(
                "what becomes of benign prompts is not shown: that takes more than the "
                f"{LEARNT_ON} to learn from (--benign FILE)."
            )
        return Lists(memorized[:limit], None, benign)
    return Lists(
        [row.prompt for row in embedded.read_prompts("memorized")][1::2][:limit],
        embedded.memorized_pictures()[1::2][:limit],
        [row.prompt for row in embedded.read_prompts("held_out")][:_BENIGN][:limit],
    )


def write_comparison(
    mitigator: Mitigator,
    kit: Kit,
    rule: Rule,
    names: Sequence[str],
    seeds: range,
    lists: Lists,
    detector: Detector | None,
    output: Path,
) -> None:
    """Draw all of it and write tables, figures and pictures into a folder.

    Args:
        mitigator: What draws and judges.
        kit: Makes the strategies.
        rule: When a picture passes.
        names: Strategies.
        seeds: Of every prompt.
        lists: Prompts.
        detector: Flags prompts for `auto`, whose ladder is among the strategies; None without it.
        output: The folder.

    Raises:
        InputError: the prompts or a strategy cannot be used, or nothing can be written there.
    """
    import torch

    from ..mitigate import LADDER
    from ..mitigate import compare as compared
    from ..mitigate.compare import flags
    from ..mitigate.report import ComparisonReport

    strategies = [kit.make(name) for name in names]

    def drawn(what: str, prompts: list[str], pictures: list[Image] | None) -> Comparison:
        with progress_bar(what) as progress:
            found = compared(
                mitigator, prompts, strategies, seeds=seeds, references=pictures, progress=progress
            )
        if detector is None:
            return found
        return found.with_auto(LADDER, flags(found, mitigator, detector, rule), rule)

    memorized = drawn("memorised", lists.memorized, lists.pictures)
    benign = drawn("benign", lists.benign, None) if lists.benign else None
    facts = {
        "model": mitigator.painter.model.id,
        "descriptor": mitigator.descriptor.name,
        "alignment": None if mitigator.alignment is None else mitigator.alignment.name,
        "strategies": {each.name: repr(each)[:300] for each in strategies},
        "level": rule.level,
        "tolerance": rule.tolerance,
        "environment": environment(torch.get_num_threads()),
    }
    for path in ComparisonReport(memorized, lists.pictures, benign, facts).write(output):
        typer.echo(str(path))
