"""The prompt without the words that its magnitude comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mnemoscope_export import Model, magnitude_of, unconditional
from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

from .sampling import Plan, Task

__all__ = ["LeaveOut"]


@dataclass(frozen=True)
class LeaveOut:
    """Words are left out, each time the one without which the magnitude is lowest.

    The magnitude is that of the first step, the mean over the noises that a prompt is drawn from.
    The last word stays.

    Attributes:
        target: Magnitude to come down to, in the model's unit.
        most: At most so many words.
    """

    target: float
    most: int = 3
    name: str = "leave-out"

    def __post_init__(self) -> None:
        if self.most < 1:
            raise InputError(
                f"To leave out {counted(self.most, 'word')} changes nothing. Leave out one."
            )

    def plan(self, task: Task) -> Plan:
        """See `Strategy`."""
        found, passes = {}, 0.0
        for prompt in dict.fromkeys(task.prompts):
            rows = [i for i, each in enumerate(task.prompts) if each == prompt]
            found[prompt], taken = self._shorter(task, prompt, task.noises[rows])
            passes += taken * len(rows) / len(task.prompts)
        prompts = tuple(found[prompt] for prompt in task.prompts)
        return replace(replace(task, prompts=prompts).plan(), prompts=prompts, passes=passes)

    @torch.no_grad()
    def _shorter(self, task: Task, prompt: str, noises: Tensor) -> tuple[str, int]:
        """The words that are left, and passes per sample."""
        model, t = task.model, task.timesteps()[0].item()
        x = noises.to(model.network.device)
        uncond = unconditional(model, x, t)
        words, passes = prompt.split(), 2
        lowest = _magnitude(model, words, x, t, uncond)
        for _ in range(min(self.most, len(words) - 1)):
            if lowest <= self.target:
                break
            shorter = [words[:i] + words[i + 1 :] for i in range(len(words))]
            magnitudes = [_magnitude(model, each, x, t, uncond) for each in shorter]
            passes += len(shorter)
            lowest = min(magnitudes)
            words = shorter[magnitudes.index(lowest)]
        return " ".join(words), passes


def _magnitude(model: Model, words: Sequence[str], x: Tensor, t: float, uncond: Tensor) -> float:
    embeds = tuple(each.expand(len(x), *each.shape[1:]) for each in model.embed([" ".join(words)]))
    return float(magnitude_of(model, embeds, x, t, uncond).mean())
