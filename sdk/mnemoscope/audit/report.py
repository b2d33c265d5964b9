"""The report of an audit: one HTML file that needs nothing else and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..benchmark.latency import environment
from ..templates import render
from .deciding import READ
from .result import Audit

__all__ = ["Entry", "page"]


@dataclass(frozen=True)
class Entry:
    """A row of the table of prompts.

    Attributes:
        group: None if it is not flagged, or not grouped.
        times: How often the file holds it.
        others: How many more of its group are not shown.
    """

    group: int | None
    prompt: str
    score: float
    p_value: float
    times: int
    others: int = 0


def page(audit: Audit, entries: Iterable[Entry], histogram: bytes, p_values: bytes) -> str:
    """The report, as HTML.

    Args:
        audit: What was found.
        entries: Prompts to show, the worst group first.
        histogram: PNG.
        p_values: PNG.
    """
    return render(
        "audit.html",
        file=audit.file.name,
        verdict=audit.verdict,
        counts=_counts(audit),
        meaning=_meaning(audit),
        heading="Flagged prompts, the worst first" if audit.flagged else "The highest scores",
        entries=entries,
        longest=READ,
        histogram=histogram,
        p_values=p_values,
        setting=_setting(audit),
        environment={k: v for k, v in environment(None).items() if k != "threads"},
    )


def _counts(audit: Audit) -> dict[str, str]:
    return {
        "prompts in the file": f"{audit.prompts:,}",
        "distinct prompts screened": f"{audit.distinct:,}",
        "distinct prompts flagged": f"{audit.flagged:,}",
        "groups of near-duplicates among them": f"{audit.groups:,}",
        **{f"not screened, {reason}": f"{n:,}" for reason, n in audit.errors.items()},
        "longer than the model reads (their end was not screened)": f"{audit.truncated:,}",
    }


def _meaning(audit: Audit) -> list[str]:
    shape = "however they depend on each other" if audit.dependent else "if drawn independently"
    found = [
        "A p-value is the share of benign prompts, counting this one, that score as high. It is "
        "not the probability that the prompt is benign.",
        f"A false-discovery rate of {audit.fdr:.3g} means: of the distinct prompts flagged, at "
        f"most {audit.fdr:.3g} are benign on average, provided that the benign prompts of this "
        f"file are drawn like the {audit.benign:,} that the calibration measured ({shape}). It is "
        "an average over audits, not a bound for this one, and it counts prompts and not groups: "
        "of the groups, more may be benign, since near-duplicates of one memorised caption count "
        "one by one.",
        "A flagged prompt is a suspicion. Draw images for it and compare them with training "
        "pictures before you call it memorised.",
        "A prompt that is not flagged may still be memorised: the score does not see every kind, "
        "and a rate says nothing of what was missed.",
    ]
    if audit.errors:
        found.append("Prompts that could not be screened are neither flagged nor cleared.")
    return found + ([audit.limitation] if audit.limitation else [])


def _setting(audit: Audit) -> dict[str, str]:
    setting = audit.setting
    return {
        "detector": setting.detector,
        "steps": str(setting.steps),
        "noises": str(setting.noises),
        "backend": setting.backend,
        "procedure": "Benjamini and Yekutieli" if audit.dependent else "Benjamini and Hochberg",
        "bundle (sha256 of its manifest)": setting.bundle,
        "calibration (sha256)": audit.calibration,
        "benign prompts of the calibration": f"{audit.benign:,}",
        "prompts": str(audit.file),
        "prompts (sha256)": audit.input,
    }
