"""Pipelines that combine predictions themselves: of one call of their network, or of two."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from .access import Access
from .conditioning import EMBEDS, Arguments, Baseline, Branch, Told
from .drawing import blank
from .interposing import around
from .watching import Watch

__all__ = ["Apart", "Together"]


class Together(Access):
    """Guidance is of one call of the network, on [unconditional; prompt]."""

    def blank(self, output: Any, indices: Collection[int], _: Arguments) -> Any:
        """See `Access`."""
        return blank(output, indices)

    def negative(self, negative: str | None, told: Arguments) -> Baseline:
        """See `Access`."""
        return self.family.baseline(self.pipe, negative, told)

    def predictions(self, watch: Watch) -> AbstractContextManager[None]:
        """See `Access`."""

        def first(rows: int) -> int:
            """Row of the first prompt."""
            return rows // 2 if self.family.guided(self.pipe, watch.told) else 0

        def before(args: tuple[Any, ...], kwargs: Told) -> tuple[tuple[Any, ...], Told] | None:
            told = self.family.named(args, kwargs)
            half = first(len(told[EMBEDS]))
            watch.keep(told, half)
            if not watch.embeds:
                return None
            return (), {**told, EMBEDS: watch.changed(told[EMBEDS], half)}

        def after(args: tuple[Any, ...], kwargs: Told, output: Any) -> Any:
            if watch.idle:
                return None
            told, whole = self.family.named(args, kwargs), output[0]
            prediction = self.family.prediction(self.pipe, whole)
            half = first(len(prediction))
            cond = Branch(told, slice(half, None), prediction[half:])
            uncond = Branch(told, slice(half), prediction[:half]) if half else None
            found = watch.see(cond, uncond)
            if found is None:
                return None
            changed = whole.clone()
            self.family.prediction(self.pipe, changed)[half:] = found
            return (changed, *output[1:])

        return around(self.pipe, self.family.network, before, after)


class Apart(Together):
    """Guidance is of two calls of the network, that of the prompts first; or there is none."""

    def predictions(self, watch: Watch) -> AbstractContextManager[None]:
        """See `Access`.

        The prompts' predictions are changed where they are, behind the second call: the pipeline
        has been handed them, and has done nothing with them yet.
        """
        guided = self.family.guided(self.pipe, watch.told)
        waiting: list[Branch] = []  # the side of the prompts, behind the first call of a step

        def before(args: tuple[Any, ...], kwargs: Told) -> tuple[tuple[Any, ...], Told] | None:
            told = self.family.named(args, kwargs)
            if waiting:
                watch.keep(told, 0, "negative ")
                return None
            watch.keep(told, 0)
            if not watch.embeds:
                return None
            return (), {**told, EMBEDS: watch.changed(told[EMBEDS], 0)}

        def after(args: tuple[Any, ...], kwargs: Told, output: Any) -> Any:
            seen = Branch(self.family.named(args, kwargs), slice(None), output[0])
            if guided and not waiting:
                waiting.append(seen)
                return None
            cond = waiting.pop() if waiting else seen
            if watch.idle:
                return None
            found: Tensor | None = watch.see(cond, seen if guided else None)
            if found is not None:
                cond.prediction.copy_(found)
            return None

        return around(self.pipe, self.family.network, before, after)
