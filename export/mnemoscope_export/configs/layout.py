"""What the pipelines of a family are put together from, looked through part by part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .pipeline import INDEX, class_of, is_there

__all__ = ["CLIP_TOKENIZER", "T5_TOKENIZER", "Layout", "file_of"]

Config = Mapping[str, Any]

CLIP_TOKENIZER = ("CLIPTokenizer", "CLIPTokenizerFast")
T5_TOKENIZER = ("T5Tokenizer", "T5TokenizerFast")


def file_of(part: str) -> str:
    """The file of a part's config, below a pipeline's directory."""
    kind = next((each for each in ("scheduler", "tokenizer") if part.startswith(each)), "")
    return f"{part}/{kind}_config.json" if kind else f"{part}/config.json"


@dataclass(frozen=True)
class Layout:
    """The parts of a family's pipelines.

    Attributes:
        draws: Classes of pipelines that draw from a prompt alone.
        classes: Of each part that predicts.
        looks: What is not covered in the config of a part, of those that there has to be one of.
        tokenizers: The same of tokenizers, whose configs may be missing.
        unused: Parts that predict nothing.
    """

    draws: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]]
    looks: Mapping[str, Callable[[Config], list[str]]]
    tokenizers: Mapping[str, Callable[[Config], list[str]]]
    unused: tuple[str, ...]

    @property
    def files(self) -> dict[str, str]:
        """The file of each config that is read."""
        return {part: file_of(part) for part in (*self.looks, *self.tokenizers)}

    def problems(self, configs: Mapping[str, Config], left_out: Collection[str] = ()) -> list[str]:
        """What is not covered.

        Args:
            configs: The contents of `files`, those that there are; that of `model_index.json` by
                "model_index".
            left_out: Parts that this pipeline has been saved without.
        """
        found = [f"{INDEX}: {each}" for each in self._of_index(configs, left_out)]
        needed = [part for part in self.looks if part not in left_out]
        found += [f"{file_of(part)} is missing" for part in needed if part not in configs]
        for part, look in {**self.looks, **self.tokenizers}.items():
            if part in configs and part not in left_out:
                found += [f"{file_of(part)}: {each}" for each in look(configs[part])]
        return found

    def _of_index(self, configs: Mapping[str, Config], left_out: Collection[str]) -> list[str]:
        index, found = configs.get("model_index", {}), []
        wanted = [part for part in self.classes if part not in left_out]
        kind = index.get("_class_name")
        if kind not in self.draws:
            draws = ", ".join(self.draws)
            found.append(f"its pipeline is {kind!r:.80} (must be one of {draws})")
        for part in wanted:
            if not is_there(index, part):
                found.append(f"it has no {part}")
            elif (own := class_of(index, part)) not in self.classes[part]:
                known = " or ".join(self.classes[part])
                found.append(f"{part} is of the class {own!r:.80} (must be {known})")
        for part in sorted(index):
            is_known = part in wanted or part in self.unused or part.startswith("_")
            if not is_known and is_there(index, part):
                found.append(f"it has a part {part}, which is not known here")
        return found
