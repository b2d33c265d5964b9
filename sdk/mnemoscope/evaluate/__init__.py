"""How well detectors tell memorised prompts from others."""

from __future__ import annotations

from .lists import PromptLists
from .metrics import (
    Interval,
    auc,
    balanced_accuracy,
    bootstrap,
    tpr_at_fpr,
    tpr_nearest_fpr,
)
from .scoring import Scored, score
from .style import STYLE_LIMITS, style_aucs
from .table import Row, judge

__all__ = [
    "STYLE_LIMITS",
    "Interval",
    "PromptLists",
    "Row",
    "Scored",
    "auc",
    "balanced_accuracy",
    "bootstrap",
    "judge",
    "score",
    "style_aucs",
    "tpr_at_fpr",
    "tpr_nearest_fpr",
]
