"""The magnitude of the text-conditional noise prediction, on engines (Wen et al. 2024).

    m_t = || eps(x_t, t, e_prompt) - eps(x_t, t, e_empty) ||_2

`Screener.first_step` needs one conditional UNet pass per prompt and noise: the unconditional
prediction of the noise bank is a constant of the screening graph. `Screener.trajectory` follows
the sampler and measures at every step. For other statistics of the two predictions, `tiles` cuts
prompts and noises into pieces that fit an engine call, `predict` looks at one timestep of a piece
and `walk` follows the sampler.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .agreement import noise_norm, relative_error, smallest
from .backends import Backend, BackendOptions, Engine, open_backend
from .bundle import Bundle
from .embeddings import Embeddings, Prompts, checked
from .errors import BackendError, InputError, NumericsError
from .manifest import EMPTY
from .options import check_options
from .predictions import Array, Embeds, Prediction, Tile
from .processes import OwnProcess
from .schedulers import ddim_step, guide, timesteps
from .tokenizer import ClipTokenizer, Tokens

__all__ = ["Embeds", "Prediction", "Screener", "Tile"]

# UNet samples per engine call: a CPU gains nothing from more, and they cost memory
PAIRS = 32
_POSITIONS = 8192  # latent positions per engine call, so that 64x64 latents go two at a time


class Screener:
    """A bundle on a backend. Safe to share between threads, and for the process that opened it."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        self.tokenizer = ClipTokenizer.of(bundle)
        self._bank = bundle.noise_bank()
        self._whole = getattr(backend, "cuts_calls", False)
        self._engines: dict[str, Engine] = {}
        self._empty: Embeds | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._process = OwnProcess(self)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: str | Backend = "onnxruntime",
        threads: int | None = None,
        device: int | None = None,
        engines: str | Path | None = None,
        graphs: Sequence[str] = ("screen",),
    ) -> Screener:
        """Verify a bundle and get engines ready on a backend.

        Args:
            path: The bundle's directory.
            backend: A name, or a backend of your own.
            threads: CPU threads an engine may use.
            device: Which GPU, from 0.
            engines: Folder of engines that `mnemoscope build` made; BUNDLE/engines by default.
            graphs: What to `prepare`.

        Raises:
            InputError: no such backend, or an option that it does not take.
            BundleError: the bundle cannot be used.
            BackendError: the backend cannot be used, or not with this bundle.
        """
        if not hasattr(backend, "load"):
            check_options("text", backend=backend)
        options = BackendOptions(threads, device, engines)
        runs: Backend
        if isinstance(backend, str):
            runs = open_backend(backend, **asdict(options))
        else:
            runs = backend
            if options.given:
                raise InputError(
                    f"{', '.join(options.given)} cannot be told to {backend.name}, which is open "
                    "already. Give it to what opened that backend, or name one."
                )
        screener = cls(Bundle.open(path), runs)
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
    def timesteps(self) -> list[int]:
        """The timesteps of a whole image, the noisiest first."""
        return [int(t) for t in timesteps(self.bundle.manifest.scheduler)]

    def first_step(self, prompts: Prompts, *, noises: int | None = None) -> NDArray[np.float32]:
        """Magnitudes of pure noise at `timestep`, for the first `noises` noises of the bank.

        That is the first denoising step, unless the bundle was exported with another timestep.

        Args:
            prompts: Texts, what `tokenizer.encode` made of them, or `embeddings`.
            noises: All of the bank by default.

        Returns:
            # [B, noises], >= 0, in eps units

        Raises:
            InputError: a prompt or the number of noises cannot be used.
            NumericsError: a magnitude is NaN or infinite.
        """
        if isinstance(prompts, Embeddings):
            return _finite(self._first_of(prompts, noises, "magnitude"))
        return _finite(self._first("screen", "magnitude", prompts, noises))

    def first_step_taps(
        self, prompts: Prompts, *, noises: int | None = None
    ) -> NDArray[np.float32]:
        """How far prompts move the features of every tapped layer, where `first_step` looks.

        The graph that stops at the last tap answers, where the bundle has one.

        Returns:
            # [B, noises, K], >= 0, in units of each layer

        Raises:
            InputError: the bundle has no taps; a prompt or the number of noises cannot be used.
            NumericsError: a norm is NaN or infinite.
        """
        size = (len(self.require_taps()),)
        if isinstance(prompts, Embeddings):
            return _finite(self._first_of(prompts, noises, "taps", size), "A tap")
        return _finite(self._first(self.taps_graph, "taps", prompts, noises, size), "A tap")

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
            # [B, noises, steps], >= 0, in eps units

        Raises:
            InputError: a prompt, the number of noises or of steps cannot be used.
            NumericsError: a magnitude is NaN or infinite.
        """
        count, steps = self.counts(noises, steps)
        told = prompts if isinstance(prompts, Embeddings) else self._ids(prompts)
        magnitudes = np.empty((len(told), count, steps), np.float32)
        for tile in self.tiles(told, noises=noises):
            for k, prediction in enumerate(self.walk(tile, self.timesteps[:steps])):
                magnitudes[*tile.where, k] = prediction.magnitude
        return _finite(magnitudes)

    def tiles(
        self, prompts: Prompts | NDArray[np.int64], *, noises: int | None = None
    ) -> Iterator[Tile]:
        """Cut prompts on the first `noises` noises of the bank into pieces for `predict`.

        Raises:
            InputError: a prompt or the number of noises cannot be used.
        """
        count, _ = self.counts(noises)
        embeds = self.embed(prompts)
        empty = prompts.empty if isinstance(prompts, Embeddings) else None
        for rows, columns in self._tiles(len(embeds[0]), count, samples=2):
            part = tuple(each[rows] for each in embeds)
            bank = self._bank[:count][columns]
            yield Tile((rows, columns), part, np.stack([bank] * len(part[0])), empty)

    def predict(
        self, embeds: Embeds, latents: Array, timestep: int, empty: Embeds | None = None
    ) -> Prediction:
        """Both predictions for every prompt on latents of its own.

        Args:
            embeds: What the UNet is told of the prompts. # [b, ...] each
            latents: # [b, m, C, H, W]
            timestep: 0..999
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
        told["timestep"] = np.asarray(timestep, np.int64)
        wanted = ("magnitude", "eps_cond", "eps_uncond", *(["taps"] if self.taps else []))
        magnitude, eps_cond, eps_uncond, *others = self._engine("step")(told, wanted)
        taps = others[0] if others else np.empty((len(flat), 0), np.float32)
        return Prediction(
            timestep,
            latents,
            magnitude=_shaped(magnitude, flat.shape[:1]).reshape(batched),
            eps_cond=_shaped(eps_cond, flat.shape).reshape(latents.shape),
            eps_uncond=_shaped(eps_uncond, flat.shape).reshape(latents.shape),
            taps=_shaped(taps, (len(flat), len(self.taps))).reshape(*batched, len(self.taps)),
        )

    def walk(self, tile: Tile, timesteps: Sequence[int]) -> Iterator[Prediction]:
        """Sample with guidance (DDIM) and look at every step, from pure noise on.

        Args:
            tile: One of `tiles`.
            timesteps: The first of `self.timesteps`, as many as are wanted.
        """
        latents = tile.latents
        for timestep in timesteps:
            prediction = self.predict(tile.embeds, latents, timestep, tile.empty)
            yield prediction
            latents = self.advance(prediction)

    def advance(self, prediction: Prediction) -> Array:
        """Where the sampler goes from there: guidance, then one DDIM step. # [b, m, C, H, W]"""
        manifest = self.bundle.manifest
        eps = guide(prediction.eps_uncond, prediction.eps_cond, manifest.guidance)
        return ddim_step(prediction.latents, eps, prediction.timestep, manifest.scheduler)

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
        """An output of a graph of the first step, tile by tile. # [B, noises, *size]"""
        count, _ = self.counts(noises)
        engine, ids = self._engine(graph), self._ids(prompts)
        values = np.empty((len(ids), count, *size), np.float32)
        for rows, columns in self._tiles(len(ids), count, samples=1):
            part, chosen = ids[rows], np.arange(count, dtype=np.int64)[columns]
            found = engine({"input_ids": part, "noise_index": chosen}, (output,))[0]
            values[rows, columns] = _shaped(found, (len(part), len(chosen), *size))
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
        for tile in self.tiles(prompts, noises=noises):
            found = self.predict(tile.embeds, tile.latents, self.timestep, tile.empty)
            values[tile.where] = getattr(found, name)
        return values

    def _tiles(self, prompts: int, noises: int, *, samples: int) -> Iterator[tuple[slice, slice]]:
        """Cut prompts x noises into pieces of at most PAIRS UNet samples, `samples` a pair."""
        height, width = self._bank.shape[2:]
        most = PAIRS if self._whole else min(PAIRS, _POSITIONS // (height * width))
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
        chunks = [
            engine({"input_ids": ids[i : i + PAIRS]}, names) for i in range(0, len(ids), PAIRS)
        ]
        if not chunks:
            return tuple(np.empty((0, self.tokenizer.length, 0), np.float32) for _ in names)
        return tuple(np.concatenate(parts) for parts in zip(*chunks, strict=True))

    def embeddings(
        self,
        prompt_embeds: object,
        pooled_embeds: object = None,
        *,
        empty_embeds: object = None,
        empty_pooled_embeds: object = None,
    ) -> Embeddings:
        """Take over what a pipeline embedded: weighted, in chunks, mixed, of any length.

        Args:
            prompt_embeds: What diffusers calls so. # [B, L, D]
            pooled_embeds: For Stable Diffusion XL. # [B, P]
            empty_embeds: The baseline, diffusers' negative_prompt_embeds; by default the bundle's
                own, with chunks of the empty prompt behind it where there are more. One row, or the
                same one for each prompt. # [1, L, D] or [B, L, D]
            empty_pooled_embeds: Its pooled embedding. # [1, P] or [B, P]

        Raises:
            InputError: something is missing, of another shape or not finite, or there are more or
                fewer tokens than the bundle takes.
        """
        given = {"prompt_embeds": prompt_embeds, "pooled_embeds": pooled_embeds}
        baseline = {"prompt_embeds": empty_embeds, "pooled_embeds": empty_pooled_embeds}
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
            return prompts
        assert not isinstance(prompts, Embeddings)
        return prompts.ids if isinstance(prompts, Tokens) else self.tokenizer(prompts)

    def _engine(self, graph: str) -> Engine:
        self._process.check()
        if self._closed:
            raise BackendError("This screener is closed. Open the bundle again.")
        with self._lock:
            if graph not in self._engines:
                if graph == "step" and self._whole and self.bundle.manifest.any_length:
                    raise BackendError(
                        f"{self.backend.name} is built for one number of tokens, and this bundle "
                        "takes any. Export the model without --any-length for GPUs."
                    )
                self._engines[graph] = self.backend.load(self.bundle, graph)
                self.bundle.release()  # the engine has its own copy of the weights
            return self._engines[graph]

    def counts(self, noises: int | None = None, steps: int = 1) -> tuple[int, int]:
        """How many noises (all by default) and steps that is.

        Raises:
            InputError: the bundle does not have as many.
            BackendError: this process is a fork of the one that opened the bundle.
        """
        self._process.check()
        return self._count(noises, self.noises, "noises"), self._count(steps, self.steps, "steps")

    def _count(self, wanted: int | None, most: int, what: str) -> int:
        count = most if wanted is None else wanted
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
        if not self._process.here:
            return
        self._engines.clear()
        self.backend.close()
        self.bundle.release()

    def __enter__(self) -> Screener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _shaped(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if values.shape != shape:
        raise BackendError(
            f"The engine returned {values.shape}, expected {shape}. Export the model again."
        )
    return values


def _finite(values: NDArray[np.float32], what: str = "The magnitude") -> NDArray[np.float32]:
    finite = np.isfinite(values)
    if not finite.all():
        bad = int(np.argwhere(~finite)[0, 0])
        raise NumericsError(
            f"{what} of prompt {bad} is NaN or infinite: that is no verdict. "
            "Export the model in float32, or run the bundle on another backend."
        )
    return values
