"""The two lists of prompts that a detector is judged on."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError

from ..prompts.near_duplicates import near_duplicates
from ..prompts.printable import counted

__all__ = ["PromptLists"]

_MOST_LABELS = 20  # more are no breakdown but, say, a column of addresses
_FEW_GROUPS, _ONE_PERCENT = 20, 100
Groups = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PromptLists:
    """Prompts that the model memorised, and others; each once, in the order of their files.

    Attributes:
        positives: Memorised prompts.
        negatives: Others.
        groups: Near duplicates of `prompts`; a group may hold prompts of both lists. # [prompt]
        labels: What kind of memorisation each positive is; empty if that is not known.
        notes: What was left out, and what to know of the lists.
    """

    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    groups: Groups
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        positives: Sequence[str],
        negatives: Sequence[str],
        *,
        labels: Sequence[str] = (),
        tell: Callable[[str], None] = warnings.warn,
    ) -> PromptLists:
        """Check the lists, leave out what would count twice, and say so.

        Args:
            positives: Prompts that the model memorised.
            negatives: Prompts that it did not, best written in the same style.
            labels: Of each positive, or none.
            tell: Told of every note.

        Raises:
            InputError: a list is empty, holds an empty prompt, or nothing that the other does not;
                or there are too many labels.
            BackendUnavailable: scikit-learn is not installed.
        """
        notes = []
        for name, prompts in (("memorised", positives), ("other", negatives)):
            if not prompts:
                raise InputError(f"There are no {name} prompts to judge by. Give some of each.")
            if not all(prompt.strip() for prompt in prompts):
                raise InputError(
                    f"One of the {name} prompts is empty. The model is compared with itself there, "
                    "which says nothing of a detector: take it out."
                )
            if repeated := len(prompts) - len(set(prompts)):
                left_out = counted(repeated, "repetition")
                notes.append(f"Each {name} prompt counts once: {left_out} left out.")
        kinds = Counter(labels)
        if len(kinds) > _MOST_LABELS:
            raise InputError(
                f"The memorised prompts have {len(kinds)} different labels, such as "
                f"{labels[0]!r:.80}: that is no breakdown. Name a column with at most "
                f"{_MOST_LABELS} with --label."
            )
        known: dict[str, str] = {}
        for prompt, label in zip(positives, labels or [""] * len(positives), strict=True):
            known.setdefault(prompt, label)
        others = [prompt for prompt in dict.fromkeys(negatives) if prompt not in known]
        if both := len(set(negatives)) - len(others):
            shared = next(prompt for prompt in negatives if prompt in known)
            notes.append(
                f"Left out of the others: {counted(both, 'prompt')} among the memorised ones, "
                f"such as {shared!r:.80}."
            )
        if not others:
            raise InputError(
                "Every other prompt is among the memorised ones, so there is nothing to tell "
                "apart. Give prompts that the model did not memorise as --negatives."
            )
        found = cls(
            positives=tuple(known),
            negatives=tuple(others),
            groups=near_duplicates([*known, *others]),
            labels=tuple(known.values()) if labels else (),
        )
        found = replace(found, notes=(*notes, *_advice(found)))
        for note in found.notes:
            tell(note)
        return found

    def told_apart(self, digests: Callable[[Sequence[str]], Sequence[bytes]]) -> PromptLists:
        """The same without prompts that are to a model the same as earlier ones.

        Args:
            digests: What tells prompts apart: of texts, digests of what the model reads of them.

        Raises:
            InputError: every other prompt is to the model among the memorised ones.
        """
        read = digests(self.prompts)
        first: dict[bytes, int] = {}
        kept = np.array([first.setdefault(each, k) == k for k, each in enumerate(read)])
        if kept.all():
            return self
        if not kept[~self.memorized].any():
            raise InputError(
                "Every other prompt is to the model the same as a memorised one, so there is "
                "nothing to tell apart. Give prompts that the model did not memorise as "
                "--negatives."
            )
        left_out = int((~kept).sum())
        positives, negatives = np.split(kept, [len(self.positives)])
        found = PromptLists(
            positives=tuple(itertools.compress(self.positives, positives)),
            negatives=tuple(itertools.compress(self.negatives, negatives)),
            groups=np.unique(self.groups[kept], return_inverse=True)[1],
            labels=tuple(itertools.compress(self.labels, positives)),
        )
        note = (
            f"Left out: {counted(left_out, 'prompt')}, to the model the same as "
            f"{'an earlier one' if left_out == 1 else 'earlier ones'}."
        )
        before = set(_advice(self))
        said = (each for each in self.notes if each not in before)
        return replace(found, notes=(*said, note, *_advice(found)))

    @property
    def prompts(self) -> list[str]:
        """All of them, the positives first."""
        return [*self.positives, *self.negatives]

    @property
    def memorized(self) -> NDArray[np.bool_]:
        """Which of `prompts` are positives. # [prompt]"""
        return np.arange(len(self.prompts)) < len(self.positives)

    @property
    def groups_of_each(self) -> tuple[Groups, Groups]:
        """`groups` of the positives and of the negatives."""
        return self.groups[self.memorized], self.groups[~self.memorized]

    @property
    def group_counts(self) -> tuple[int, int]:
        """How many groups the positives fall into, and the negatives."""
        positives, negatives = (len(np.unique(groups)) for groups in self.groups_of_each)
        return positives, negatives


def _advice(lists: PromptLists) -> list[str]:
    notes = []
    for name, count in zip(("memorised", "other"), lists.group_counts, strict=True):
        if count < _FEW_GROUPS:
            notes.append(
                f"The {name} prompts fall into {counted(count, 'group')} of near duplicates: that "
                "is few to know an interval from, and from one there is none."
            )
    if len(lists.negatives) < _ONE_PERCENT:
        notes.append(
            f"1 % of {counted(len(lists.negatives), 'other prompt')} is less than one, so that "
            "TPR@1%FPR allows none of them above the threshold. Give 100 or more."
        )
    of_positives, of_negatives = lists.groups_of_each
    if near := int(np.isin(of_negatives, of_positives).sum()):
        notes.append(
            f"{near} of the other prompts are near duplicates of memorised ones: the model may "
            "recite for them too, and a detector that says so counts as wrong here."
        )
    return notes
