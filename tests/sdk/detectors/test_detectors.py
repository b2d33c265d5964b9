from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from predictions import both_models
from screening_support import Changed, changed
from torch.nn.attention import SDPBackend, sdpa_kernel

from mnemoscope import (
    CalibrationError,
    CalibrationFile,
    Detector,
    InputError,
    NumericsError,
    calibrate,
)
from mnemoscope.detectors import DETECTORS, Fit, find_statistic, score_difference_maps
from mnemoscope_export import StableDiffusion, TorchBackend, denoise
from mnemoscope_runtime import Bundle, Screener, open_backend

PROMPTS = ["a photo of a cat", "icon of rocket", "日本"]
ON_ENGINES = [name for name, statistic in DETECTORS.items() if not statistic.needs_torch]
ONES = Fit(((0.0, 0.0),) * 3, ((1.0, 1.0),) * 3, (1.0, 1.0))
UPDATES = Fit(((0.0,),) * 3, ((1.0,),) * 3, (1.0,))


@pytest.fixture(scope="module")
def screener(bundle_dir: Path) -> Iterator[Screener]:
    with Screener.open(bundle_dir, threads=1) as screener:
        yield screener


class Torch:
    """The same quantities in PyTorch, prompt by prompt and noise by noise."""

    def __init__(self, model: StableDiffusion, screener: Screener) -> None:
        self.model, self.empty = model, model.embed_empty()
        self.bank = torch.from_numpy(screener.bundle.noise_bank())
        self.timesteps = screener.timesteps
        self.guidance = screener.bundle.manifest.guidance

    @torch.no_grad()
    def eps(self, prompt: str, x: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        """eps_cond, eps_uncond. # [1, C, H, W] each"""
        found = [
            self.model.in_unit(self.model.predict(x, t, embeds), x, t)
            for embeds in (self.model.embed([prompt]), self.empty)
        ]
        return found[0], found[1]


@pytest.fixture(scope="module")
def reference(model: StableDiffusion, screener: Screener) -> Torch:
    return Torch(model, screener)


def each(reference: Torch, function: object) -> NDArray[np.float32]:
    """A function of prompt and noise, for all of them. # [prompt, noise, ...]"""
    return np.array([[function(p, x[None]) for x in reference.bank] for p in PROMPTS], np.float32)  # type: ignore[operator]


def test_magnitude(screener: Screener) -> None:
    statistic = find_statistic("magnitude")
    first = statistic.measure(screener, PROMPTS, steps=1, noises=2)
    several = statistic.measure(screener, PROMPTS, steps=3, noises=2)
    assert (first.shape, several.shape) == ((3, 2, 1, 1), (3, 2, 3, 1))
    np.testing.assert_allclose(first[..., 0], several[:, :, :1, 0], rtol=1e-4)
    scores = statistic.score(several[:, :, :2], None)
    np.testing.assert_allclose(scores, several[:, :, :2, 0].mean(-1), rtol=1e-6)
    assert (statistic.passes(1), statistic.passes(10)) == (1, 20)


@both_models
def test_anisotropy(screener: Screener, reference: Torch) -> None:
    def expected(prompt: str, x: torch.Tensor) -> list[float]:
        cond, uncond = reference.eps(prompt, x, reference.timesteps[-3])
        cosine = torch.cosine_similarity(cond - uncond, uncond, dim=1).mean()
        top = torch.dist(*reference.eps(prompt, x, reference.timesteps[0]))
        return [float(cosine), float(top)]

    found = find_statistic("anisotropy").measure(screener, PROMPTS, steps=1, noises=None)
    assert found.shape == (3, 3, 1, 2)
    np.testing.assert_allclose(found[:, :, 0], each(reference, expected), rtol=2e-3, atol=1e-4)
    fit = Fit(((0.5, 1.0),), ((2.0, 4.0),), (3.0, -1.0))
    scores = find_statistic("anisotropy").score(found, fit)
    by_hand = 3 * (found[:, :, 0, 0] - 0.5) / 2 - (found[:, :, 0, 1] - 1) / 4
    np.testing.assert_allclose(scores, by_hand, rtol=1e-5)


@both_models
def test_latent_update(screener: Screener, model: StableDiffusion, reference: Torch) -> None:
    def expected(prompt: str, x: torch.Tensor) -> list[float]:
        scheduler = model.sampler()
        scheduler.set_timesteps(len(reference.timesteps))
        lengths = []
        for t in reference.timesteps[:3]:
            cond, uncond = reference.eps(prompt, x, t)
            eps = uncond + reference.guidance * (cond - uncond)
            if model.prediction_type == "v_prediction":
                abar = model.alphas_cumprod[t]
                eps = (eps - (1 - abar).sqrt() * x) / abar.sqrt()  # back to the velocity
            after = scheduler.step(eps, t, x).prev_sample
            lengths.append(float(torch.dist(x, after)))
            x = after
        return lengths

    found = find_statistic("latent-update").measure(screener, PROMPTS, steps=3, noises=None)
    np.testing.assert_allclose(found[..., 0], each(reference, expected), rtol=1e-2)
    fit = Fit(((0.5,), (1.0,), (2.0,)), ((1.0,), (2.0,), (0.5,)), (1.0,))
    statistic = find_statistic("latent-update")
    z = (found[..., 0] - [0.5, 1, 2]) / [1, 2, 0.5]
    np.testing.assert_allclose(statistic.score(found, fit), z.max(-1), rtol=1e-5)
    np.testing.assert_allclose(statistic.score(found[:, :, :1], fit), z[..., 0], rtol=1e-5)


@both_models
def test_sharpness_is_the_jacobian_vector_product(screener: Screener, reference: Torch) -> None:
    t = reference.timesteps[0]

    def expected(prompt: str, x: torch.Tensor) -> float:
        embeds = reference.model.embed([prompt])

        def difference(x: torch.Tensor) -> torch.Tensor:
            cond, uncond = (
                reference.model.in_unit(reference.model.predict(x, t, each), x, t)
                for each in (embeds, reference.empty)
            )
            return cond - uncond

        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be derived twice
            d = difference(x).detach()
            _, product = torch.autograd.functional.jvp(difference, x, d)
        return float(product.norm())

    found = find_statistic("sharpness").measure(screener, PROMPTS, steps=1, noises=None)
    np.testing.assert_allclose(found[:, :, 0, 0], each(reference, expected), rtol=0.05)


@both_models
def test_score_difference_maps(screener: Screener, model: StableDiffusion) -> None:
    maps = score_difference_maps(screener, PROMPTS, noises=2)
    assert maps.shape == (3, 2, *screener.bundle.manifest.noise_bank.shape[2:])
    *_, last = denoise(
        model, model.embed(PROMPTS[:1]), torch.from_numpy(screener.bundle.noise_bank()[:1])
    )
    expected = (last.cond - last.uncond).square().mean(1)
    np.testing.assert_allclose(maps[:1, 0], expected.numpy(), rtol=0.05, atol=1e-5)
    steps = len(screener.timesteps)
    found = find_statistic("score-difference-map").measure(screener, PROMPTS, steps=steps, noises=2)
    np.testing.assert_allclose(found[:, :, -1, 0], maps.mean((2, 3)), rtol=1e-3)


TAP = "up_blocks.0.resnets.1"


@pytest.fixture(scope="module")
def tapped(model: StableDiffusion, bundle_dir: Path) -> Iterator[Screener]:
    """The bundle of `bundle_dir` with taps, in PyTorch."""
    bundle = Bundle.open(bundle_dir)
    taps = ("mid_block.resnets.0", TAP)
    manifest = replace(bundle.manifest, taps=taps)
    with Screener(replace(bundle, manifest=manifest), TorchBackend(model)) as screener:
        yield screener


def test_one_tap(tapped: Screener) -> None:
    statistic = find_statistic(f"tap:{TAP}")
    assert statistic.name == f"tap:{TAP}"
    first = statistic.measure(tapped, PROMPTS, steps=1, noises=2)
    np.testing.assert_array_equal(
        first[:, :, 0], tapped.first_step_taps(PROMPTS, noises=2)[..., 1:]
    )
    several = statistic.measure(tapped, PROMPTS, steps=3, noises=2)
    assert (first.shape, several.shape) == ((3, 2, 1, 1), (3, 2, 3, 1))
    np.testing.assert_allclose(first[:, :, 0], several[:, :, 0], rtol=1e-4)
    scores = statistic.score(several[:, :, :2], None)
    np.testing.assert_allclose(scores, several[:, :, :2, 0].mean(-1), rtol=1e-6)
    assert (statistic.passes(1), statistic.passes(10)) == (1, 20)


def test_all_taps(tapped: Screener) -> None:
    statistic = find_statistic("taps")
    found = statistic.measure(tapped, ["", *PROMPTS], steps=3, noises=1)
    assert found.shape == (4, 1, 3, 2)
    assert np.isfinite(found).all()  # the empty prompt's too
    first = tapped.first_step_taps(PROMPTS, noises=1)
    np.testing.assert_allclose(found[1:, :, 0], np.log(first), rtol=1e-4, atol=1e-4)
    assert (found[0] < found[1:].min() - 3).all()
    fit = Fit(((0.5, 1.0),) * 3, ((2.0, 4.0),) * 3, (3.0, -1.0))
    scores = statistic.score(found, fit)
    by_hand = 3 * (found[..., 0] - 0.5) / 2 - (found[..., 1] - 1) / 4  # [prompt, noise, step]
    np.testing.assert_allclose(scores, by_hand.mean(-1), rtol=1e-5)
    with pytest.raises(CalibrationError, match="with --detector taps"):
        statistic.score(found, None)


def test_taps_learn_from_benign_and_memorised_prompts(tapped: Screener) -> None:
    prompts = [f"a cat, number {i}" for i in range(40)]
    positives = ["rain", "snow", "hail", "fog"]
    promise = {"fpr": 0.1, "delta": 0.2, "noises": (1,), "steps": (1, 2)}
    detector = Detector(tapped, detector="taps")
    found = calibrate(detector, prompts, **promise)  # type: ignore[arg-type]
    known = calibrate(detector, prompts, positives=positives, **promise)  # type: ignore[arg-type]
    assert [len(c.fit.mean) for c in found if c.fit] == [1, 2]
    assert all(c.fit is not None and c.fit.weight == (1.0, 1.0) for c in found)
    assert all(c.fit is not None and c.fit.weight != (1.0, 1.0) for c in known)
    calibrated = Detector(tapped, CalibrationFile(tuple(known)), detector="taps")
    [detection] = calibrated.screen(["a dog"], steps=2, noises=1)
    assert (detection.detector, detection.rms) == ("taps", None)
    assert detection.memorized is not None


@pytest.mark.parametrize("name", ["taps", f"tap:{TAP}"])
def test_a_bundle_without_taps(screener: Screener, name: str) -> None:
    with pytest.raises(InputError, match="`mnemoscope export --taps"):
        Detector(screener, detector=name).screen(["a cat"])
    with pytest.raises(InputError, match="`mnemoscope export --taps"):
        Detector(screener, detector=name).measure(["a cat"], steps=2)


def test_a_tap_that_the_bundle_lacks(tapped: Screener) -> None:
    with pytest.raises(InputError, match=f"no tap 'x'. Choose one of: mid_block.resnets.0, {TAP}"):
        Detector(tapped, detector="tap:x").screen(["a cat"])


@pytest.mark.parametrize("name", ["tap:", "tap", "Taps"])
def test_what_is_no_tap(name: str) -> None:
    with pytest.raises(InputError, match="of a bundle with taps also taps, tap:LAYER"):
        find_statistic(name)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", ["taps", f"tap:{TAP}"])
def test_nan_in_a_tap_is_no_verdict(tapped: Screener, name: str, steps: int) -> None:
    def spoil(graph: str, outputs: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        if graph != "text_encoder":
            outputs[-1][..., -1] = np.nan
        return outputs

    backend = Changed(tapped.backend, spoil)
    with pytest.raises(NumericsError, match="NaN or infinite"):
        Detector(Screener(tapped.bundle, backend), detector=name).measure(PROMPTS, steps=steps)


# what all of them have in common


@pytest.mark.parametrize("name", ON_ENGINES)
def test_the_empty_prompt_differs_from_itself_in_nothing(screener: Screener, name: str) -> None:
    statistic = find_statistic(name)
    steps = 1 if statistic.only_first else 2
    found = statistic.measure(screener, ["", "a cat"], steps=steps, noises=2)
    assert found.shape == (2, 2, steps, 2 if name == "anisotropy" else 1)
    assert np.isfinite(found).all()
    if name != "latent-update":
        assert (np.abs(found[0]) < 1e-3 * np.abs(found[1])).all()
    assert (found[1] != 0).all()
    fit = {"anisotropy": ONES, "latent-update": UPDATES}.get(name)
    assert statistic.score(found, fit).shape == (2, 2)
    assert statistic.passes(steps) > 0
    assert statistic.reference


@pytest.mark.parametrize("name", ON_ENGINES)
def test_prompts_do_not_depend_on_their_neighbours(screener: Screener, name: str) -> None:
    statistic = find_statistic(name)
    steps = 1 if statistic.only_first else 2
    many = PROMPTS * 12
    found = statistic.measure(screener, many, steps=steps, noises=2)
    alone = statistic.measure(screener, PROMPTS[1:2], steps=steps, noises=1)
    np.testing.assert_allclose(found[1::3, :1], np.repeat(alone, 12, 0), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in ON_ENGINES if DETECTORS[n].is_fitted])
def test_a_detector_that_learns_says_so_before_it_has(bundle_dir: Path, name: str) -> None:
    with (
        Detector.load(bundle_dir, detector=name) as detector,
        pytest.raises(
            CalibrationError, match=f"no scores without one.*--detector {name} .*makes one"
        ),
    ):
        detector.screen(["a cat"])


@pytest.mark.parametrize("name", [n for n in ON_ENGINES if DETECTORS[n].only_first])
def test_a_detector_of_the_first_step_takes_no_more(bundle_dir: Path, name: str) -> None:
    with (
        Detector.load(bundle_dir, detector=name) as detector,
        pytest.raises(InputError, match="first step alone"),
    ):
        detector.measure(["a cat"], steps=2)


def test_detections_of_another_detector(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir, detector="sharpness", uncalibrated="score") as detector:
        found = detector.screen(["a cat"])[0]
    assert (found.detector, found.rms, found.memorized) == ("sharpness", None, None)
    assert found.score > 0


def test_an_unknown_detector(bundle_dir: Path) -> None:
    with pytest.raises(InputError, match="no detector 'magic'"):
        Detector.load(bundle_dir, detector="magic")


@pytest.mark.parametrize("name", ON_ENGINES)
def test_nan_is_no_verdict(bundle_dir: Path, name: str) -> None:
    def spoil(_: str, outputs: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        outputs[-1][-1] = np.nan
        return outputs

    def spoilt(graph: str, outputs: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return outputs if graph == "text_encoder" else spoil(graph, outputs)

    statistic = find_statistic(name)
    with (
        changed(bundle_dir, spoilt) as screener,
        pytest.raises(NumericsError, match="NaN or infinite"),
    ):
        Detector(screener, detector=name).measure(
            PROMPTS, steps=1 if statistic.only_first else 2, noises=1
        )


@pytest.mark.parametrize(
    ("name", "graphs"),
    [("magnitude", ["screen"]), *((n, ["text_encoder", "step"]) for n in ON_ENGINES[1:])],
)
def test_loading_gets_the_graphs_ready_that_one_step_takes(
    bundle_dir: Path, name: str, graphs: list[str]
) -> None:
    backend = Changed(open_backend("onnxruntime", threads=1))
    with Detector.load(bundle_dir, backend=backend, detector=name) as detector:
        assert backend.loaded == graphs
        detector.measure(PROMPTS[:1], steps=1, noises=1)
        assert backend.loaded == graphs
