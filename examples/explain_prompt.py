"""Which words make the embedded model recite, and what to change: without torch."""

from mnemoscope import Detector, embedded
from mnemoscope.explain import EditOptions, Explainer, Vocabulary, find_edits, read_lexicon

PROMPT = "google icon of tokyo tower, on rings, in zagreb 2020"

lexicon = read_lexicon(embedded.LEXICON)  # what kinds the words are of
captions = embedded.read_prompts("seen", "held_out", "calibration")
options = EditOptions(
    keep=("tower",),
    alternatives=Vocabulary(row.prompt for row in captions),  # what may replace a word
)

with Detector.load() as detector:
    explanation = Explainer(detector, lexicon=lexicon).explain(PROMPT)
    print(f"{explanation.score:.4f}, threshold {explanation.threshold:.4f}: {PROMPT}")
    for word in explanation.ranked:
        print(f"{word.score:8.4f}  {word.kind:9}  {word.word}")
    for edit in find_edits(detector, PROMPT, options).found:
        changes = ", ".join(map(str, edit.changes))
        print(f"{edit.score:.4f}, {edit.kept:.0%} kept: {changes}")
