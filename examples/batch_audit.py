"""Which prompts of a list were memorised: judged together, at a false-discovery rate.

python examples/batch_audit.py [PROMPTS [RESULTS]]

PROMPTS is a .txt, .jsonl, .csv or .parquet file. Without one, a hundred of the embedded model's
captions are audited, of which it memorised forty.
"""

import csv
import sys
import tempfile
from pathlib import Path

from mnemoscope import Detector, embedded
from mnemoscope.audit import audit

arguments = [Path(each) for each in sys.argv[1:]]
with tempfile.TemporaryDirectory() as temporary:
    prompts = arguments[0] if arguments else Path(temporary, "prompts.txt")
    results = arguments[1] if len(arguments) > 1 else Path(temporary, "results.csv")
    if not arguments:
        rows = embedded.read_prompts("memorized")[:40] + embedded.read_prompts("held_out")[:60]
        prompts.write_text("".join(f"{row.prompt}\n" for row in rows), "utf-8")

    with Detector.load() as detector:  # the embedded model; or Detector.load("my-bundle")
        # if it is killed, the same call goes on where it was
        found = audit(detector, prompts, results, fdr=0.05, tell=lambda note: print("note:", note))

    print(found.verdict)
    with results.open(encoding="utf-8", newline="") as file:
        flagged = [row for row in csv.DictReader(file) if row["flagged"] == "True"]
    for row in sorted(flagged, key=lambda row: -float(row["score"]))[:10]:
        print(f"{float(row['score']):.4f}  group {row['group']:>3}  {row['prompt']}")
