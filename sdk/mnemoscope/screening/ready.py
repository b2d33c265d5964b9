"""What is settled before prompts come: how they are measured, and what scores are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mnemoscope_runtime import InputError

from ..calibration import Calibration, Setting
from ..calibration.cascade import First
from .calibrations import Calibrations
from .stages import Stage

__all__ = ["Ready"]


@dataclass(frozen=True)
class Ready:
    """A setting, and what goes with it.

    Attributes:
        setting: What a calibration has to match.
        stage: What measures; of a cascade the second.
        calibrations: All that there are.
    """

    setting: Setting
    stage: Stage
    calibrations: Calibrations

    @classmethod
    def of(
        cls, stage: Stage, first: First | None, before: Stage | None, calibrations: Calibrations
    ) -> Ready:
        """A stage by itself, or behind a first one.

        Args:
            stage: What measures.
            first: What goes first, as the setting has it ...
            before: ... and as a stage of the same screener.
            calibrations: All that there are.

        Raises:
            InputError: the first stage costs as much as the second.
        """
        if before is not None and before.flops >= stage.flops:
            raise InputError(
                f"The first stage, {before}, costs {before.flops / stage.flops:.2f} of the second, "
                f"{stage}, so that it saves nothing. Choose a cheaper --first, or leave it out."
            )
        screener = stage.screener
        setting = Setting(
            screener.bundle.id,
            screener.backend.name,
            stage.statistic.name,
            stage.steps,
            stage.noises,
            first,
        )
        return cls(setting, stage, calibrations)

    @cached_property
    def calibration(self) -> Calibration | None:
        """Raises as `Calibrations.of`."""
        return self.calibrations.of(self.setting)
