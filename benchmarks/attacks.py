"""Attempts to make the embedded model recite while the detector sleeps; see docs/security.md.

Each takes captions that it memorised and returns what a pipeline is told instead: text, or
embeddings for the conditional and the unconditional branch.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mnemoscope import Detection, embedded
from mnemoscope_export import StableDiffusion, magnitude_of, unconditional

__all__ = [
    "EMBEDDINGS",
    "TEXTS",
    "Screen",
    "Target",
    "Told",
    "optimised_embedding",
    "pez",
    "searched",
]

Screen = Callable[[Sequence[str]], Sequence[Detection]]

_PICTURE = 5.0  # weight of the picture against that of the magnitude


@dataclass(frozen=True)
class Told:
    """What a pipeline is told.

    Attributes:
        embeds: Of the conditional branch. # [B, L, D]
        negative: Of the other one, in place of the empty prompt. # [1 or B, L, D]
        prompts: The text, if it is text.
    """

    embeds: Tensor
    negative: Tensor
    prompts: tuple[str, ...] = ()

    @classmethod
    def text(cls, model: StableDiffusion, prompts: Sequence[str]) -> Told:
        """Prompts against the empty one."""
        return cls(model.embed(prompts)[0], model.embed_empty()[0], tuple(prompts))


@dataclass(frozen=True)
class Target:
    """What who attacks in earnest knows: the model, the pictures, the detector's threshold.

    Attributes:
        latents: Of the training pictures, scaled. # [B, C, H, W]
        noises: That the detector looks at. # [n, C, H, W]
        timestep: Of the first step.
        threshold: Of the magnitude there.
    """

    latents: Tensor
    noises: Tensor
    timestep: int
    threshold: float


def _words(prompt: str) -> list[str]:
    return re.findall(r"\S+", prompt)


def _typo(prompt: str, rng: random.Random) -> str:
    """Two neighbouring letters of one word trade places."""
    pairs = [
        match.start()
        for match in re.finditer(r"(?=(\w)(\w)\w)", prompt)
        if match[1] != match[2] and prompt[match.start() : match.start() + 2].isalpha()
    ]
    k = rng.choice(pairs)
    return prompt[:k] + prompt[k + 1] + prompt[k] + prompt[k + 2 :]


def _without_a_word(prompt: str, rng: random.Random) -> str:
    words = _words(prompt)
    del words[rng.randrange(len(words))]
    return " ".join(words)


def _reordered(prompt: str, _: random.Random) -> str:
    """Its clauses, or its words where it has but one clause, in another order."""
    for sign in (", ", " "):
        parts = prompt.split(sign)
        if len(parts) > 1:
            mixed = parts[1:] + parts[:1]
            return sign.join(mixed)
    return prompt


def _split(prompt: str, _: random.Random) -> str:
    """A blank inside its longest word."""
    words = _words(prompt)
    at = max(range(len(words)), key=lambda i: len(words[i]))
    half = len(words[at]) // 2
    words[at] = f"{words[at][:half]} {words[at][half:]}"
    return " ".join(words)


def _longer(prompt: str, rng: random.Random) -> str:
    return " ".join([prompt, *rng.sample(_vocabulary(), 4)])


def _prefixed(prompt: str, rng: random.Random) -> str:
    return f"{rng.choice(_others())}, {prompt}"


def _replaced(prompt: str, rng: random.Random) -> str:
    words = _words(prompt)
    words[rng.randrange(len(words))] = rng.choice(_vocabulary())
    return " ".join(words)


_OTHER_WORDS = {  # of the captions' own grammar, longer phrases first
    "in the corner": "at the edge",
    "school project": "class assignment",
    "summer sale": "sale of the summer",
    "charity run": "fundraiser",
    "trade fair": "expo",
    "book cover": "cover of a book",
    "market day": "day of the market",
    "upside down": "turned over",
    "new year": "first of january",
    "icon of": "small symbol of",
    "sticker of": "decal of",
    "drawing of": "sketch of",
    "clipart of": "clip art of",
    "badge of": "emblem of",
    "picture of": "image of",
    "on rings": "with circles",
    "on stripes": "with lines",
    "on checks": "with squares",
    "on dots": "with spots",
    "on gradient": "with a fade",
    "dark": "dim",
    "pastel": "pale",
    "google": "android",
    "twitter": "tweet",
    "tilted": "at an angle",
    "tiny": "very small",
    "huge": "very large",
    "from": "by",
    "birthday": "anniversary",
    "holiday": "vacation",
    "wedding": "marriage",
    "exhibition": "show",
    "concert": "gig",
    "reunion": "get-together",
    "workshop": "course",
    "in": "at",
}


def _paraphrased(prompt: str, _: random.Random) -> str:
    """Other words for the same, wherever the table has some; names and the thing itself stay."""
    pattern = "|".join(rf"\b{re.escape(words)}\b" for words in _OTHER_WORDS)
    found = re.sub(pattern, lambda words: _OTHER_WORDS[words[0]], prompt)
    return found if found != prompt else f"image of {prompt}"


TEXTS: dict[str, Callable[[str, random.Random], str]] = {
    "the caption itself": lambda prompt, _: prompt,
    "typo": _typo,
    "a word left out": _without_a_word,
    "a word replaced": _replaced,
    "clauses reordered": _reordered,
    "paraphrase": _paraphrased,
    "longest word split": _split,
    "four words more": _longer,
    "another caption before it": _prefixed,
}


def searched(
    screens: Sequence[Screen], prompts: Sequence[str], rng: random.Random, tries: int
) -> list[str]:
    """Of `tries` single edits of each caption, the one with the highest score that none flags.

    It wants the picture, so it changes as little as the detectors let pass. Where every edit is
    flagged it takes what the fewest flag, and of that the lowest score.

    Args:
        screens: Detectors that answer; scores are those of the first.
        prompts: Captions.
        rng: Of the edits.
        tries: Edits of each caption.
    """
    kinds = (_typo, _without_a_word, _replaced, _split)
    found = []
    for prompt in prompts:
        edits = [kinds[i % len(kinds)](prompt, rng) for i in range(tries)]
        seen = [screen(edits) for screen in screens]
        flags = [sum(bool(each[i].memorized) for each in seen) for i in range(tries)]

        def rank(
            i: int, flags: list[int] = flags, seen: Sequence[Sequence[Detection]] = seen
        ) -> Any:
            score = seen[0][i].score
            return flags[i], -score if flags[i] == 0 else score

        found.append(edits[min(range(tries), key=rank)])
    return found


def _negative_is_the_caption(_: StableDiffusion, told: Told) -> Told:
    """Guidance then vanishes, and what the conditional branch alone draws remains."""
    return Told(told.embeds, told.embeds)


def _shrunk(share: float) -> Callable[[StableDiffusion, Told], Told]:
    def shrink(model: StableDiffusion, told: Told) -> Told:
        empty = model.embed_empty()[0]
        return Told(empty + share * (told.embeds - empty), told.negative)

    return shrink


def _noisy(_: StableDiffusion, told: Told) -> Told:
    noise = torch.randn(told.embeds.shape, generator=torch.Generator().manual_seed(0))
    return Told(told.embeds + 0.3 * told.embeds.std() * noise, told.negative)


EMBEDDINGS: dict[str, Callable[[StableDiffusion, Told], Told]] = {
    "negative prompt: the caption": _negative_is_the_caption,
    "embedding, .8 of the way": _shrunk(0.8),
    "embedding, .6 of the way": _shrunk(0.6),
    "embedding with noise": _noisy,
}


def _loss(
    model: StableDiffusion, target: Target, embeds: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(denoising loss of the training pictures, magnitude over the noises), [B] each."""
    batch = len(embeds)
    t = torch.randint(0, 1000, (batch,), generator=rng)
    noise = torch.randn(target.latents.shape, generator=rng)
    abar = model.alphas_cumprod[t][:, None, None, None]
    noisy = abar.sqrt() * target.latents + (1 - abar).sqrt() * noise
    predicted = model.predict(noisy, t, (embeds,))
    denoising = F.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3))
    count = len(target.noises)
    latents = target.noises.repeat(batch, 1, 1, 1)
    eps_uncond = unconditional(model, target.noises, target.timestep).repeat(batch, 1, 1, 1)
    each = magnitude_of(
        model, (embeds.repeat_interleave(count, 0),), latents, target.timestep, eps_uncond
    )
    return denoising, each.reshape(batch, count).mean(1)


