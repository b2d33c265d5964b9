from __future__ import annotations

from typing import Any

import pytest

from mnemoscope import InputError
from mnemoscope_export import ExportOptions


@pytest.mark.parametrize(
    "options",
    [
        {"noises": 0},
        {"noises": 65},
        {"inference_steps": 0},
        {"inference_steps": 1000},
        {"guidance": float("nan")},
        {"guidance": 0},
        {"seed": -1},
        {"seed": 2**63},
        {"precision": "int8"},
    ],
)
def test_impossible_options(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        ExportOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noises": "4"}, r"noises is '4' \(str\), not a whole number"),
        ({"noises": None}, r"noises is None \(NoneType\), not a whole number"),
        ({"seed": 1.5}, r"seed is 1\.5 \(float\), not a whole number"),
        ({"guidance": "7.5"}, r"guidance is '7\.5' \(str\), not a number"),
        ({"budget": True}, r"budget is True \(bool\), not a number"),
        ({"overwrite": "no"}, r"overwrite is 'no' \(str\), not True or False"),
    ],
)
def test_options_of_a_wrong_type(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ExportOptions(**options)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InputError, match=r"65.*seed.*a side, not 0.*named twice") as refused:
        ExportOptions(noises=65, seed=-1, latent_size=0, taps=["a", "a"])
    assert str(refused.value).count("named twice") == 1
