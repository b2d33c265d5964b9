"""What a run measures, and the parts that it has, in the order in which they count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mnemoscope_runtime.manifest import Precision

__all__ = ["ENGINES", "Part", "Setting", "parts"]

# those that run what was exported
ENGINES = ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Setting:
    """What all parts share.

    Attributes:
        device: "cuda", or "cpu" for a rehearsal: the processor stands in for the GPU.
        family: Of `benchmarks.families`, or "embedded".
        precision: What UNets compute in.
        compiler: Of `torch.compile`.
        rounds: Timed runs of a row.
        warmup: Runs of a row before they are timed.
        prompts: Of an offline call.
        steps: Sampling steps of a guarded draw.
        batch: Samples of a training step.
        work: Folder of bundles, and of what compilers keep.
    """

    device: Literal["cuda", "cpu"] = "cuda"
    family: str = "sd14"
    precision: Precision = "float16"
    compiler: str = "inductor"
    rounds: int = 50
    warmup: int = 5
    prompts: int = 64
    steps: int = 50
    batch: int = 4
    work: str = "out/gpu"

    @property
    def is_rehearsal(self) -> bool:
        """Whether there is no GPU in it."""
        return self.device == "cpu"

    def record(self) -> dict[str, Any]:
        """What results of two runs must agree in to stand side by side."""
        return {name: value for name, value in asdict(self).items() if name != "work"}


@dataclass(frozen=True)
class Part:
    """A part of a run, in a process of its own.

    Attributes:
        name: In the report.
        measure: "module:function": told the setting, it yields figures by name, as soon as it has
            them.
        seconds: After which it is ended.
        told: More arguments.
    """

    name: str
    measure: str
    seconds: float
    told: Mapping[str, Any] = field(default_factory=dict)


def parts(setting: Setting) -> list[Part]:
    """All parts: what nobody has run on a GPU yet first. Those up to full size fit 12 minutes."""
    first, *others = ("onnxruntime",) if setting.is_rehearsal else ENGINES

    def pytorch(way: str, seconds: float) -> Part:
        return Part(f"PyTorch, {way}", "benchmarks.gpu.pytorch:measure", seconds, {"way": way})

    def embedded(backend: str) -> Part:
        name = f"{backend}, embedded bundle, two threads"
        return Part(name, "benchmarks.gpu.engines:two_threads", 40, {"backend": backend})

    def full_size(backend: str) -> Part:
        name = f"{backend}, {setting.family}"
        return Part(name, "benchmarks.gpu.engines:full_size", 150, {"backend": backend})

    found = [
        Part("cuda", "benchmarks.gpu.copies:measure", 20),
        pytorch("eager", 65),
        pytorch("compiled", 100),
        pytorch("CUDA graphs", 170),
        Part("guard", "benchmarks.gpu.guard:measure", 70),
        Part("training filter", "benchmarks.gpu.training:measure", 55),
        embedded(first),
        Part("the shipped flow", "benchmarks.gpu.flow:measure", 50, {"backend": first}),
        full_size(first),
        *map(embedded, others),
        *map(full_size, others),
    ]
    if setting.is_rehearsal:  # which may be on a machine that has much else to do
        return [replace(part, seconds=10 * part.seconds) for part in found]
    return found
