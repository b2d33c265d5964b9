"""A bundle on a backend: what it holds, what it tells its network, and what that predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .agreement import noise_norm, smallest
from .backends import Backend, BackendOptions, Engine, checked_backend, open_backend
from .backends.base import run
from .bundle import Bundle
from .closing import Closing
from .embeddings import Embeddings, Prompts, checked
from .errors import BackendError, InputError
from .manifest import EMPTY
from .predictions import Array, Embeds, Part, Prediction
from .readers import tokenizer_of
from .schedulers import advance, as_input, guide, kept_length, level, timesteps
from .units import Unit, x0_per_unit

__all__ = ["PAIRS", "Predictor"]

# samples per engine call: a CPU gains nothing from more, and they cost memory
PAIRS = 32


class Predictor(Closing):
    """A bundle on a backend, which predicts. A `Screener` is one that measures, too.

    Attributes:
        bundle: The bundle.
        backend: What runs its graphs.
        tokenizer: What reads its prompts.
        noises: How many noises the bundle's bank holds.
        latent_elements: C * H * W of a latent.
        steps: How many steps a whole image takes.
        timestep: What the network is told at the first of them: `timesteps[0]`, unless the bundle
            was exported with another.
        tokens: How many the network is told of a prompt.
        taps: Names of the network's tapped layers, K of them: none unless exported with `taps`.
        unit: What magnitudes are measured in: "eps", of flows "x0".
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        manifest = bundle.manifest
        self.bundle = bundle
        self.backend = checked_backend(backend)
        self.tokenizer = tokenizer_of(bundle)
        self._bank = bundle.noise_bank()
        self.noises = len(self._bank)
        self.latent_elements = math.prod(self._bank.shape[1:])
        self.steps = manifest.scheduler.inference_steps
        self.timestep = manifest.timestep
        self.tokens = manifest.tokens or self.tokenizer.length
        self.taps = manifest.taps
        self.unit: Unit = manifest.unit
        self._empty: Embeds | None = None
        self._load: Callable[[Bundle, str], Engine] = self.backend.load  # until it is closed

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: str | Backend = "onnxruntime",
        threads: int | None = None,
        device: int | None = None,
        engines: str | Path | None = None,
        batch: int | None = None,
        contexts: int | None = None,
        graphs: Sequence[str] = ("screen",),
        trust: str | Path | None = None,
    ) -> Self:
        """Verify a bundle and get engines ready on a backend.

        Args:
            path: The bundle's directory.
            backend: A name, or a backend of your own.
            threads: What the backend is told, as in `BackendOptions`.
            device: Likewise.
            engines: Likewise.
            batch: Likewise.
            contexts: Likewise.
            graphs: What to `prepare`.
            trust: File of a public key, as of `Bundle.open`.

        Raises:
            InputError: no such backend, or an option that it does not take.
            BundleError: the bundle cannot be used.
            SignatureError: it is not signed by the key that is trusted.
            BackendError: the backend cannot be used, or not with this bundle.
        """
        options = BackendOptions(threads, device, engines, batch, contexts)
        if isinstance(backend, str):
            runs = open_backend(backend, **asdict(options))
        else:
            runs = checked_backend(backend)
            if options.given:
                raise InputError(
                    f"{', '.join(options.given)} cannot be told to {runs.name}, which is open "
                    "already. Give it to what opened that backend, or name one."
                )
        opened = cls(Bundle.open(path, trust=trust), runs)
        opened.prepare(*graphs)
        return opened

    def prepare(self, *graphs: str) -> None:
        """Load engines that the first use would load, so that what is missing is missed now.

        Args:
            graphs: "screen", "taps" where the bundle has it, "step" or "text_encoder".

        Raises:
            BackendError: the backend cannot be used, or not with this bundle.
        """
        for graph in graphs:
            self._load(self.bundle, graph)

    @property
    def smallest_magnitude(self) -> float:
        """Magnitudes below it are rounding in good part: errors count relative to it."""
        return smallest(noise_norm(self.latent_elements))

    @property
    def taps_graph(self) -> str:
        """Which graph gives the taps of the first step: the one that stops there, if any does."""
        return "taps" if "taps" in self.bundle.manifest.graphs else "screen"

    @property
    def timesteps(self) -> list[float]:
        """The timesteps of a whole image, the noisiest first; whole numbers but for `FlowEuler`."""
        found: list[float] = timesteps(self.bundle.manifest.scheduler).tolist()
        return found

    def x0_per_unit(self, steps: int = 1) -> NDArray[np.float64]:
        """What magnitudes of these steps are multiplied by to be distances of predicted pictures.

        Returns:
            # [steps], the first that of `timestep` where it is the only one
        """
        scheduler = self.bundle.manifest.scheduler
        told = [self.timestep] if steps == 1 else self.timesteps[:steps]
        return np.array([x0_per_unit(self.unit, level(scheduler, t)) for t in told])

    def require_taps(self, *names: str) -> tuple[str, ...]:
        """The bundle's taps.

        Raises:
            InputError: there are none, or not those of these names.
        """
        missing = [name for name in names if name not in self.taps]
        if self.taps and not missing:
            return self.taps
        lacks = "no taps" if not self.taps else f"no tap {missing[0]!r}"
        others = f"Choose one of: {', '.join(self.taps)}; or export" if self.taps else "Export"
        raise InputError(
            f"{self.bundle.path} has {lacks}. {others} the PyTorch model again with "
            f"`mnemoscope export --taps {','.join(missing) or 'auto'}`."
        )

    def embed(self, prompts: Prompts | NDArray[np.int64]) -> Embeds:
        """What the network is told of prompts, in the order of the manifest's `embeddings`.

        Returns:
            # ([B, L, D],), for Stable Diffusion XL ([B, L, D], [B, P])
        """
        if isinstance(prompts, Embeddings):
            return prompts.embeds
        names = self.bundle.manifest.embeddings
        engine, ids = self._load(self.bundle, "text_encoder"), self.tokenizer(prompts)
        shapes: dict[str, tuple[int | None, ...]] = {
            "prompt_embeds": (self.tokens, None),
            "pooled_embeds": (None,),
            "prompt_mask": (self.tokens,),
        }
        chunks = []
        for i in range(0, len(ids), PAIRS):
            part = ids[i : i + PAIRS]
            wanted = {str(name): (len(part), *shapes[name]) for name in names}
            chunks.append(run(engine, {"input_ids": part}, wanted))
        if not chunks:
            return tuple(np.empty((0, self.tokens, 0), np.float32) for _ in names)
        return tuple(np.concatenate(parts) for parts in zip(*chunks, strict=True))

    def embeddings(
        self,
        prompt_embeds: object,
        pooled_embeds: object = None,
        *,
        prompt_mask: object = None,
        empty_embeds: object = None,
        empty_pooled_embeds: object = None,
        empty_mask: object = None,
    ) -> Embeddings:
        """Take over what a pipeline embedded: weighted, in chunks, mixed, of any length.

        Args:
            prompt_embeds: What diffusers calls so. # [B, L, D]
            pooled_embeds: For Stable Diffusion XL. # [B, P]
            prompt_mask: For PixArt-Sigma and Sana, their prompt_attention_mask; Qwen-Image's
                prompt_embeds_mask. # [B, L]
            empty_embeds: The baseline, diffusers' negative_prompt_embeds; by default the bundle's
                own, with chunks of the empty prompt behind it where there are more. One row, or the
                same one for each prompt. # [1, L, D] or [B, L, D]
            empty_pooled_embeds: Its pooled embedding. # [1, P] or [B, P]
            empty_mask: Its mask. # [1, L] or [B, L]

        Raises:
            InputError: something is missing, of another shape or not finite, or there are more or
                fewer tokens than the bundle takes.
        """
        given = {
            "prompt_embeds": prompt_embeds,
            "pooled_embeds": pooled_embeds,
            "prompt_mask": prompt_mask,
        }
        baseline = {
            "prompt_embeds": empty_embeds,
            "pooled_embeds": empty_pooled_embeds,
            "prompt_mask": empty_mask,
        }
        manifest, nothing = self.bundle.manifest, self._embed_empty()
        filling = nothing if manifest.empty is None else self.embed([""])
        return checked(manifest, nothing, filling, given, baseline)

    def _embed_empty(self) -> Embeds:
        if self._empty is None:
            self._empty = self.bundle.empty_embeds()
        if self._empty is None:
            empty = self.embed([""])
            zero = self.bundle.manifest.zero_empty
            self._empty = tuple(np.zeros_like(e) for e in empty) if zero else empty
        return self._empty

    def predict(
        self, embeds: Embeds, latents: Array, timestep: float, empty: Embeds | None = None
    ) -> Prediction:
        """Both predictions for every prompt on latents of its own.

        Args:
            embeds: What the network is told of the prompts. # [b, ...] each
            latents: # [b, m, C, H, W]
            timestep: One that the model was trained on; a whole number but for `FlowEuler`.
            empty: What the unconditional branch is told; by default the empty prompt.
                # [1, ...] each

        Nothing is checked for NaN here: whoever makes a number of it has to.

        Raises:
            BackendError: the engine failed.
        """
        batched = latents.shape[:2]
        flat = latents.reshape(-1, *latents.shape[2:])
        manifest = self.bundle.manifest
        told: dict[str, NDArray[np.generic]] = {"latents": flat}
        nothing = self._embed_empty() if empty is None else empty
        for name, each, none in zip(manifest.embeddings, embeds, nothing, strict=True):
            told[name] = np.repeat(each, batched[1], axis=0)  # [b * m, ...]
            told[EMPTY[name]] = none
        told["timestep"] = as_input(manifest.scheduler, timestep)
        both = f"{self.unit}_cond", f"{self.unit}_uncond"
        wanted = {"magnitude": flat.shape[:1], **dict.fromkeys(both, flat.shape)}
        if self.taps:
            wanted["taps"] = (len(flat), len(self.taps))
        magnitude, cond, uncond, *others = run(self._load(self.bundle, "step"), told, wanted)
        taps = others[0] if others else np.empty((len(flat), 0), np.float32)
        return Prediction(
            timestep,
            latents,
            magnitude=magnitude.reshape(batched),
            cond=cond.reshape(latents.shape),
            uncond=uncond.reshape(latents.shape),
            taps=taps.reshape(*batched, len(self.taps)),
        )

    def walk(self, part: Part, timesteps: Sequence[float]) -> Iterator[Prediction]:
        """Sample with guidance and look at every step, from pure noise on.

        Args:
            part: One of `parts`.
            timesteps: The first of `self.timesteps`, as many as are wanted.
        """
        latents = part.latents
        for timestep in timesteps:
            prediction = self.predict(part.embeds, latents, timestep, part.empty)
            yield prediction
            latents = self.advance(prediction)

    def advance(self, prediction: Prediction) -> Array:
        """Where the sampler goes from there: guidance, then one step. # [b, m, C, H, W]"""
        manifest = self.bundle.manifest
        guided = guide(prediction.uncond, prediction.cond, manifest.guidance)
        if (side := manifest.keeps_length) is not None:
            guided = kept_length(guided, prediction.cond, prediction.latents, side)
        return advance(prediction.latents, guided, prediction.timestep, manifest.scheduler)

    def close(self) -> None:
        """Let go of the engines; further calls raise. In a fork nothing is taken down."""
        self._load = _closed
        self.backend.close()
        self.bundle.release()


def _closed(bundle: Bundle, graph: str) -> Engine:  # noqa: ARG001 - as `Backend.load`
    raise BackendError("This screener is closed. Open the bundle again.")
