"""What the prompt's tokens are looked at for. Engines keep no attention maps: PyTorch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnemoscope_runtime import (
    BackendUnavailable,
    Embeddings,
    InputError,
    Prompts,
    Screener,
    Tokens,
)
from mnemoscope_runtime.families import family_named

from ._protocol import Features, Fit, Scores
from ._walking import SAMPLING, allocate

if TYPE_CHECKING:
    from mnemoscope_export import StableDiffusion

__all__ = ["AttentionEntropy", "BrightEnding"]

_LAYER = 3  # the reference code's: the fourth cross-attention


class AttentionEntropy:
    """-sum_i a_i log a_i over tokens, mean over heads and pixels, at the fourth cross-attention.

    Memorised prompts spread their attention over more tokens. The paper's layer-wise variant, at
    the first step; a smaller UNet's last cross-attention where there are fewer than four.
    """

    name = "attention-entropy"
    reference = "Ren et al., ECCV 2024"
    only_first = True
    is_fitted = False
    needs_torch = True
    draws = False

    def passes(self, steps: int) -> int:
        """The conditional branch."""
        return 1

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """The text encoder; the rest is the model's own."""
        _model(screener, self.name)
        return ("text_encoder",)

    def measure(
        self, screener: Screener, prompts: Prompts, *, steps: int, noises: int | None
    ) -> Features:
        """Entropies. # [prompt, noise, 1, 1]"""
        model = _model(screener, self.name)
        import torch

        from mnemoscope_export import AttentionMaps

        watched, place = AttentionMaps(model), (model.unet.device, model.unet.dtype)
        found = allocate(screener, prompts, 1, noises, 1)
        for part in screener.parts(prompts, noises=noises):
            count = part.latents.shape[1]
            latents = torch.from_numpy(part.latents).flatten(0, 1).to(*place)
            embeds = tuple(
                torch.from_numpy(each).repeat_interleave(count, 0).to(*place)
                for each in part.embeds
            )
            _, maps = watched.predict(latents, screener.timesteps[0], embeds)
            a = maps[: _LAYER + 1][-1]
            entropy = torch.special.entr(a).sum(-1).mean(-1)
            found[*part.where, 0, 0] = entropy.reshape(part.latents.shape[:2]).cpu().numpy()
        return found

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """The entropy in nats, 0 .. log L."""
        return features[:, :, -1, 0].astype(np.float64)


class BrightEnding:
    """mean_t || d_t * m || / mean(m), m the attention to the end token at the last step.

    d_t is the difference of the two predictions. Where a memorised picture comes back, the end
    token lights up at the end of sampling: m singles out those pixels. The score after k steps
    takes the map of step k; the paper samples the whole image.
    """

    name = "bright-ending"
    reference = "Chen et al., ICLR 2025"
    only_first = False
    is_fitted = False
    needs_torch = True
    draws = False

    def passes(self, steps: int) -> int:
        """Both branches, as in sampling, and the conditional one again for its maps."""
        return 3 * steps

    def graphs(self, screener: Screener) -> tuple[str, ...]:
        """Those of sampling; attention is the model's own."""
        _model(screener, self.name)
        return SAMPLING

    def measure(
        self, screener: Screener, prompts: Prompts, *, steps: int, noises: int | None
    ) -> Features:
        """Masked magnitudes. # [prompt, noise, step, 1]"""
        model = _model(screener, self.name)
        import torch

        from mnemoscope_export import AttentionMaps

        watched, place = AttentionMaps(model), (model.unet.device, model.unet.dtype)
        if isinstance(prompts, Embeddings):
            raise InputError(
                f"The detector {self.name!r} looks for the end of a prompt among its tokens, and "
                "embeddings have none. Choose another."
            )
        tokens = prompts if isinstance(prompts, Tokens) else screener.tokenizer.encode(prompts)
        ends = (tokens.ids == model.tokenizer.eos_token_id).argmax(1)  # the first, where it pads
        found = allocate(screener, prompts, steps, noises, 1)
        layers = model.unet.config.layers_per_block
        for part in screener.parts(tokens, noises=noises):
            b, m, _, height, width = part.latents.shape
            embeds = tuple(
                torch.from_numpy(each).repeat_interleave(m, 0).to(*place) for each in part.embeds
            )
            end = torch.from_numpy(ends[part.where[0]]).repeat_interleave(m)
            differences = []
            for k, prediction in enumerate(screener.walk(part, screener.timesteps[:steps])):
                difference = torch.from_numpy(prediction.cond - prediction.uncond)
                differences.append(difference.flatten(0, 1))  # [b * m, C, H, W]
                latents = torch.from_numpy(prediction.latents).flatten(0, 1).to(*place)
                _, maps = watched.predict(latents, prediction.timestep, embeds)
                first = torch.stack(maps[:layers]).mean(0).cpu()  # [b * m, H * W, L]
                mask = first[torch.arange(b * m), :, end].reshape(b * m, 1, height, width)
                masked = (torch.stack(differences) * mask).flatten(2).norm(dim=2).mean(0)
                value = masked / mask.mean((1, 2, 3))
                found[*part.where, k, 0] = value.reshape(b, m).numpy()
        return found

    def score(self, features: Features, fit: Fit | None) -> Scores:
        """The masked magnitude after the last step, in eps units, >= 0."""
        return features[:, :, -1, 0].astype(np.float64)


def _model(screener: Screener, name: str) -> StableDiffusion:
    model: StableDiffusion | None = getattr(screener.backend, "model", None)
    family = family_named(screener.bundle.manifest.model.family)
    if not (family.unet if model is None else model.predictor == "unet"):
        raise InputError(
            f"The detector {name!r} looks at the cross-attention of a UNet, and "
            f"{screener.bundle.path} is of the family {family.name}. Choose another detector."
        )
    if model is None:
        raise BackendUnavailable(
            f"The detector {name!r} looks at attention maps, which an engine on "
            f"{screener.backend.name!r} does not give. Use --backend torch with the bundle's "
            "--model (in Python, TorchBackend(model))."
        )
    return model
