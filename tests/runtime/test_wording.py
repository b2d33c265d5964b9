"""The words that messages have in common."""

import pytest

from mnemoscope_runtime.errors import Overloaded
from mnemoscope_runtime.wording import counted


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 copies"), (1, "1 copy"), (2, "2 copies"), (1200, "1,200 copies")]
)
def test_a_number_of_things(number: int, told: str) -> None:
    assert counted(number, "copy", "copies") == told


def test_an_s_is_the_usual_plural() -> None:
    assert (counted(1, "prompt"), counted(2, "prompt")) == ("1 prompt", "2 prompts")


@pytest.mark.parametrize(
    ("waiting", "told"), [(1, "1 prompt is waiting, too many"), (2, "2 prompts are waiting, too")]
)
def test_how_many_are_waiting(waiting: int, told: str) -> None:
    assert str(Overloaded(waiting, 0.2)).startswith(told)
