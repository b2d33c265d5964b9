"""What is made of the lists that `mnemoscope mitigate` learns from and compares on."""

from __future__ import annotations

import pytest

from mnemoscope import embedded
from mnemoscope.cli._mitigating import told_apart
from mnemoscope_runtime import Bundle


def test_each_prompt_is_learnt_from_once(capsys: pytest.CaptureFixture[str]) -> None:
    bundle, given = Bundle.open(embedded.BUNDLE), ["a cat", "A  Cat ", "a dog", "a cat"]
    assert told_apart(given, bundle) == ["a cat", "a dog"]
    said = "2 prompts left out, to the model the same as others."
    assert said in capsys.readouterr().err
    assert told_apart(given, None) == given
    assert told_apart(["a cat"], bundle) == ["a cat"]
    assert capsys.readouterr().err == ""
