"""Leaves samples that are being memorised out of the loss.

Wen et al., "Detecting, Explaining, and Mitigating Memorization in Diffusion Models", ICLR 2024,
section 5: at the timestep that was drawn for a training sample, measure the magnitude of the
text-conditional noise prediction, and skip the sample if it is too large.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from mnemoscope_export import magnitude
from mnemoscope_runtime import InputError, NumericsError
from mnemoscope_runtime.wording import counted

from .comparable import comparable
from .dropped import ROUNDING, away, is_dropped
from .skip_report import SkipReport, Tally
from .thresholds import HardThreshold, QuantileThreshold, Windows

__all__ = ["MemorizationFilter", "Verdict"]

_NO_ID = -1


@dataclass(frozen=True)
class Verdict:
    """What to do with the samples of a batch.

    Attributes:
        magnitude: || eps(x_t, t, e) - eps(x_t, t, e_empty) ||_2, in eps units, fp32. # [B]
        limit: Above which a sample is skipped; infinity while its timesteps warm up. # [B]
        keep: False for samples to skip. # [B]
    """

    magnitude: Tensor
    limit: Tensor
    keep: Tensor

    def mean(self, losses: Tensor) -> Tensor:
        """Mean loss of the samples that are kept; 0, with a gradient of zeros, if none is.

        The loss hangs together with the model even then, so that processes which wait for each
        other's gradients do not wait forever.

        Args:
            losses: Of each sample, or of each of its elements. # [B] or [B, ...]

        Raises:
            InputError: `losses` are not one for each sample.
        """
        if losses.ndim == 0 or len(losses) != len(self.keep):
            raise InputError(
                f"Losses of shape {list(losses.shape)} are not those of "
                f"{counted(len(self.keep), 'sample')}. Compute the loss with reduction='none'."
            )
        each = losses.flatten(1).mean(1) if losses.ndim > 1 else losses
        kept = torch.where(self.keep, each, torch.zeros_like(each))
        return kept.sum() / self.keep.sum().clamp(min=1)


class MemorizationFilter:
    """Judges every sample of a training batch, at the price of one network pass without gradients.

    Works in any loop: with autocast, gradient accumulation, `torch.compile` and gradient
    checkpointing nothing changes. Where `torch.distributed` runs, every process learns the
    magnitudes of all of them (a few numbers per sample), so that thresholds and reports are the
    same everywhere and the main process's checkpoint is complete: every process must then judge
    equally often, as they must compute gradients equally often.

    Samples whose caption was dropped are kept and not counted: their embedding is the empty one, be
    it in another precision, or zeros.
    """

    def __init__(
        self,
        scheduler: Any,
        empty: Tensor,
        threshold: HardThreshold | QuantileThreshold | None = None,
    ) -> None:
        """A filter that has seen nothing.

        Args:
            scheduler: The noise scheduler of diffusers that the loop adds noise with.
            empty: The embedding of a caption that was dropped, as the loop makes it: of the empty
                prompt, in the loop's own precision. # [1, L, D]
            threshold: `QuantileThreshold()` if there is none.

        Raises:
            InputError: `empty` is no embedding of one prompt, or the threshold is a bare number.
        """
        self.threshold = QuantileThreshold() if threshold is None else threshold
        if not isinstance(self.threshold, HardThreshold | QuantileThreshold):
            raise InputError(
                f"The threshold is {threshold!r:.80}, which is no threshold. Give one such as "
                "HardThreshold(2.0) or QuantileThreshold()."
            )
        if not isinstance(empty, Tensor) or empty.ndim != 3 or len(empty) != 1:
            raise InputError(
                f"The empty prompt's embedding is {_shape(empty)}, not a tensor [1, L, D]. Embed "
                '"" alone, and give the hidden states of the text encoder.'
            )
        self._scheduler = scheduler
        self._empty = empty.detach()
        self._told = self._draws_none = False
        self._tally = Tally()
        self._windows = (
            Windows(self.threshold, scheduler.config.num_train_timesteps)
            if isinstance(self.threshold, QuantileThreshold)
            else None
        )

    @torch.no_grad()
    def __call__(
        self,
        unet: Callable[..., Any],
        noisy: Tensor,
        timesteps: Tensor,
        embeds: Tensor,
        prediction: Tensor,
        *,
        ids: Tensor | Sequence[int] | None = None,
    ) -> Verdict:
        """Judge a batch, then learn from it.

        Args:
            unet: What gave the prediction: called with (noisy, timesteps, empty embeddings), it
                returns a tensor or an object with one as `sample`.
            noisy: x_t. # [B, C, H, W]
            timesteps: t of every sample. # [B]
            embeds: What the network was told. # [B, L, D]
            prediction: What it predicted, noise or velocity as the scheduler says. # [B, C, H, W]
            ids: Rows of the data set, for the report. # [B]

        Raises:
            InputError: shapes do not fit, the scheduler's predictions are of another type, or two
                passes of the network do not compare: dropout, norms over the batch in training
                mode.
            NumericsError: a magnitude, of this or another process, is NaN or infinite.
        """
        _fit(noisy, timesteps, embeds, prediction)
        if embeds.shape[1:] != self._empty.shape[1:]:
            raise InputError(
                f"Embeddings of shape {list(embeds.shape)} do not fit the empty prompt's, "
                f"{list(self._empty.shape)}. Embed both with the same padding."
            )
        empty = self._empty.to(embeds)
        dropped = is_dropped(embeds, empty)
        self._tell_of_precision(embeds[dropped], empty)
        with comparable(unet, noisy.device, draws=not self._draws_none):
            output = unet(noisy, timesteps, empty.expand_as(embeds))
        self._draws_none = True
        uncond = output if isinstance(output, Tensor) else getattr(output, "sample", None)
        if not isinstance(uncond, Tensor) or uncond.shape != prediction.shape:
            raise InputError(
                f"The network gave {_shape(uncond)} for the empty prompt, and {_shape(prediction)} "
                "as prediction. Give the network that made the prediction: it returns a tensor, or "
                "an object with one as `sample`."
            )
        norms = self._to_eps(timesteps) * magnitude(prediction.detach(), uncond)
        columns = (norms, timesteps, dropped, _ids(ids, len(noisy)))
        own = torch.stack([each.detach().cpu().double() for each in columns], 1)
        rows = _of_all_processes(own, noisy.device)
        _check(rows)

        limits = self._limits(own[:, 1])
        skip = _skips(own, limits)
        told = rows[rows[:, 2] == 0]
        self._tally.add(told[:, 3].long(), _skips(told, self._limits(told[:, 1])))
        if self._windows is not None:
            self._windows.add(told[:, 1], told[:, 0])
        device = noisy.device
        return Verdict(norms.float(), limits.float().to(device), ~skip.to(device))

    @property
    def warm(self) -> float:
        """Share of the threshold's ranges of timesteps that have warmed up, in 0..1.

        In the others nothing was skipped yet; 1 for one that needs no warm-up.
        """
        if self._windows is None:
            return 1.0
        return self._windows.warm

    def report(self, names: Sequence[str] | None = None) -> SkipReport:
        """Which samples were skipped and how often, over all processes and since the first step.

        Args:
            names: Of every row of the data set: files, or captions, which bring together
                duplicates that are rows of their own.

        Raises:
            InputError: there are fewer names than rows.
        """
        return self._tally.report(names)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; tensors and plain values only."""
        return {
            "threshold": _settings(self.threshold),
            "seen": self._tally.seen.clone(),
            "skipped": self._tally.skipped.clone(),
            "total": self._tally.total.clone(),
            **(
                {
                    "values": self._windows.values.clone(),
                    "counts": self._windows.counts.clone(),
                }
                if self._windows is not None
                else {}
            ),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: it is none of this filter: the threshold was another.
        """
        found = state.get("threshold")
        if found != _settings(self.threshold):
            raise InputError(
                f"The checkpoint's threshold is {found}, this filter's "
                f"{_settings(self.threshold)}. Make the filter with the checkpoint's, or start "
                "without its state."
            )
        tally = self._tally
        tally.seen, tally.skipped, tally.total = (
            state[name].detach().cpu().clone() for name in ("seen", "skipped", "total")
        )
        if self._windows is not None:
            self._windows.values, self._windows.counts = (
                state[name].detach().cpu().clone() for name in ("values", "counts")
            )

    def _tell_of_precision(self, dropped: Tensor, empty: Tensor) -> None:
        """Warn once if dropped captions are the empty prompt in another precision than `empty`."""
        rows = dropped[dropped.flatten(1).any(1)]  # zeros are no embedding of a text
        if self._told or not len(rows):
            return
        off = float(away(rows, empty).max())
        if off <= ROUNDING:
            return
        self._told = True
        warnings.warn(
            f"Dropped captions differ from `empty` by {off:.2%}, as the same text does in another "
            "precision, or after training steps of the text encoder. They are kept and not counted "
            "all the same, but magnitudes of the others are relative to `empty`: embed it as the "
            "loop embeds captions, after the text encoder is cast and under the same autocast.",
            stacklevel=4,
        )

    def _limits(self, timesteps: Tensor) -> Tensor:
        if isinstance(self.threshold, HardThreshold):
            return torch.full((len(timesteps),), self.threshold.value)
        assert self._windows is not None
        return self._windows.limits(timesteps)

    def _to_eps(self, timesteps: Tensor) -> Tensor:
        """d eps / d prediction at every timestep: a difference in eps units is that much larger."""
        kind = self._scheduler.config.get("prediction_type")  # those of flows do not say
        if kind not in ("epsilon", "v_prediction"):
            raise InputError(
                f"The scheduler, {type(self._scheduler).__name__}, predicts {kind!r}. The filter "
                "is for models that predict 'epsilon' or 'v_prediction'."
            )
        abar = self._scheduler.alphas_cumprod.to(timesteps.device).float()[timesteps]
        return abar.sqrt() if kind == "v_prediction" else torch.ones_like(abar)


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _fit(noisy: Tensor, timesteps: Tensor, embeds: Tensor, prediction: Tensor) -> None:
    """Check that there is one of each for every sample."""
    told = {"noisy": noisy, "timesteps": timesteps, "embeds": embeds, "prediction": prediction}
    shapes = ", ".join(f"{name} {_shape(value)}" for name, value in told.items())
    tensors = all(isinstance(value, Tensor) and value.ndim for value in told.values())
    if not tensors or len(set(map(len, told.values()))) > 1 or timesteps.ndim != 1:
        raise InputError(
            f"These are not of the same samples: {shapes}. Give tensors [B, C, H, W], [B], "
            "[B, L, D] and [B, C, H, W]; of a network's output `sample`, and a t for each sample."
        )
    if timesteps.is_floating_point():
        raise InputError(
            f"Timesteps are {timesteps.dtype}, and t is a whole number. Give them as `torch.int64`."
        )


def _skips(rows: Tensor, limits: Tensor) -> Tensor:
    """Of rows (magnitude, timestep, dropped, id). # [B]"""
    return (rows[:, 0] > limits) & (rows[:, 2] == 0)


def _ids(ids: Tensor | Sequence[int] | None, count: int) -> Tensor:
    if ids is None:
        return torch.full((count,), _NO_ID)
    try:
        found = torch.as_tensor(ids)
    except (TypeError, ValueError, RuntimeError):  # text, or rows of different lengths
        found = torch.empty(0)
    whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
    if found.shape != (count,) or not whole or (found < 0).any():
        raise InputError(
            f"ids are {ids!s:.80}, for {counted(count, 'sample')}. Give one whole number, 0 or "
            "more, for each: its row in the data set."
        )
    return found


def _check(rows: Tensor) -> None:
    wrong = (~rows[:, 0].isfinite()).nonzero()
    if len(wrong):
        _, t, _, sample = rows[wrong[0, 0]].tolist()
        name = "A sample" if sample == _NO_ID else f"Sample {sample:.0f}"
        raise NumericsError(
            f"{name} has a magnitude that is NaN or infinite, at timestep {t:.0f}: the model's "
            "predictions are. Lower the learning rate, or train in bfloat16 or float32."
        )


def _of_all_processes(rows: Tensor, device: torch.device) -> Tensor:
    """Rows of every process, in the order of their ranks; they may have different numbers."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    size = torch.tensor([len(rows)], device=device)
    sizes = [torch.zeros_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    counts = [int(each) for each in sizes]
    padded = F.pad(rows, (0, 0, 0, max(counts) - len(rows))).to(device)
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:n].cpu() for part, n in zip(parts, counts, strict=True)])


def _settings(threshold: HardThreshold | QuantileThreshold) -> dict[str, Any]:
    return {"kind": type(threshold).__name__, **asdict(threshold)}
