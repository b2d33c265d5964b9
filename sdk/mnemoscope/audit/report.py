"""The report of an audit: one HTML file that needs nothing else and runs nothing."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from ..bench import environment
from ..text import printable
from .deciding import READ
from .table import replacing

if TYPE_CHECKING:
    from .auditing import Audit

__all__ = ["Entry", "write"]

# whatever slips through the escaping finds a page that loads and runs nothing
_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Mnemoscope audit of $file</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border-bottom: 1px solid #ccc; padding: .2rem .6rem; text-align: left;
 vertical-align: top; overflow-wrap: anywhere }
td.n { text-align: right; white-space: nowrap; overflow-wrap: normal }
img { max-width: 100% }
</style>
</head>
<body>
<h1>Audit of $file</h1>
<p><strong>$verdict</strong></p>
$counts
<h2>What this means</h2>
<ul>
$meaning
</ul>
<h2>$heading</h2>
$prompts
<h2>Scores and p-values</h2>
<p><img alt="Histogram of scores" src="data:image/png;base64,$histogram">
<img alt="p-values in ascending order" src="data:image/png;base64,$p_values"></p>
<h2>How it was measured</h2>
$setting
<h2>Where</h2>
$environment
</body>
</html>
""")


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


def write(
    path: Path, audit: Audit, entries: Iterable[Entry], histogram: bytes, p_values: bytes
) -> None:
    """Write the report; the file appears whole or not at all.

    Args:
        path: The file.
        audit: What was found.
        entries: Prompts to show, the worst group first.
        histogram: PNG.
        p_values: PNG.

    Raises:
        InputError: it cannot be written.
    """
    page = _PAGE.substitute(
        file=_safe(audit.file.name),
        verdict=_safe(audit.verdict),
        counts=_pairs(_counts(audit)),
        meaning="\n".join(f"<li>{_safe(each)}</li>" for each in _meaning(audit)),
        heading="Flagged prompts, the worst first" if audit.flagged else "The highest scores",
        prompts=_prompts(entries),
        histogram=base64.b64encode(histogram).decode(),
        p_values=base64.b64encode(p_values).decode(),
        setting=_pairs(_setting(audit)),
        environment=_pairs({k: v for k, v in environment(None).items() if k != "threads"}),
    )
    with replacing(path) as staged:
        staged.write_text(page, "utf-8")


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


def _prompts(entries: Iterable[Entry]) -> str:
    rows = ["<tr><th>group</th><th>prompt</th><th>score</th><th>p-value</th><th>times</th></tr>"]
    for entry in entries:
        numbers = f"{entry.score:.5g}", f"{entry.p_value:.2g}", f"{entry.times:,}"
        rows.append(
            f'<tr><td class="n">{entry.group or ""}</td><td>{_safe(entry.prompt)}</td>'
            + "".join(f'<td class="n">{each}</td>' for each in numbers)
            + "</tr>"
        )
        if entry.others:
            rows.append(f"<tr><td></td><td>and {entry.others:,} more like it</td></tr>")
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _pairs(pairs: Mapping[str, str]) -> str:
    rows = (f"<tr><th>{_safe(k)}</th><td>{_safe(v)}</td></tr>" for k, v in pairs.items())
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _safe(text: str) -> str:
    return html.escape(printable(text, READ))
