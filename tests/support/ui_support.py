"""What the tests of the page share."""

from __future__ import annotations

from mnemoscope import Detection

CLEAN = Detection(
    prompt="a cat",
    score=0.5,
    scores=(0.5,),
    rms=None,
    p_value=0.4,
    threshold=1.0,
    memorized=False,
    truncated=False,
    detector="magnitude",
    backend="onnxruntime",
    bundle="b" * 64,
    steps=1,
    noises=1,
    seconds=0.01,
    passes=1,
)
