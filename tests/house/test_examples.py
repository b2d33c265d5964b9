from __future__ import annotations

import pytest
from example_support import EXAMPLES, Example

# the fine-tuning one is in test_training_processes.py
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "finetune")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_example_runs(example: Example, name: str) -> None:
    result = example(name)
    assert result.code == 0
    assert result.out
