"""Fine-tuning without learning pictures by heart: what is being memorised is left out of the loss.

    from mnemoscope.training import MemorizationFilter, QuantileThreshold

    memorization = MemorizationFilter(scheduler, empty, QuantileThreshold())
    ...
    verdict = memorization(unet, noisy, timesteps, embeds, prediction, ids=ids)
    loss = verdict.mean((prediction.float() - target).square())

Needs the `torch` extra. See docs/training.md.
"""

from mnemoscope_runtime.errors import BackendUnavailable
from mnemoscope_runtime.wording import pip_install

try:
    import torch  # noqa: F401
except ImportError as error:
    raise BackendUnavailable(
        f"Training needs PyTorch: {error}. Install it with {pip_install('torch')}."
    ) from None

from .captions import add_random_tokens
from .filtering import MemorizationFilter, Verdict
from .folder import CaptionedPicture, Pictures, read_folder
from .skip_report import SkipReport, Skips, merge_reports
from .thresholds import HardThreshold, QuantileThreshold

__all__ = [
    "CaptionedPicture",
    "HardThreshold",
    "MemorizationFilter",
    "Pictures",
    "QuantileThreshold",
    "SkipReport",
    "Skips",
    "Verdict",
    "add_random_tokens",
    "merge_reports",
    "read_folder",
]
