"""All strategies on many prompts: how much each copies, and how well its pictures follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

from ..detector import Detector
from ..evaluate.intervals import Interval, mean_interval
from .agreement import agreeing, most_alike
from .flagging import is_flagged, screen
from .mitigator import Mitigator, chosen
from .results import NONE, Picture, Rule
from .strategies import Plain, Strategy

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["AUTO", "Comparison", "Drawings", "Row", "compare", "flags"]

AUTO = "auto"
_COSINES = ("likeness", "changed", "avoided")
Values = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Drawings:
    """What one strategy drew of every prompt and seed.

    Attributes:
        strategy: Its name.
        pictures: Prompt by prompt. # [P][S]
        likeness: Cosine with what each prompt must not draw. # [P, S]
        changed: Cosine with what the prompt draws unmitigated from the same seed. # [P, S]
        avoided: The same, or with what it draws from other seeds, where several draw one picture:
            what `auto` knows. # [P, S]
        seconds: Per picture, drawing and judging.
    """

    strategy: str
    pictures: tuple[tuple[Picture, ...], ...]
    likeness: Values
    changed: Values
    avoided: Values
    seconds: float

    def of(self, what: Callable[[Picture], float | None]) -> Values:
        """A figure of every picture. # [P, S]"""
        return np.array([[what(each) for each in row] for row in self.pictures], np.float64)

    @property
    def alignment(self) -> Values:
        """CLIP scores. # [P, S]"""
        return self.of(lambda picture: picture.judged.alignment)


