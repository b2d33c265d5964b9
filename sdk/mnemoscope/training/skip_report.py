"""Which samples were skipped, and how often: where to look for duplicates."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from mnemoscope_runtime import InputError

from ..outputs import write_file, writing_text

__all__ = ["SkipReport", "Skips", "Tally", "merge_reports"]

_REMEDY = "Choose another file."


@dataclass(frozen=True)
class Skips:
    """How a sample fared.

    Attributes:
        name: What it was called: its row in the data set unless names were given.
        seen: Times it was judged.
        skipped: Times it was left out of the loss.
    """

    name: str
    seen: int
    skipped: int

    @property
    def rate(self) -> float:
        """skipped / seen, in 0..1."""
        return self.skipped / self.seen


@dataclass(frozen=True)
class SkipReport:
    """What a filter left out.

    Attributes:
        seen: Samples that were judged, counting repeats, with or without a name.
        skipped: Of these.
        samples: Every sample with a name, those most often skipped first.
    """

    seen: int
    skipped: int
    samples: tuple[Skips, ...]

    def top(self, count: int = 20) -> tuple[Skips, ...]:
        """The samples that were skipped most often; none that never was."""
        return tuple(each for each in self.samples[:count] if each.skipped)

    def write_json(self, path: str | Path) -> None:
        """Everything, for `read` and `merge_reports`.

        Raises:
            InputError: the file cannot be written.
        """
        text = msgspec.json.format(msgspec.json.encode(self), indent=1)
        write_file(Path(path), text + b"\n", _REMEDY)

    def write_csv(self, path: str | Path) -> None:
        """The samples that were skipped at least once: name, seen, skipped, rate.

        Raises:
            InputError: the file cannot be written.
        """
        with writing_text(Path(path), _REMEDY) as file:
            table = csv.writer(file)
            table.writerow(("name", "seen", "skipped", "rate"))
            for each in self.top(len(self.samples)):
                table.writerow((each.name, each.seen, each.skipped, f"{each.rate:.4f}"))

    @staticmethod
    def read(path: str | Path) -> SkipReport:
        """What `write_json` wrote.

        Raises:
            InputError: the file cannot be read, or is no report.
        """
        try:
            return msgspec.json.decode(Path(path).read_bytes(), type=SkipReport)
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(
                f"{path} is no report of skipped samples: {error}. Give a file of `write_json`."
            ) from None


def merge_reports(reports: Iterable[SkipReport]) -> SkipReport:
    """One report of several runs; samples of the same name are the same."""
    reports = list(reports)
    return _report(
        sum(each.seen for each in reports),
        sum(each.skipped for each in reports),
        (sample for each in reports for sample in each.samples),
    )


class Tally:
    """Counts by row of the data set, in tensors that grow as needed.

    Attributes:
        seen: # [rows]
        skipped: # [rows]
        total: All that was judged and all that was skipped, with an id or without. # [2]
    """

    def __init__(self) -> None:
        self.seen, self.skipped, self.total = (
            torch.zeros(size, dtype=torch.int64) for size in (0, 0, 2)
        )

    def add(self, ids: Tensor, skipped: Tensor) -> None:
        """Count samples; those with an id of -1 have none. # [B] each"""
        self.total += torch.tensor([len(ids), int(skipped.sum())])
        named = ids >= 0
        ids, skipped = ids[named], skipped[named]
        rows = max(len(self.seen), int(ids.max()) + 1 if len(ids) else 0)
        if rows > len(self.seen):  # by half at a time, so that growing stays cheap
            more = max(rows, len(self.seen) * 3 // 2) - len(self.seen)
            blank = torch.zeros(more, dtype=torch.int64)
            self.seen, self.skipped = (torch.cat([t, blank]) for t in (self.seen, self.skipped))
        self.seen.index_add_(0, ids, torch.ones_like(ids))
        self.skipped.index_add_(0, ids, skipped.long())

    def report(self, names: Sequence[str] | None) -> SkipReport:
        """See `MemorizationFilter.report`."""
        rows = self.seen.nonzero().flatten().tolist()
        if names is not None and rows and rows[-1] >= len(names):
            raise InputError(
                f"Sample {rows[-1]} was seen, but there are {len(names)} names. Give a name for "
                "every row of the data set."
            )
        samples = (
            Skips(
                str(row) if names is None else names[row],
                int(self.seen[row]),
                int(self.skipped[row]),
            )
            for row in rows
        )
        return _report(int(self.total[0]), int(self.total[1]), samples)


def _report(seen: int, skipped: int, samples: Iterable[Skips]) -> SkipReport:
    """Sum samples of one name, and sort."""
    sums: dict[str, tuple[int, int]] = {}
    for each in samples:
        a, b = sums.get(each.name, (0, 0))
        sums[each.name] = a + each.seen, b + each.skipped
    rows = [Skips(name, *counts) for name, counts in sums.items()]
    rows.sort(key=lambda row: (-row.skipped, row.seen, row.name))
    return SkipReport(seen, skipped, tuple(rows))
