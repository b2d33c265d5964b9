"""How mitigation is judged on models that nobody tuned it on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mitigate_support import LOADED, Pixels
from PIL import ImageOps

from benchmarks.mitigation_transfer import BENIGN, Judges, decided, show
from mnemoscope import embedded
from mnemoscope.mitigate import Agreement, Judged, Picture

pytestmark = pytest.mark.slow

FOLDER = Path(embedded.__file__).parent


def test_copies_are_counted_by_pictures_and_by_captions() -> None:
    """Against the training pictures as the model's VAE renders them, each its own."""
    judges = Judges(FOLDER, Pixels(), LOADED["load"]())
    against = judges.rendered([4, 7], 2)
    assert len(against) == 4
    assert against[0].tobytes() == against[1].tobytes() != against[2].tobytes()
    drawn = [against[0], ImageOps.mirror(against[0]), ImageOps.invert(against[2]), against[0]]
    found = judges.row(["one", "one", "other", "other"], drawn, against)
    assert found["pictures"] == 4
    for name in ("SSCD", "stand-in"):
        assert found[name]["copies"] == 0.25
        assert found[name]["captions"] == 0.5
        assert np.argmax(found[name]["cosines"]) == 0
    assert found["SSCD"]["captions_higher"] == 0.5
    assert found["stand-in"]["captions_higher"] is None
    assert -1 <= found["alignment"] <= 1


def test_how_auto_decided_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    picture = Picture(0, "stepwise", "a cat", Judged(0.5, 0.3, 0.2, None), None, 40.0)  # type: ignore[arg-type]
    plain = Picture(0, "none", "a cat", Judged(0.5, 0.3, None, None), None, 0.0)  # type: ignore[arg-type]
    rows = [
        SimpleNamespace(
            prompt="a", flagged_by="drawing", agreement=None, verified=True, pictures=[picture],
        ),
        SimpleNamespace(
            prompt="b", flagged_by="agreement", agreement=Agreement(0.9, 0.5), verified=False,
            pictures=[picture],
        ),
        SimpleNamespace(
            prompt="c", flagged_by=None, agreement=Agreement(0.1, None), verified=None,
            pictures=[plain],
        ),
    ]  # fmt: skip
    found = decided(rows)  # type: ignore[arg-type]
    assert found["flagged by"] == {"drawing": 1, "agreement": 1, "None": 1}
    assert found["strategies"] == {"stepwise": 2, "none": 1}
    judged = {"copies": 0.25, "captions": 0.5, "captions_higher": 0.37}
    row = {"SSCD": judged, "stand-in": judged, "alignment": 0.5, "auto": found}
    show({"auto": row, BENIGN: row, "auto on held-out": {"sscd": found}})
    shown = capsys.readouterr().out
    assert "25%" in shown
    assert "37%" in shown
    assert "on held-out, sscd" in shown