@dataclass(frozen=True)
class Row:
    """One strategy's figures, means with 95 % intervals of a bootstrap over prompts.

    Attributes:
        strategy: Its name.
        copied: Share of pictures that are copies.
        reproduced: Share of prompts of which any picture is one.
        similarity: Cosine with the reference.
        alignment: CLIP score.
        unchanged: Share of pictures that are still those that are drawn unmitigated.
        score: Mean magnitude of the first steps.
        passes: Network passes of planning; for `auto` of all that were tried.
        seconds: Per picture.
    """

    strategy: str
    copied: Interval
    reproduced: Interval
    similarity: Interval
    alignment: Interval
    unchanged: Interval
    score: float
    passes: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every strategy on the same prompts, seeds and noises.

    Attributes:
        prompts: # [P]
        seeds: # [S]
        copied_above: A cosine above it is a copy.
        agreed: Cosine of the two unmitigated pictures of a prompt that are most alike; None of
            one seed. # [P]
        drawings: One entry for each strategy, `none` first.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    copied_above: float
    agreed: tuple[float, ...] | None
    drawings: tuple[Drawings, ...]

    def row(self, drawings: Drawings) -> Row:
        """A strategy's figures."""
        copied = drawings.likeness > self.copied_above
        return Row(
            strategy=drawings.strategy,
            copied=mean_interval(copied.mean(1)),
            reproduced=mean_interval(copied.any(1).astype(float)),
            similarity=mean_interval(drawings.likeness.mean(1)),
            alignment=mean_interval(drawings.alignment.mean(1)),
            unchanged=mean_interval((drawings.changed > self.copied_above).mean(1)),
            score=float(drawings.of(lambda picture: picture.judged.score).mean()),
            passes=float(drawings.of(lambda picture: picture.passes).mean()),
            seconds=drawings.seconds,
        )

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of every strategy."""
        return tuple(map(self.row, self.drawings))

    def with_auto(self, ladder: Sequence[str], flagged: Sequence[bool], rule: Rule) -> Comparison:
        """With what `auto` makes of these very pictures, knowing only what it can know.

        It is told of no reference but the unmitigated pictures.

        Args:
            ladder: Names of strategies, each drawn here.
            flagged: Of each prompt. # [P]
            rule: When a picture settles.

        Raises:
            InputError: a strategy of the ladder was not drawn.
        """
        drawn = {each.strategy: each for each in self.drawings}
        if missing := [name for name in ladder if name not in drawn]:
            raise InputError(f"auto tries {', '.join(missing)}, which was not drawn. Draw it too.")
        plain = drawn[NONE]
        pictures: list[list[Picture]] = []
        found_of = {what: getattr(plain, what).copy() for what in _COSINES}
        seconds = plain.seconds
        for p, row in enumerate(plain.pictures):
            pictures.append(list(row))
            for s, before in enumerate(row if flagged[p] else ()):
                tried: list[Picture] = []
                for name in ladder:
                    picture = drawn[name].pictures[p][s]
                    avoided = float(drawn[name].avoided[p, s])
                    seen = replace(picture.judged, unmitigated_similarity=avoided)
                    tried.append(replace(picture, judged=seen))
                    seconds += drawn[name].seconds / plain.likeness.size
                    if rule.settles(seen, before.judged):
                        break
                found = chosen(tried, before.judged, rule)
                pictures[p][s] = found
                for what, values in found_of.items():
                    values[p, s] = getattr(drawn[found.strategy], what)[p, s]
        found_all = Drawings(AUTO, tuple(map(tuple, pictures)), **found_of, seconds=seconds)
        return replace(self, drawings=(*self.drawings, found_all))

    def as_json(self) -> dict[str, Any]:
        """Every figure, and what was measured of every picture."""
        return {
            "prompts": list(self.prompts),
            "seeds": list(self.seeds),
            "copied_above": self.copied_above,
            "rows": [asdict(row) for row in self.rows],
            "pictures": {
                each.strategy: [
                    {
                        "prompt": p,
                        **picture.as_json(),
                        "copy_similarity": round(float(each.likeness[p, s]), 5),
                        "unmitigated_similarity": round(float(each.changed[p, s]), 5),
                    }
                    for p, row in enumerate(each.pictures)
                    for s, picture in enumerate(row)
                ]
                for each in self.drawings
            },
        }


def compare(
    mitigator: Mitigator,
    prompts: Sequence[str],
    strategies: Sequence[Strategy],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    references: Sequence[Image] | None = None,
    progress: Progress = lambda *_: None,
) -> Comparison:
    """Draw every prompt from every seed, as it is and with every strategy.

    Args:
        mitigator: What draws and judges.
        prompts: Some that the model memorised, or benign ones, to see what becomes of them.
        strategies: Which.
        seeds: For every prompt the same.
        references: The picture that each prompt must not draw, compared as it is and as the
            model's VAE renders it; by default what it draws unmitigated from the same seed. # [P]
        progress: Told how many pictures of how many are drawn.

    Raises:
        InputError: an argument cannot be used, or a judge is missing.
        NumericsError: something became NaN or infinite.
    """
    if not prompts or not seeds:
        raise InputError("There is nothing to compare on. Give at least one prompt and one seed.")
    if references is not None and len(references) != len(prompts):
        raise InputError(
            f"{len(references)} references do not fit {counted(len(prompts), 'prompt')}."
        )
    names = [each.name for each in strategies]
    if len({NONE, *names}) != len(names) + 1:
        raise InputError(f"Each strategy has a name of its own, unlike in: {', '.join(names)}.")
    shape = (len(prompts), len(seeds))
    told = [prompt for prompt in prompts for _ in seeds]
    done, total = 0, len(told) * (1 + len(strategies))

    def tell(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    describe, copied_above = mitigator.descriptor.describe, mitigator.descriptor.copied_above
    if copied_above is None or mitigator.alignment is None:
        raise InputError(
            "Strategies are compared by copies and by how pictures follow their prompts. Give a "
            "copy descriptor whose threshold is known, SSCD, and a CLIP."
        )
    known = None
    if references is not None:  # as they are, and as the model shows them # [2, P * S, D]
        shown = describe(mitigator.shown(references)).reshape(2, len(prompts), -1)
        known = shown.repeat(len(seeds), axis=1)
    plain: NDArray[np.float32] | None = None
    avoid: list[NDArray[np.float32]] = []
    found = []
    for strategy in (Plain(), *strategies):
        start = time.perf_counter()
        flat = mitigator.draw(told, list(seeds) * len(prompts), strategy, progress=tell)
        seconds = (time.perf_counter() - start) / len(told)
        vectors = describe([each.image for each in flat])
        if plain is None:
            plain = vectors
            own = vectors.reshape(*shape, -1)
            avoid = [each for row in own for each in agreeing(row, copied_above)]
        against = plain[None] if known is None else known
        likeness, changed = (
            (vectors * other).sum(2).max(0).reshape(shape).astype(np.float64)
            for other in (against, plain[None])
        )
        nearest = [each @ vector for each, vector in zip(avoid, vectors, strict=True)]
        avoided = np.array([each.max() for each in nearest], np.float64).reshape(shape)
        rows = tuple(tuple(flat[i : i + len(seeds)]) for i in range(0, len(flat), len(seeds)))
        found.append(Drawings(strategy.name, rows, likeness, changed, avoided, seconds))
    agreed = None if len(seeds) == 1 else tuple(most_alike(row) for row in own)
    return Comparison(tuple(prompts), tuple(seeds), copied_above, agreed, tuple(found))


def flags(found: Comparison, mitigator: Mitigator, detector: Detector, rule: Rule) -> list[bool]:
    """Whether `auto` would mitigate each prompt, by the reasons of `Mitigator.auto`. # [P]

    Of one seed no second picture is drawn, so that agreement flags nothing.

    Args:
        found: What the prompts draw.
        mitigator: What drew and judged it.
        detector: Calibrated; of this model.
        rule: Says which scores are suspicious.

    Raises:
        InputError: a prompt is empty.
        CalibrationError: the detector has no calibration to flag by.
    """

    def flagged(p: int, prompt: str) -> bool:
        if is_flagged(screen(detector, prompt), rule.level):
            return True
        if any(rule.unusual(each.judged) for each in found.drawings[0].pictures[p]):
            return True
        if found.agreed is None:
            return False
        return mitigator.usual.agreement(found.agreed[p], rule.level).recites

    return [flagged(p, prompt) for p, prompt in enumerate(found.prompts)]
