"""The report of an audit: one HTML file that needs nothing else and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..benchmark.latency import environment
from ..prompts.printable import counted
from ..templates import render
from .confirming import Confirmation
from .deciding import READ
from .gallery import Gallery
from .headline import numbers, sentences
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


def page(
    audit: Audit,
    entries: Iterable[Entry],
    histogram: bytes,
    p_values: bytes,
    gallery: Gallery | None = None,
) -> str:
    """The report, as HTML.

    Args:
        audit: What was found.
        entries: Prompts to show, the worst group first.
        histogram: PNG.
        p_values: PNG.
        gallery: Pictures to show, of a set of captioned pictures.
    """
    confirmation = audit.confirmation
    return render(
        "audit.html",
        file=audit.file.name,
        verdict=audit.verdict,
        counts=_counts(audit),
        meaning=_meaning(audit),
        heading="Flagged prompts, the worst first" if audit.flagged else "The highest scores",
        entries=entries,
        gallery=gallery,
        numbers=[] if confirmation is None else numbers(audit.flagged, confirmation),
        sentences=[] if confirmation is None else sentences(audit.flagged, confirmation),
        findings=[] if confirmation is None else confirmation.sentences(),
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
        "the same to the model as an earlier one, and counted with it": f"{audit.repeated:,}",
        **{f"not screened, {reason}": f"{n:,}" for reason, n in audit.errors.items()},
        "longer than the model reads (their end was not screened)": f"{audit.truncated:,}",
        "with signs that some pipelines make weights, choices, adapters or parts of (read "
        "literally)": f"{audit.weighted:,}",
        "among the prompts of the calibration (their p-values are no evidence)": (
            f"{audit.calibrated:,}"
        ),
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
        "pictures before you call it memorised."
        if audit.confirmation is None
        else "A flagged prompt is a suspicion, a confirmed one is not: a drawing of it is a copy "
        "of its training picture. Look at near misses yourself.",
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
        **_drawing(audit.confirmation),
    }


def _drawing(confirmation: Confirmation | None) -> dict[str, str]:
    if confirmation is None:
        return {}
    above, repeats = confirmation.copied_above, confirmation.repeats
    guidance = confirmation.guidance
    return {
        "drawn from": f"{counted(confirmation.seeds, 'seed')}, {confirmation.steps} steps, "
        f"{'no guidance' if guidance is None else f'guidance {guidance:.3g}'}",
        "compared by": confirmation.descriptor,
        "a copy above a cosine of": "not known" if above is None else f"{above:.3g}",
        "a duplicate above a cosine of": (
            "not known" if repeats is None else f"{repeats.pictures_alike:.3g}"
        ),
        "pictures that could be read": f"{confirmation.pictures:,}",
        **{f"not read, {reason}": f"{n:,}" for reason, n in confirmation.errors.items()},
    }
