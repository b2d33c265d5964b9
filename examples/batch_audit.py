"""Which prompts of a list were memorised: judged together, at a false-discovery rate.

python examples/batch_audit.py [PROMPTS [RESULTS]]

PROMPTS is a .txt, .jsonl, .csv or .parquet file. Without one, a hundred of the embedded model's
captions are audited, of which it memorised forty.
"""

import argparse
import csv
import tempfile
from pathlib import Path

from mnemoscope import Detector, embedded
from mnemoscope.audit import audit

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("prompts", type=Path, nargs="?")
parser.add_argument("results", type=Path, nargs="?")
told = parser.parse_args()
with tempfile.TemporaryDirectory() as temporary:
    prompts = told.prompts or Path(temporary, "prompts.txt")
    results = told.results or Path(temporary, "results.csv")
    if told.prompts is None:
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