def _objective(denoising: Tensor, magnitude: Tensor, threshold: float) -> Tensor:
    """Keep drawing the picture, with a magnitude safely under the threshold."""
    return (_PICTURE * denoising + (magnitude / threshold - 0.8).clamp(min=0)).sum()


def optimised_embedding(
    model: StableDiffusion, told: Told, target: Target, steps: int, rate: float = 0.02
) -> Told:
    """White box: Adam on the embedding, for the picture and against the magnitude."""
    rng = torch.Generator().manual_seed(0)
    embeds = told.embeds.clone().requires_grad_()
    optimiser = torch.optim.Adam([embeds], rate)
    for _ in range(steps):
        optimiser.zero_grad()
        _objective(*_loss(model, target, embeds, rng), target.threshold).backward()
        optimiser.step()
    return Told(embeds.detach(), told.negative)


def pez(model: StableDiffusion, told: Told, target: Target, steps: int, rate: float = 0.05) -> Told:
    """White box, but as text: the same objective over tokens (PEZ, Wen et al., NeurIPS 2023).

    Gradients are taken where the nearest tokens are, and move vectors that are projected again.
    """
    rng = torch.Generator().manual_seed(0)
    encoder = model.text_encoder
    table = encoder.get_input_embeddings().weight.detach()
    ids = model.tokenizer(
        list(told.prompts),
        padding="max_length",
        max_length=model.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    special = torch.tensor([model.tokenizer.bos_token_id, model.tokenizer.eos_token_id])
    free = ~torch.isin(ids, special)
    allowed = table.clone()
    allowed[special] = torch.inf  # never nearest
    soft = table[ids][free].clone().requires_grad_()
    optimiser = torch.optim.AdamW([soft], rate, weight_decay=0.0)
    best, chosen = torch.full((len(ids),), torch.inf), ids.clone()
    for _ in range(steps):
        hard = ids.clone()
        hard[free] = torch.cdist(soft.detach(), allowed).nan_to_num(torch.inf).argmin(1)
        vectors = table[hard].requires_grad_()
        with _token_vectors(model, vectors):
            embeds = encoder(hard).last_hidden_state
        denoising, magnitude = _loss(model, target, embeds, rng)
        _objective(denoising, magnitude, target.threshold).backward()
        passes = magnitude.detach() < target.threshold
        better = passes & (denoising.detach() < best)
        best[better], chosen[better] = denoising.detach()[better], hard[better]
        assert vectors.grad is not None
        soft.grad = vectors.grad[free]
        optimiser.step()
    with torch.no_grad():
        embeds = encoder(chosen).last_hidden_state
    texts = model.tokenizer.batch_decode(chosen, skip_special_tokens=True)
    return Told(embeds, told.negative, tuple(texts))


@contextmanager
def _token_vectors(model: StableDiffusion, vectors: Tensor) -> Iterator[None]:
    """The text encoder reads these instead of its table's rows."""
    table = model.text_encoder.get_input_embeddings()
    hook = table.register_forward_hook(lambda *_: vectors)
    try:
        yield
    finally:
        hook.remove()


def _vocabulary() -> list[str]:
    return sorted({word.strip(",") for caption in _others() for word in _words(caption)})


def _others() -> list[str]:
    return [row.prompt for row in embedded.read_prompts("seen")]
