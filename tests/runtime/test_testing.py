from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mnemoscope_runtime import BackendError, Bundle, Screener
from mnemoscope_runtime.testing import FakeBackend

PROMPTS = ["a cat", "a dog", "a cat", ""]


def test_magnitude_depends_on_the_prompt_alone(bundle_dir: Path) -> None:
    with Screener.open(bundle_dir, backend=FakeBackend()) as screener:
        values = screener.first_step(PROMPTS)
        again = screener.first_step(PROMPTS[1:2], noises=1)
    assert values.shape == (4, 3)
    assert values.dtype == np.float32
    assert ((values >= 0) & (values <= 1)).all()
    assert (values == values[:, :1]).all()
    assert len(set(values[:, 0].tolist())) == 3
    assert values[0, 0] == values[2, 0]
    assert again.item() == values[1, 0]


def test_magnitude_of_your_own(bundle_dir: Path) -> None:
    seen = []

    def magnitude(ids: np.ndarray) -> float:
        seen.append(ids)
        return 0.5

    backend = FakeBackend(magnitude)
    with Screener.open(bundle_dir, backend=backend) as screener:
        assert backend.calls == 0
        assert (screener.first_step(PROMPTS) == 0.5).all()
    assert backend.calls == 1
    assert [ids.shape for ids in seen] == [(77,)] * len(PROMPTS)
    assert np.array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], seen[1])


@pytest.mark.parametrize("graph", ["step", "text_encoder"])
def test_has_no_other_graph(bundle_dir: Path, graph: str) -> None:
    with pytest.raises(BackendError, match=graph):
        FakeBackend().load(Bundle.open(bundle_dir), graph)
