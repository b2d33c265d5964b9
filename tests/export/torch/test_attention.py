from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mnemoscope import BackendUnavailable, Detector
from mnemoscope.detectors import find_statistic
from mnemoscope_export import AttentionMaps, StableDiffusion, TorchBackend
from mnemoscope_runtime import Screener

PROMPTS = ["a photo of a cat", "icon of rocket", "日本"]


@pytest.fixture(scope="module")
def screener(bundle_dir: Path, model: StableDiffusion) -> Iterator[Screener]:
    with Screener.open(bundle_dir, backend=TorchBackend(model)) as screener:
        yield screener


def cross_attentions(model: StableDiffusion) -> list[torch.nn.Module]:
    """In the order they run."""
    ran: list[torch.nn.Module] = []
    found = [m for name, m in model.unet.named_modules() if name.endswith("attn2")]
    hooks = [m.register_forward_hook(lambda m, *_: ran.append(m)) for m in found]
    with torch.no_grad():
        model.predict(torch.zeros(1, *model.latent_shape), 500, model.embed([""]))
    for hook in hooks:
        hook.remove()
    assert len(ran) == len(found) > 3
    return ran


@torch.no_grad()
def maps_by_hand(
    model: StableDiffusion, x: torch.Tensor, t: int, prompt: str
) -> list[torch.Tensor]:
    """softmax(Q K^T / sqrt(d)) from what goes into every cross-attention. # [pixels, L] each"""
    found = []

    def look(attn: torch.nn.Module, args: tuple[torch.Tensor], options: dict[str, object]) -> None:
        context = options["encoder_hidden_states"]
        q, k = (
            part.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for part in (attn.to_q(args[0]), attn.to_k(context))
        )
        a = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        found.append(a.mean(1)[0])

    modules = cross_attentions(model)
    hooks = [m.register_forward_pre_hook(look, with_kwargs=True) for m in modules]
    model.predict(x[None], t, model.embed([prompt]))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.numeric
def test_maps_are_softmax_of_queries_and_keys(model: StableDiffusion) -> None:
    before = dict(model.unet.attn_processors)
    watched = AttentionMaps(model)
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    embeds = model.embed(PROMPTS[:2])
    output, maps = watched.predict(x, 700, embeds)
    with torch.no_grad():
        torch.testing.assert_close(output, model.predict(x, 700, embeds), rtol=1e-3, atol=1e-4)
    for number, prompt in enumerate(PROMPTS[:2]):
        expected = maps_by_hand(model, x[number], 700, prompt)
        assert len(maps) == len(expected)
        for found, each in zip(maps, expected, strict=True):
            torch.testing.assert_close(found[number], each, rtol=1e-3, atol=1e-5)
    assert dict(model.unet.attn_processors) == before
    again, _ = watched.predict(x, 700, embeds)
    torch.testing.assert_close(again, output)


def test_attention_entropy(screener: Screener, model: StableDiffusion) -> None:
    found = find_statistic("attention-entropy").measure(screener, PROMPTS, steps=1, noises=2)
    assert found.shape == (3, 2, 1, 1)
    bank = torch.from_numpy(screener.bundle.noise_bank())
    for i, prompt in enumerate(PROMPTS):
        for j in range(2):
            a = maps_by_hand(model, bank[j], screener.timesteps[0], prompt)[3]
            entropy = float(-(a * a.log()).sum(-1).mean())
            assert found[i, j, 0, 0] == pytest.approx(entropy, rel=1e-3)
    scores = find_statistic("attention-entropy").score(found, None)
    assert ((scores >= 0) & (scores <= np.log(screener.tokenizer.length))).all()


def test_bright_ending(screener: Screener, model: StableDiffusion) -> None:
    statistic = find_statistic("bright-ending")
    found = statistic.measure(screener, PROMPTS, steps=3, noises=2)
    two = statistic.measure(screener, PROMPTS[1:2], steps=2, noises=1)
    np.testing.assert_allclose(found[1:2, :1, :2], two, rtol=1e-3)
    ids = screener.tokenizer(PROMPTS)
    for part in screener.parts(PROMPTS, noises=2):
        assert part.latents.shape[:2] == (3, 2)
        steps = list(screener.walk(part, screener.timesteps[:3]))
        last = steps[-1]
        for i, prompt in enumerate(PROMPTS):
            end = ids[i].tolist().index(model.tokenizer.eos_token_id)
            maps = maps_by_hand(model, torch.from_numpy(last.latents[i, 1]), last.timestep, prompt)
            first = [a for a in maps if len(a) == np.prod(model.latent_shape[1:])]
            layers = first[: model.unet.config.layers_per_block]
            mask = torch.stack(layers).mean(0)[:, end].reshape(model.latent_shape[1:]).numpy()
            norms = [np.linalg.norm((s.cond - s.uncond)[i, 1] * mask) for s in steps]
            expected = np.mean(norms) / mask.mean()
            assert found[i, 1, 2, 0] == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("name", ["attention-entropy", "bright-ending"])
def test_engines_give_no_maps(bundle_dir: Path, name: str) -> None:
    with pytest.raises(BackendUnavailable, match="--backend torch with the bundle's --model"):
        Detector.load(bundle_dir, detector=name)
    with (
        Screener.open(bundle_dir) as screener,
        pytest.raises(BackendUnavailable, match="--backend torch with the bundle's --model"),
    ):
        Detector(screener, detector=name, uncalibrated="score").screen(["a cat"])


@pytest.mark.parametrize("name", ["attention-entropy", "bright-ending"])
def test_half_precision(bundle_dir: Path, model: StableDiffusion, name: str) -> None:
    statistic = find_statistic(name)
    found = []
    for precision in ("float32", "bfloat16"):
        backend = TorchBackend(model, precision=precision)  # type: ignore[arg-type]
        with Screener.open(bundle_dir, backend=backend) as screener:
            found.append(statistic.measure(screener, PROMPTS[:1], steps=1, noises=1))
    np.testing.assert_allclose(found[1], found[0], rtol=0.2)
