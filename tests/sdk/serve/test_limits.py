"""How requests are gathered, unless told otherwise, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from mnemoscope import InputError
from mnemoscope.serve import Limits


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"batch": True}, "batch is True"),
        ({"queue": 1.5}, "queue is 1.5"),
        ({"wait": -1}, "wait is -1"),
        ({"wait": float("nan")}, "wait is nan"),
        ({"wait": "1"}, "wait is '1'"),
        ({"lanes": 0}, "lanes is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"patience": float("nan")}, "patience is nan"),
        ({"patience": "1"}, "patience is '1'"),
    ],
)
def test_limits(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Limits(**limits)


def test_limits_unless_told() -> None:
    assert Limits() == Limits(batch=8, queue=256, wait=0.0, lanes=1, patience=None)
    assert Limits(wait=60).wait == 60  # the longest
