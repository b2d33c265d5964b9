"""What is noted of a calibration whose memorised prompts are hardly flagged."""

from __future__ import annotations

import pytest
from calibrations import SETTING, scores_of

from mnemoscope import Calibration
from mnemoscope.calibration.wording import doubt


@pytest.mark.parametrize(
    ("flagged", "of", "words"),
    [
        (0, 25, "flags 0 % of 25 memorised prompts, and may flag 10 % of benign ones"),
        (5, 25, "flags 20 % of 25 memorised prompts"),
        (6, 25, None),
        (1, 1, None),
        (0, 0, None),
    ],
)
def test_memorised_prompts_that_are_hardly_flagged(
    flagged: int, of: int, words: str | None
) -> None:
    positives = [9.0] * flagged + [0.0] * (of - flagged)
    benign = scores_of(*range(1, 9), *[1.0] * 40)
    note = doubt(Calibration.of(SETTING, benign, positives=positives, fpr=0.1, delta=0.1))
    if words is None:
        assert note is None
    else:
        assert note is not None
        assert words in note
        assert "mnemoscope generate --images 4" in note
