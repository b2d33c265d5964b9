"""The magnitude of the text-conditional noise prediction, on engines (Wen et al. 2024).

    m_t = || eps(x_t, t, e_prompt) - eps(x_t, t, e_empty) ||_2

and of flows the same of the predicted picture (`units`). `Screener.first_step` needs one pass of
the network per prompt and noise: the unconditional prediction of the noise bank is a constant of
the screening graph. `Screener.trajectory` follows the sampler and measures at every step. For other
statistics of the two predictions, `parts` cuts prompts and noises into pieces that fit an engine
call, `predict` looks at one timestep of a piece and `walk` follows the sampler.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .agreement import noise_norm, relative_error, smallest
from .backends import Backend, BackendOptions, Engine, checked_backend, open_backend
from .backends.base import run
from .bundle import Bundle
from .closing import Closing
from .embeddings import Embeddings, Prompts, checked
from .errors import BackendError, InputError, NumericsError
from .manifest import EMPTY
from .options import check_options
from .predictions import Array, Embeds, Part, Prediction
from .readers import tokenizer_of
from .schedulers import advance, as_input, guide, kept_length, level, timesteps
from .tokenizer import Tokens
from .units import Unit, x0_per_unit

__all__ = ["Embeds", "Part", "Prediction", "Screener", "checked_norms"]

# UNet samples per engine call: a CPU gains nothing from more, and they cost memory
PAIRS = 32
_POSITIONS = 8192  # latent positions per engine call, so that 64x64 latents go two at a time


class Screener(Closing):
    """A bundle on a backend. Safe to share between threads, and for the process that opened it."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = checked_backend(backend)
        self.tokenizer = tokenizer_of(bundle)
        self._bank = bundle.noise_bank()
        self._empty: Embeds | None = None
        self._closed = False

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
    ) -> Screener:
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
        screener = cls(Bundle.open(path, trust=trust), runs)
        screener.prepare(*graphs)
        return screener

    def prepare(self, *graphs: str) -> None:
        """Load engines that the first use would load, so that what is missing is missed now.

        Args:
            graphs: "screen", "taps" where the bundle has it, "step" or "text_encoder".

        Raises:
            BackendError: the backend cannot be used, or not with this bundle.
        """
        for graph in graphs:
            self._engine(graph)

    @property
    def noises(self) -> int:
        """How many noises the bundle's bank holds."""
        return len(self._bank)

    @property
    def latent_elements(self) -> int:
        """C * H * W of a latent."""
        return math.prod(self._bank.shape[1:])

    @property
    def smallest_magnitude(self) -> float:
        """Magnitudes below it are rounding in good part: errors count relative to it."""
        return smallest(noise_norm(self.latent_elements))

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the tapped layers of the UNet, K of them: none unless exported with `taps`."""
        return self.bundle.manifest.taps

    @property
    def taps_graph(self) -> str:
        """Which graph gives the taps of the first step: the one that stops there, if any does."""
        return "taps" if "taps" in self.bundle.manifest.graphs else "screen"

    @property
    def timestep(self) -> int:
        """What `first_step` tells the UNet: `timesteps[0]`, unless exported with another."""
        return self.bundle.manifest.timestep

    @property
    def steps(self) -> int:
        """How many steps a whole image takes."""
        return self.bundle.manifest.scheduler.inference_steps

    @property
    def timesteps(self) -> list[float]:
        """The timesteps of a whole image, the noisiest first; whole numbers but for `FlowEuler`."""
        found: list[float] = timesteps(self.bundle.manifest.scheduler).tolist()
        return found

    @property
    def tokens(self) -> int:
        """How many the network is told of a prompt."""
        return self.bundle.manifest.tokens or self.tokenizer.length

    @property
    def unit(self) -> Unit:
        """What magnitudes are measured in: "eps", of flows "x0"."""
        return self.bundle.manifest.unit

    def x0_per_unit(self, steps: int = 1) -> NDArray[np.float64]:
        """What magnitudes of these steps are multiplied by to be distances of predicted pictures.

        Returns:
            # [steps], the first that of `timestep` where it is the only one
        """
        scheduler = self.bundle.manifest.scheduler
        told = [self.timestep] if steps == 1 else self.timesteps[:steps]
        return np.array([x0_per_unit(self.unit, level(scheduler, t)) for t in told])

    def first_step(self, prompts: Prompts, *, noises: int | None = None) -> NDArray[np.float32]:
        """Magnitudes of pure noise at `timestep`, for the first `noises` noises of the bank.

        That is the first denoising step, unless the bundle was exported with another timestep.

        Args:
            prompts: Texts, what `tokenizer.encode` made of them, or `embeddings`.
            noises: All of the bank by default.

        Returns:
            # [B, noises], >= 0, in the bundle's `unit`

        Raises:
            InputError: a prompt or the number of noises cannot be used.
            NumericsError: a magnitude is NaN, infinite or negative.
        """
        if isinstance(prompts, Embeddings):
            return checked_norms(self._first_of(prompts, noises, "magnitude"))
        return checked_norms(self._first("screen", "magnitude", prompts, noises))

    def first_step_taps(
        self, prompts: Prompts, *, noises: int | None = None
    ) -> NDArray[np.float32]:
        """How far prompts move the features of every tapped layer, where `first_step` looks.

        The graph that stops at the last tap answers, where the bundle has one.

        Returns:
            # [B, noises, K], >= 0, in units of each layer

        Raises:
            InputError: the bundle has no taps; a prompt or the number of noises cannot be used.
            NumericsError: a norm is NaN, infinite or negative.
        """
        size = (len(self.require_taps()),)
        if isinstance(prompts, Embeddings):
            return checked_norms(self._first_of(prompts, noises, "taps", size), "A tap")
        return checked_norms(self._first(self.taps_graph, "taps", prompts, noises, size), "A tap")

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
            f"{self.bundle.path} has {lacks}. {others} the model again with "
            f"`mnemoscope export --taps {','.join(missing) or 'auto'}`."
        )

    def trajectory(
        self, prompts: Prompts, *, steps: int, noises: int | None = None
    ) -> NDArray[np.float32]:
        """Magnitudes at the first `steps` steps of sampling with guidance.

        Returns:
            # [B, noises, steps], >= 0, in the bundle's `unit`

        Raises:
            InputError: a prompt, the number of noises or of steps cannot be used.
            NumericsError: a magnitude is NaN, infinite or negative.
        """
        count, steps = self.counts(noises, steps)
        told = prompts if isinstance(prompts, Embeddings) else self._ids(prompts)
        magnitudes = np.empty((len(told), count, steps), np.float32)
        for part in self.parts(told, noises=noises):
            for k, prediction in enumerate(self.walk(part, self.timesteps[:steps])):
                magnitudes[*part.where, k] = prediction.magnitude
        return checked_norms(magnitudes)

    def parts(
        self, prompts: Prompts | NDArray[np.int64], *, noises: int | None = None
    ) -> Iterator[Part]:
        """Cut prompts on the first `noises` noises of the bank into pieces for `predict`.

        Raises:
            InputError: a prompt or the number of noises cannot be used.
        """
        count, _ = self.counts(noises)
        embeds = self.embed(prompts)
        empty = prompts.empty if isinstance(prompts, Embeddings) else None
        for rows, columns in self._parts(len(embeds[0]), count, samples=2):
            told = tuple(each[rows] for each in embeds)
            bank = self._bank[:count][columns]
            yield Part((rows, columns), told, np.stack([bank] * len(told[0])), empty)

    def predict(
        self, embeds: Embeds, latents: Array, timestep: float, empty: Embeds | None = None
    ) -> Prediction:
        """Both predictions for every prompt on latents of its own.

        Args:
            embeds: What the UNet is told of the prompts. # [b, ...] each
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
        magnitude, cond, uncond, *others = run(self._engine("step"), told, wanted)
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

    def probe(self) -> float:
        """Measure the manifest's probes: does this backend agree with PyTorch on this machine?

        Returns:
            The largest error of a magnitude of `first_step`, relative as in `agreement`.

        Raises:
            BackendError: the engine failed.
        """
        probes = self.bundle.manifest.probes
        expected = np.array([probe.magnitudes for probe in probes])
        found = self.first_step([probe.prompt for probe in probes])
        return float(relative_error(found, expected, self.smallest_magnitude).max())

    def _first(
        self,
        graph: str,
        output: str,
        prompts: Prompts,
        noises: int | None,
        size: tuple[int, ...] = (),
    ) -> Array:
        """An output of a graph of the first step, piece by piece. # [B, noises, *size]"""
        count, _ = self.counts(noises)
        engine, ids = self._engine(graph), self._ids(prompts)
        manifest = self.bundle.manifest
        told: dict[str, NDArray[np.generic]] = {"input_ids": ids}
        if manifest.encodes_apart:
            told = dict(zip(manifest.embeddings, self.embed(ids), strict=True))
        values = np.empty((len(ids), count, *size), np.float32)
        for rows, columns in self._parts(len(ids), count, samples=1):
            chosen = np.arange(count, dtype=np.int64)[columns]
            part = {name: each[rows] for name, each in told.items()}
            wanted = {output: (len(ids[rows]), len(chosen), *size)}
            (found,) = run(engine, {**part, "noise_index": chosen}, wanted)
            values[rows, columns] = found
        return values

    def _first_of(
        self,
        prompts: Embeddings,
        noises: int | None,
        name: Literal["magnitude", "taps"],
        size: tuple[int, ...] = (),
    ) -> Array:
        """The same of embeddings, by `step`, which takes any. # [B, noises, *size]"""
        count, _ = self.counts(noises)
        values = np.empty((len(prompts), count, *size), np.float32)
        for part in self.parts(prompts, noises=noises):
            found = self.predict(part.embeds, part.latents, self.timestep, part.empty)
            values[part.where] = getattr(found, name)
        return values

    def _parts(self, prompts: int, noises: int, *, samples: int) -> Iterator[tuple[slice, slice]]:
        """Cut prompts x noises into pieces of at most PAIRS UNet samples, `samples` a pair."""
        height, width = self._bank.shape[2:]
        most = PAIRS if self.backend.cuts_calls else min(PAIRS, _POSITIONS // (height * width))
        pairs = max(1, most // samples)
        columns = min(noises, pairs)
        rows = max(1, pairs // columns)
        for top in range(0, prompts, rows):
            for left in range(0, noises, columns):
                yield slice(top, top + rows), slice(left, left + columns)

    def embed(self, prompts: Prompts | NDArray[np.int64]) -> Embeds:
        """What the UNet is told of prompts, in the order of the manifest's `embeddings`.

        Returns:
            # ([B, L, D],), for Stable Diffusion XL ([B, L, D], [B, P])
        """
        if isinstance(prompts, Embeddings):
            return prompts.embeds
        names = self.bundle.manifest.embeddings
        engine, ids = self._engine("text_encoder"), self._ids(prompts)
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

    def _ids(self, prompts: Prompts | NDArray[np.int64]) -> NDArray[np.int64]:
        if isinstance(prompts, np.ndarray):
            return self.tokenizer.checked(prompts)
        assert not isinstance(prompts, Embeddings)
        tokenizer = self.tokenizer
        return tokenizer.checked(prompts.ids) if isinstance(prompts, Tokens) else tokenizer(prompts)

    def _engine(self, graph: str) -> Engine:
        if self._closed:
            raise BackendError("This screener is closed. Open the bundle again.")
        return self.backend.load(self.bundle, graph)

    def counts(self, noises: int | None = None, steps: int = 1) -> tuple[int, int]:
        """How many noises (all by default) and steps that is.

        Raises:
            InputError: the bundle does not have as many.
            BackendError: this process is a fork of the one that opened the bundle.
        """
        self.backend.process.check()
        return self._count(noises, self.noises, "noises"), self._count(steps, self.steps, "steps")

    def _count(self, wanted: int | None, most: int, what: str) -> int:
        count = most if wanted is None else wanted
        if type(count) is not int:  # one of numpy's, or none at all
            check_options("a whole number", **{what: count})
        if not 1 <= count <= most:
            raise InputError(
                f"This bundle has {most} {what}, {count} cannot be used. "
                f"Give 1 to {most}, or export the model with more."
            )
        return count

    def close(self) -> None:
        """Let go of the engines; further calls raise. In a fork nothing is taken down."""
        self._closed = True
        self.backend.close()
        self.bundle.release()


def checked_norms(values: Array, what: str = "The magnitude") -> Array:
    """Norms, if they can be some.

    Args:
        values: # [prompt, ...]
        what: What errors call them.

    Raises:
        NumericsError: one is NaN, infinite or negative; says of which prompt.
    """
    possible = (values >= 0) & (values < math.inf)
    if not possible.all():
        bad = int(np.argwhere(~possible)[0, 0])
        why = "negative" if np.isfinite(values[bad]).all() else "NaN or infinite"
        raise NumericsError(
            f"{what} of prompt {bad} is {why}: that is no verdict. "
            "Export the model in float32, or run the bundle on another backend."
        )
    return values
