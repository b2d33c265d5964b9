"""Which prompts of a long list a model has memorised, at a false-discovery rate.

    with Detector.load("my-bundle") as detector:
        found = audit(detector, "prompts.csv", "results.parquet", fdr=0.05)

    audit(detector, "pictures", "results.parquet", confirming=Confirming(Artist.load()))

Every prompt is measured first, in a stream and with a journal that outlives a kill; then all are
judged together (`mnemoscope.calibration.conformal.rejected`). Of captions with pictures those that
are flagged, and some others, are drawn and compared with the pictures (`confirming`).
"""

from .auditing import audit
from .confirming import Artist, Confirmation, Confirming, Finding
from .ray_workers import RayWorkers
from .result import Audit

__all__ = [
    "Artist",
    "Audit",
    "Confirmation",
    "Confirming",
    "Finding",
    "RayWorkers",
    "audit",
]
