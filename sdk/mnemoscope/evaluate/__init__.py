"""How well detectors tell memorised prompts from others."""

from __future__ import annotations

from .intervals import Interval, bootstrap, mean_interval
from .metrics import auc, balanced_accuracy, tpr_at_fpr, tpr_nearest_fpr
from .prompt_lists import PromptLists
from .scoring import Scored, score
from .table import Row, judge
from .text_only import STYLE_LIMITS, style_aucs

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
    "mean_interval",
    "score",
    "style_aucs",
    "tpr_at_fpr",
    "tpr_nearest_fpr",
]
