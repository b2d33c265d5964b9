"""A guard in a diffusers pipeline: is this request about to recite, told by what guidance computes.

    from mnemoscope.guard import Guard, calibrate_guard

    calibration = calibrate_guard(pipe, benign_prompts)
    with Guard(pipe, calibration=calibration, policy="block") as guard:
        images = pipe(prompts).images
        print(guard.decisions)

Needs the `torch` extra.
"""

from mnemoscope_runtime.errors import BackendUnavailable
from mnemoscope_runtime.wording import pip_install

try:
    import diffusers as _diffusers  # noqa: F401
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise BackendUnavailable(
        f"A guard watches a diffusers pipeline: {error}. Install PyTorch and diffusers with "
        f"{pip_install('torch')}."
    ) from None

from .calibrating import calibrate_guard
from .decision import Action, Decision, MemorizationBlocked, MemorizationWarning
from .guarding import Guard
from .identity import Identity
from .mitigation import (
    EmbeddingOptimization,
    Flagged,
    GuardMitigation,
    StepMitigation,
    StepwiseOptimization,
)
from .refusing import PipelineBusy
from .replicas import replicate

__all__ = [
    "Action",
    "Decision",
    "EmbeddingOptimization",
    "Flagged",
    "Guard",
    "GuardMitigation",
    "Identity",
    "MemorizationBlocked",
    "MemorizationWarning",
    "PipelineBusy",
    "StepMitigation",
    "StepwiseOptimization",
    "calibrate_guard",
    "replicate",
]
