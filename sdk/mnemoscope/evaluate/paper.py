"""Wen et al.'s own protocol: fresh noise for every prompt. Needs the `torch` extra.

DDIM, 50 steps, guidance 7.5, `generations` Gaussian noises for prompt i of a list from the seed
i + gen_seed, magnitudes at every step. The files are what their `detect_mem.py` writes and their
notebook `det_mem_viz.ipynb` reads. The seeds are theirs, the noises are not: those depend on the
device and the dtype.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import BackendUnavailable, NumericsError
from mnemoscope_runtime.wording import pip_install

from ..outputs import writing_text
from .scoring import Scored

if TYPE_CHECKING:
    from mnemoscope_export import StableDiffusion

__all__ = [
    "GUIDANCE",
    "INFERENCE_STEPS",
    "Track",
    "follow",
    "load_model",
    "scored_by",
    "written",
]

INFERENCE_STEPS, GUIDANCE = 50, 7.5
Norms = NDArray[np.float32]


@dataclass(frozen=True)
class Track:
    """One prompt, followed while it is drawn.

    Attributes:
        prompt: The prompt.
        magnitudes: || eps_cond - eps_uncond ||_2 # [generation, step]
        uncond: || eps_uncond ||_2 # [generation, step]
        seconds: For all generations together.
    """

    prompt: str
    magnitudes: Norms
    uncond: Norms
    seconds: float


def load_model(name: str, device: str, threads: int | None = None) -> StableDiffusion:
    """A model in float32 on a device, and CPU threads for torch in this process.

    Raises:
        BackendUnavailable: PyTorch is not installed or has no such device.
        ExportError: there is no such model.
    """
    try:
        import torch

        from mnemoscope_export import StableDiffusion

        torch.zeros(1, device=device)
    except ImportError as error:
        raise BackendUnavailable(
            f"The paper's protocol needs PyTorch and diffusers: {error}. "
            f"Install them with {pip_install('torch')}."
        ) from None
    except (AssertionError, RuntimeError) as error:  # torch raises either for lack of a driver
        reason = str(error).partition("\n")[0]
        raise BackendUnavailable(
            f"PyTorch cannot use the device {device!r}: {reason} Choose another --device."
        ) from None
    if threads is not None:
        torch.set_num_threads(threads)
    return StableDiffusion.load(name, device=device)


def follow(
    model: StableDiffusion,
    prompts: Sequence[str],
    *,
    steps: int = INFERENCE_STEPS,
    generations: int = 4,
    gen_seed: int = 0,
) -> Iterator[Track]:
    """Draw every prompt and measure at every step.

    Args:
        model: In any dtype, on any device.
        prompts: One list; their positions in it are part of the seeds.
        steps: Stop after so many of the 50.
        generations: Noises for each prompt.
        gen_seed: Seed of the first prompt.

    Raises:
        NumericsError: a magnitude is NaN or infinite.
    """
    import torch

    from mnemoscope_export import denoise, magnitude

    for index, prompt in enumerate(prompts):
        start = time.perf_counter()
        seeded = torch.Generator().manual_seed(index + gen_seed)
        noises = torch.randn(generations, *model.latent_shape, generator=seeded)
        embeds = tuple(each.expand(generations, *each.shape[1:]) for each in model.embed([prompt]))
        walk = denoise(model, embeds, noises, inference_steps=INFERENCE_STEPS, guidance=GUIDANCE)
        found = np.array(
            [
                (
                    magnitude(step.cond, step.uncond).cpu().numpy(),
                    magnitude(step.uncond, torch.zeros_like(step.uncond)).cpu().numpy(),
                )
                for step in itertools.islice(walk, steps)
            ]
        )  # [step, 2, generation]
        if not np.isfinite(found).all():
            raise NumericsError(
                f"A magnitude of prompt {index} is NaN or infinite: that is no verdict. Use a "
                "model whose weights are finite, in float32."
            )
        magnitudes, uncond = found.transpose(1, 2, 0)
        yield Track(prompt, magnitudes, uncond, time.perf_counter() - start)


def written(tracks: Iterable[Track], path: Path) -> Iterator[Track]:
    """Write each track as it comes: one JSON line per prompt, with lists [generation][step].

    The file appears with the last; until then, and after an error, there is `unfinished`.

    Raises:
        InputError: the file cannot be written.
    """
    with writing_text(path, keep=True) as file:
        for track in tracks:
            line = {
                "uncond_noise_norm": track.uncond.tolist(),
                "text_noise_norm": track.magnitudes.tolist(),
                "prompt": track.prompt,
            }
            file.write(json.dumps(line) + "\n")
            yield track


def scored_by(
    tracks: Sequence[Track], steps: Sequence[int], generations: Sequence[int]
) -> list[Scored]:
    """Mean magnitudes of the first steps and generations, for every number of both.

    Seconds are those of all steps and generations, less in proportion to the passes.
    """
    magnitudes = np.stack([track.magnitudes for track in tracks]).astype(np.float64)
    seconds = float(np.median([track.seconds for track in tracks])) / magnitudes[0].size
    return [
        Scored(
            detector="magnitude",
            steps=k,
            noises=m,
            passes=2 * k * m,
            seconds=seconds * k * m,
            cross_fitted=False,
            scores=magnitudes[:, :m, :k].mean((1, 2)),
        )
        for k in sorted(set(steps))
        for m in sorted(set(generations))
    ]
