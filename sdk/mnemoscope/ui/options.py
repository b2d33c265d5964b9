"""What a user says of the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mnemoscope_runtime import BackendOptions, InputError

from ..shipped import is_shipped

__all__ = ["UiOptions"]


@dataclass(frozen=True)
class UiOptions:
    """What the page is about, and where it is.

    Attributes:
        host: Address to listen at; others than loopback are for everybody.
        port: Port; 0 takes a free one.
        bundle: Directory that `mnemoscope export` wrote; None for the embedded one.
        model: What the bundle was exported from, for gradients and pictures; None for the embedded
            model, or with a bundle for neither.
        calibration: Calibration file; None for the bundle's own.
        trust: Public key that bundle and calibration have to be signed by; None for any.
        backend: What runs the bundle at first.
        backend_options: As of `Detector.load`.
        detector: What is measured at first.
        steps: Denoising steps that are measured at first.
        noises: Noises that are measured at first; None for all.

    Raises:
        InputError: steps, noises or port are no such numbers.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    bundle: Path | None = None
    model: str | None = None
    calibration: Path | None = None
    trust: Path | None = None
    backend: str = "onnxruntime"
    backend_options: BackendOptions = field(default_factory=BackendOptions)
    detector: str = "magnitude"
    steps: int = 1
    noises: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise InputError(f"A port lies between 0 and 65535, not at {self.port}.")
        if self.model is not None and self.bundle is None:
            raise InputError(
                "A model by itself cannot be screened. Give the bundle that was exported from it "
                "too: --bundle."
            )

    @property
    def own(self) -> bool:
        """Whether it is the embedded model."""
        return self.bundle is None

    @property
    def ships(self) -> bool:
        """Whether it is one of the models that ship, which have one world of captions."""
        return self.own or (self.bundle is not None and is_shipped(self.bundle))

    @property
    def draws(self) -> bool:
        """Whether it is known which model the bundle was exported from."""
        return self.own or self.model is not None
