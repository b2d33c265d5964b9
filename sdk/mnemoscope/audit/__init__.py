"""Which prompts of a long list a model has memorised, at a false-discovery rate.

    with Detector.load("my-bundle") as detector:
        found = audit(detector, "prompts.csv", "results.parquet", fdr=0.05)

Every prompt is measured first, in a stream and with a journal that outlives a kill; then all are
judged together (`mnemoscope.calibration.conformal.rejected`).
"""

from .auditing import audit
from .result import Audit

__all__ = ["Audit", "audit"]
