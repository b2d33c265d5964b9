"""Which words make a model recite, and what to change.

from mnemoscope.explain import explain

for word in explain("google icon of tokyo tower, on rings, in zagreb 2020").ranked:
    print(word.word, word.score)

Gradients need the `torch` extra; nothing else here does.
"""

from .attribution import METHODS, Attribution, Gradient, Method, Occlusion, load_attribution
from .edits import Change, Edit, EditOptions, Edits, find_edits
from .explanation import (
    DEFAULT,
    Explainer,
    Explanation,
    Other,
    OtherKind,
    Token,
    Word,
    explain,
    load_model,
)
from .trigger_words import KindRow, Summary, Trigger, summarize
from .vocabulary import Listed, Vocabulary, read_lists
from .word_kinds import KINDS, Kind, classify, read_lexicon

__all__ = [
    "DEFAULT",
    "KINDS",
    "METHODS",
    "Attribution",
    "Change",
    "Edit",
    "EditOptions",
    "Edits",
    "Explainer",
    "Explanation",
    "Gradient",
    "Kind",
    "KindRow",
    "Listed",
    "Method",
    "Occlusion",
    "Other",
    "OtherKind",
    "Summary",
    "Token",
    "Trigger",
    "Vocabulary",
    "Word",
    "classify",
    "explain",
    "find_edits",
    "load_attribution",
    "load_model",
    "read_lexicon",
    "read_lists",
    "summarize",
]
