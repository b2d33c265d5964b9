"""What a model in Triton is told: parameters of its `config.pbtxt`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import msgspec

from mnemoscope_runtime import BACKENDS, BackendOptions, InputError
from mnemoscope_runtime.options import check_options

__all__ = ["ModelOptions"]


@dataclass(frozen=True)
class ModelOptions:
    """How a model in Triton measures, and what it shows.

    Attributes:
        backend: As of `Detector.load`; "auto" would choose anew on every machine.
        threads: Likewise, like the next four.
        device: Which GPU, from 0.
        engines: Folder of plans on the machine that serves.
        batch: Prompts that one run of ONNX Runtime on a GPU takes.
        contexts: Calls that TensorRT runs at once.
        trust: File of a public key on the machine that serves.
        detector: As of `Detector.load`.
        steps: As of `Detector.screen`.
        noises: Likewise.
        calls: Where a backend of Triton's runs the screening graph (`graph`), the most prompts that
            it is given at a time; None where this model runs it.
        show_scores: Whether callers see scores and p-values, which help who wants to get past the
            detector (docs/security.md).

    Raises:
        InputError: one of them cannot be used.
    """

    backend: str = "onnxruntime"
    threads: int | None = None
    device: int | None = None
    engines: str | None = None
    batch: int | None = None
    contexts: int | None = None
    trust: str | None = None
    detector: str = "magnitude"
    steps: int = 1
    noises: int | None = None
    calls: int | None = None
    show_scores: bool = False

    def __post_init__(self) -> None:
        if self.kind not in BACKENDS:
            raise InputError(
                f"Triton cannot be given the backend {self.backend!r}. Choose one of: "
                f"{', '.join(BACKENDS)}."
            )
        check_options("text", detector=self.detector)
        check_options("a whole number", steps=self.steps)
        check_options("a whole number or None", noises=self.noises, calls=self.calls)
        check_options("True or False", show_scores=self.show_scores)
        check_options("a path or None", engines=self.engines, trust=self.trust)
        self.told.check(self.kind)

    @property
    def kind(self) -> str:
        """The backend without a precision: "openvino" of "openvino:bfloat16"."""
        return self.backend.partition(":")[0]

    @property
    def on_gpu(self) -> bool:
        """Whether the backend runs on a GPU."""
        return "device" in BACKENDS[self.kind].takes

    @property
    def told(self) -> BackendOptions:
        """What the backend is told."""
        return BackendOptions(self.threads, self.device, self.engines, self.batch, self.contexts)

    @property
    def parameters(self) -> dict[str, str]:
        """Those that are given, as Triton's parameters, which are texts."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return {
            name: value if type(value) is str else str(value).lower()
            for name, value in given.items()
        }

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> ModelOptions:
        """The options that stand in a config; names in capitals are Triton's own.

        Raises:
            InputError: there is no such option, or it cannot be used.
        """
        told = {name: value for name, value in parameters.items() if not name.isupper()}
        try:
            if unknown := told.keys() - {each.name for each in fields(cls)}:
                raise msgspec.ValidationError(f"there is no {min(unknown)!r:.80}")
            return msgspec.convert(told, cls, strict=False)
        except msgspec.ValidationError as error:
            raise InputError(
                f"config.pbtxt has a parameter that cannot be used: {error}. Mend it, or write the "
                "model again with `mnemoscope triton`."
            ) from None
