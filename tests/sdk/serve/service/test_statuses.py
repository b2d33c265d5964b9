from __future__ import annotations

import pytest

from mnemoscope import BackendError, InputError, NumericsError
from mnemoscope.serve.service.statuses import FAULT, told


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("Prompt 3 is too long."), "Prompt 3 is too long."),
        (NumericsError("Prompt 3 is NaN."), "Prompt 3 is NaN."),
        (TimeoutError("There was no answer."), "There was no answer."),
        (BackendError("/srv/bundles/x cannot be run."), FAULT),
        (KeyError("a cat"), FAULT),
    ],
)
def test_clients_are_told_what_is_of_their_request(error: BaseException, said: str) -> None:
    assert told(error) == said
