"""Numbers that no measurement can give, wherever they come in: they never become verdicts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from attack_support import plant
from hostile_graphs import harmless, value
from onnx import ModelProto, TensorProto, helper

from mnemoscope import Detector, embedded
from mnemoscope.detectors import Features, Fit, Scores
from mnemoscope.detectors.magnitude import Magnitude
from mnemoscope.detectors.taps import Taps
from mnemoscope.screening.stages import Stage, alone
from mnemoscope_runtime import (
    Backend,
    BackendError,
    Bundle,
    Engine,
    InputError,
    NumericsError,
    Screener,
    Tokens,
)

Make = Callable[[tuple[int, ...]], object]
ONE = np.float32(1)


class Answers(Backend):
    """Returns of every output what a function makes of its shape."""

    name = "answers"

    def __init__(self, **makes: Make) -> None:
        super().__init__()
        self.makes = makes

    def make_engine(self, bundle: Bundle, graph: str) -> Engine:  # noqa: ARG002
        def run(inputs: Any, outputs: tuple[str, ...]) -> list[Any]:
            if "input_ids" in inputs:
                rows = len(inputs["input_ids"])
                sizes = {
                    "magnitude": (rows, len(inputs.get("noise_index", ()))),
                    "taps": (rows, len(inputs.get("noise_index", ())), 8),
                    "prompt_embeds": (rows, 77, 32),
                }
            else:
                shape = inputs["latents"].shape
                sizes = {"magnitude": shape[:1], "taps": (shape[0], 8)}
                sizes |= {"eps_cond": shape, "eps_uncond": shape}
            return [self.makes.get(name, ones)(sizes[name]) for name in outputs]

        return run


def ones(shape: tuple[int, ...]) -> object:
    return np.ones(shape, np.float32)


def of(dtype: object) -> Make:
    return lambda shape: np.ones(shape, dtype)  # type: ignore[call-overload]


class Forgets(Answers):
    def make_engine(self, bundle: Bundle, graph: str) -> Engine:  # noqa: ARG002
        return lambda *_: []


OTHERS: dict[str, Make] = {
    **{str(np.dtype(kind)): of(kind) for kind in ("f2", "f8", ">f4", "i8", "?", "U3", "c8", "O")},
    "a scalar": lambda _: np.asarray(ONE),
    "a dimension more": lambda shape: np.ones((*shape, 1), np.float32),
    "a row less": lambda shape: np.ones((shape[0] - 1, *shape[1:]), np.float32),
    "a list": lambda shape: np.ones(shape, np.float32).tolist(),
    "a masked array": lambda shape: np.ma.masked_array(np.ones(shape, np.float32), mask=True),
    "nothing": lambda _: None,
}


def screened(backend: str | Backend = "onnxruntime", **options: Any) -> None:
    """One prompt, by the embedded bundle or another."""
    path, given = options.pop("path", embedded.BUNDLE), options.pop("told", {})
    screener = Screener.open(path, backend=backend, graphs=())
    with Detector(screener, uncalibrated="score", **options) as detector:
        detector.screen(["a cat"], **given)


def test_what_engines_return() -> None:
    for make in OTHERS.values():
        for steps, name in ((1, "magnitude"), (2, "magnitude"), (2, "eps_cond")):
            with pytest.raises(BackendError, match=rf"The engine returned .* as {name}, expected"):
                screened(Answers(**{name: make}), told={"steps": steps})
    for name, make in {**OTHERS, "a width": lambda _: np.ones((1, 76, 32), np.float32)}.items():
        if name != "a row less":  # of one, none
            with pytest.raises(BackendError, match=r"expected float32 \(1, 77, any\)"):
                screened(Answers(prompt_embeds=make), told={"steps": 2})
    with pytest.raises(BackendError, match="The engine returned 0 arrays for magnitude"):
        screened(Forgets())


@pytest.mark.parametrize("number", [-1.0, -1e-45, np.nan, np.inf, -np.inf])
def test_norms_that_are_none(number: float) -> None:
    def made(shape: tuple[int, ...]) -> object:
        return np.full(shape, number, np.float32)

    for steps in (1, 2):
        for output, detector in (("magnitude", "magnitude"), ("taps", "tap:up_blocks.0.resnets.0")):
            words = rf"prompt 0 is {'negative' if -np.inf < number < 0 else 'NaN'}.*no verdict"
            with pytest.raises(NumericsError, match=words):
                screened(Answers(**{output: made}), detector=detector, told={"steps": steps})


def planted(operator: str, of: np.ndarray, kind: int = TensorProto.FLOAT, **to: int) -> bytes:
    """A graph whose magnitude an operator makes of a constant."""

    def change(made: ModelProto) -> None:
        made.graph.initializer[0].CopyFrom(value(of))
        made.graph.node[0].CopyFrom(helper.make_node(operator, ["w"], ["magnitude"], **to))
        made.graph.output[0].type.tensor_type.elem_type = kind

    return harmless(change)


HALVES = np.full((1, 1), 0.5, np.float32)
PLANTED = {
    "negative": planted("Neg", HALVES),
    "NaN": planted("Log", -HALVES),
    "infinite": planted("Reciprocal", 0 * HALVES),
    **{
        TensorProto.DataType.Name(kind): planted("Cast", HALVES, kind, to=kind)
        for kind in (TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE)
    },
    **{f"{rank} dimensions": planted("Abs", np.full([1] * rank, ONE)) for rank in (0, 1, 3)},
    "two rows": planted("Abs", np.ones((2, 1), np.float32)),
}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_planted_graphs_return(light: Path, backend: str) -> None:
    plant(light, "screen.onnx", planted("Abs", HALVES))
    screened(backend, path=light, told={"noises": 1})
    for name, content in PLANTED.items():
        plant(light, "screen.onnx", content)
        with pytest.raises(BackendError) as caught:
            screened(backend, path=light, told={"noises": 1})
        wanted = "The engine returned|without a row for it|prompt 0 is .*: that is no verdict"
        assert re.search(wanted, str(caught.value)), name


class Own(Magnitude):
    """Makes what it was given of every prompt."""

    name = "own"

    def __init__(self, features: Any = None, scores: Any = None) -> None:
        self.features, self.scores = features, scores

    def measure(self, *_: Any, **__: Any) -> Features:
        return np.ones((1, 4, 1, 1), np.float32) if self.features is None else self.features  # type: ignore[no-any-return]

    def score(self, features: Features, fit: Fit | None) -> Scores:  # noqa: ARG002
        return np.ones((1, 4)) if self.scores is None else self.scores  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "scores",
    [
        *(np.ones((1, 4), kind) for kind in ("f2", "i8", "?", "U3", "O")),
        *(np.ones(shape) for shape in ((4,), (1, 3), (2, 4), (1, 4, 1), ())),
        [[1.0] * 4],
        1.0,
        "clean",
        np.ma.masked_array(np.ones((1, 4)), mask=True),
    ],
    ids=str,
)
def test_what_detectors_of_ones_own_return(scores: object) -> None:
    with pytest.raises(InputError, match=r"What the detector 'own' makes of prompts is .*, not fl"):
        screened(detector=Own(scores=scores))
    with pytest.raises(InputError, match=r"What the detector 'own' measures of prompts is .*, no"):
        screened(detector=Own(scores))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(number: float) -> None:
    for own in (Own(scores=np.full((1, 4), number)), Own(np.full((1, 4, 1, 1), number))):
        with pytest.raises(NumericsError, match="prompt 0 is NaN or infinite: that is no"):
            screened(detector=own)


def test_finite_numbers_that_add_up_to_more_than_a_float() -> None:
    for largest in (1.7e308, -1.7e308):
        with pytest.raises(NumericsError, match="The score of prompt 0 is NaN or infinite"):
            screened(detector=Own(scores=np.full((1, 4), largest)))


@pytest.mark.parametrize("weight", [1e308, -1e308])
def test_weights_beyond_what_can_be_added_up(weight: float) -> None:
    with Screener.open(embedded.BUNDLE) as screener:
        count = len(screener.taps)
        fit = Fit(((-100.0,) * count,), ((1.0,) * count,), (weight,) * count)
        calibration = SimpleNamespace(fit=fit)
        stage, tokens = Stage.of(screener, Taps()), screener.tokenizer.encode(["a cat"])
        with (
            np.errstate(over="ignore"),
            pytest.raises(NumericsError, match="The score of prompt 0"),
        ):
            alone(stage, tokens, calibration)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_tokens_that_no_tokenizer_makes(backend: str) -> None:
    """OpenVINO takes an embedding that is not there for zeros."""
    with Screener.open(embedded.BUNDLE, backend=backend) as screener:
        ids = screener.tokenizer(["a cat"])
        known = ids.max()  # the end's, the last of the vocabulary
        for steps in (1, 2):
            screener.trajectory(Tokens(ids, (False,)), steps=steps)
        for wrong in (
            ids.astype(np.int32),
            ids.astype(np.float64),
            ids[:, :-1],
            ids[0],
            *(np.where(ids == ids[0, 0], beyond, ids) for beyond in (-1, known + 1, 2**62)),
        ):
            for steps in (1, 2):
                with pytest.raises(
                    InputError, match=r"Let `screener\.tokenizer\.encode` make them"
                ):
                    screener.trajectory(Tokens(wrong, (False,)), steps=steps)
            with pytest.raises(InputError, match=r"Let `screener\.tokenizer\.encode` make them"):
                screener.first_step(Tokens(wrong, (False,)))
