"""Drawing a memorised prompt so that the training picture does not come out.

Needs the `torch` extra.
"""

from mnemoscope_runtime.errors import BackendUnavailable
from mnemoscope_runtime.wording import pip_install

try:
    import diffusers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise BackendUnavailable(
        f"Mitigation needs PyTorch and diffusers: {error}. Install them with "
        f"{pip_install('torch')}."
    ) from None

from .agreement import Agreement, Usual
from .attention import Attention
from .chain import Chain
from .clamp import Clamp
from .compare import Comparison, compare
from .embedding import Embedding
from .guidance import Guidance
from .leave_out import LeaveOut
from .mitigator import Mitigator
from .noise import Noise
from .padding import Padding
from .results import Judged, Mitigation, Picture, Rule
from .sampling import Painter, Plan, Sampling, Steered, Task
from .stepwise import Stepwise
from .strategies import LADDER, STRATEGIES, Kit, Plain, Strategy
from .words import RandomWords, Rephrase, random_prompts
from .yardstick import Yardstick

__all__ = [
    "LADDER",
    "STRATEGIES",
    "Agreement",
    "Attention",
    "Chain",
    "Clamp",
    "Comparison",
    "Embedding",
    "Guidance",
    "Judged",
    "Kit",
    "LeaveOut",
    "Mitigation",
    "Mitigator",
    "Noise",
    "Padding",
    "Painter",
    "Picture",
    "Plain",
    "Plan",
    "RandomWords",
    "Rephrase",
    "Rule",
    "Sampling",
    "Steered",
    "Stepwise",
    "Strategy",
    "Task",
    "Usual",
    "Yardstick",
    "compare",
    "random_prompts",
]
