"""Detectors that many ask at once: see `AsyncDetector`."""

from mnemoscope_runtime.errors import Overloaded, ServiceClosed, Unserved

from .async_detector import AsyncDetector
from .batches import Batch, Limits

__all__ = ["AsyncDetector", "Batch", "Limits", "Overloaded", "ServiceClosed", "Unserved"]
