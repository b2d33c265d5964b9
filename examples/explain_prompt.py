"""Which words make the embedded model recite, and what to change: without torch."""

from mnemoscope import Detector
from mnemoscope.explain import EditOptions, Explainer, find_edits

PROMPT = "google icon of tokyo tower, on rings, in zagreb 2020"

with Detector.load() as detector:
    explanation = Explainer(detector).explain(PROMPT)
    print(f"{explanation.score:.4f}, threshold {explanation.threshold:.4f}: {PROMPT}")
    for word in explanation.ranked:
        print(f"{word.score:8.4f}  {word.kind:9}  {word.word}")
    for edit in find_edits(detector, PROMPT, EditOptions(keep=("tower",))).found:
        changes = ", ".join(map(str, edit.changes))
        print(f"{edit.score:.4f}, {edit.kept:.0%} kept: {changes}")
