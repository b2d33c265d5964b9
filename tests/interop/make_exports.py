"""`python make_exports.py DIR`, in the environment of Optimum: what its users have.

Writes DIR/KIND/pytorch and DIR/KIND/onnx for models that predict noise and velocity.
"""

from __future__ import annotations

import sys
from pathlib import Path

from optimum.onnxruntime import ORTStableDiffusionPipeline

sys.path.insert(0, str(Path(__file__).parent.parent))
from pipelines import build_pipeline

for kind in ("epsilon", "v_prediction"):
    folder = Path(sys.argv[1]) / kind
    build_pipeline(kind).save_pretrained(folder / "pytorch")
    exported = ORTStableDiffusionPipeline.from_pretrained(str(folder / "pytorch"), export=True)
    exported.save_pretrained(folder / "onnx")
