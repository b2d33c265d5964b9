"""TensorRT, and TensorRT for RTX: plans are built ahead of time and run later. See README.md."""

from .files import (
    PlanKey,
    PlanWarning,
    differences,
    find_plan,
    folder_of,
    keys,
    read_plan,
    sidecars_of,
    write_plan,
)

__all__ = [
    "PlanKey",
    "PlanWarning",
    "differences",
    "find_plan",
    "folder_of",
    "keys",
    "read_plan",
    "sidecars_of",
    "write_plan",
]
