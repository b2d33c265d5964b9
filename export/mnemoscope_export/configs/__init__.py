"""What the configs of a pipeline say, looked through before any weights are read.

An allow-list: every option of every part is in a table with the values that are covered. Needs no
torch.
"""

from .parts import SCHEDULER, scheduler_problems
from .pipeline import PARTS, check_configs, check_unet, check_vae, is_xl, refuse
from .unet import inpaints, sample_size

__all__ = [
    "PARTS",
    "SCHEDULER",
    "check_configs",
    "check_unet",
    "check_vae",
    "inpaints",
    "is_xl",
    "refuse",
    "sample_size",
    "scheduler_problems",
]
