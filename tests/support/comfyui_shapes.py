"""The shapes of ComfyUI's calls, as its own nodes use them; none of its code.

The network is a formula: its output for a prompt and for none differ by a known vector.
"""

from __future__ import annotations

import copy
import itertools
import uuid
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

SHAPE = (1, 4, 6, 6)
SIGMAS = (14.6, 5.0, 2.5, 1.5, 1.0, 0.5, 0.0)
TOKENS = 8


class EPS:
    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return x - sigma * output


class V_PREDICTION(EPS):  # noqa: N801 - ComfyUI's name
    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        keeps = 1 / (1 + sigma**2)
        return keeps * x - sigma * keeps**0.5 * output


class CONST:
    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return x - sigma * output


class LCM(EPS):
    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return super().calculate_denoised(sigma, output, x) * 0.5


def sampling_of(kind: type) -> Any:
    """A model's `model_sampling`, which ComfyUI makes of two classes."""
    most = 1.0 if kind is CONST else SIGMAS[0]
    levels = {"sigma_min": torch.tensor(0.03), "sigma_max": torch.tensor(most)}
    return type("ModelSampling", (kind,), levels)()


class BaseModel(nn.Module):
    def __init__(self, kind: type = EPS) -> None:
        super().__init__()
        direction = torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(3))
        self.direction = nn.Parameter(direction, requires_grad=False)
        self.model_sampling = sampling_of(kind)
        self.model_config = SimpleNamespace(unet_config={"model_channels": 4, "dtype": "float32"})
        self.manual_cast_dtype = None
        self.concat_keys: tuple[str, ...] = ()

    def get_dtype(self) -> torch.dtype:
        return torch.float32

    def forward(self, x: Tensor, embeds: Tensor) -> Tensor:
        loud = embeds.float().mean((1, 2)).reshape(-1, 1, 1, 1)
        return 0.2 * torch.tanh(x) + loud * self.direction


class SDXL(BaseModel):
    pass


class Flux(BaseModel):
    pass


class ModelPatcher:
    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.patches: dict[str, list[Any]] = {}
        self.patches_uuid = uuid.uuid4()
        self.object_patches: dict[str, Any] = {}
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.wrappers: dict[str, dict[str, list[Any]]] = {}
        self.weight_wrapper_patches: dict[str, Any] = {}
        self.hook_patches: dict[str, Any] = {}
        self.injections: dict[str, Any] = {}
        self.additional_models: dict[str, Any] = {}

    def clone(self) -> Any:
        found = type(self)(self.model)
        vars(found).update(vars(self))
        found.patches = {name: list(some) for name, some in self.patches.items()}
        found.object_patches = dict(self.object_patches)
        found.model_options = copy.deepcopy(self.model_options)
        found.wrappers = {k: {n: list(w) for n, w in v.items()} for k, v in self.wrappers.items()}
        return found

    def set_model_sampler_pre_cfg_function(
        self, function: Callable[..., Any], disable_cfg1_optimization: bool = False
    ) -> None:
        self.model_options.setdefault("sampler_pre_cfg_function", []).append(function)
        if disable_cfg1_optimization:
            self.model_options["disable_cfg1_optimization"] = True

    def add_wrapper_with_key(self, place: str, key: str, wrapper: Callable[..., Any]) -> None:
        self.wrappers.setdefault(place, {}).setdefault(key, []).append(wrapper)

    def add_patches(self, patches: dict[str, Any], strength: float = 1.0) -> None:
        for name, patch in patches.items():
            self.patches.setdefault(name, []).append((strength, patch, 1.0, None, None))
        self.patches_uuid = uuid.uuid4()

    def get_model_object(self, name: str) -> Any:
        return self.object_patches.get(name, getattr(self.model, name))

    def get_key_patches(self) -> dict[str, list[Any]]:
        weights = self.model.state_dict()
        return {
            name: [(value, None), *self.patches.get(name, [])] for name, value in weights.items()
        }


class CFGGuider:
    def __init__(self, patcher: Any, cfg: float) -> None:
        self.model_patcher, self.cfg = patcher, cfg


class Cond:
    """ComfyUI's holder of what a model is told."""

    def __init__(self, cond: Tensor) -> None:
        self.cond = cond


class Clip:
    """A text is as loud as it has letters; past some words it takes a second chunk."""

    def __init__(self) -> None:
        self.patcher = ModelPatcher(nn.Linear(2, 2))
        nn.init.constant_(self.patcher.model.weight, 0.5)
        nn.init.zeros_(self.patcher.model.bias)
        self.tokenizer = object()
        self.layer_idx: int | None = None
        self.tokenizer_options: dict[str, Any] = {}

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> list[Any]:
        chunks = 1 + len(text.split()) // TOKENS
        embeds = torch.full((1, TOKENS * chunks, 3), loudness(text))
        return [[embeds, {"pooled_output": embeds[:, 0]}]]


def loudness(text: str) -> float:
    return len(text) / 100


def magnitude_of(model: BaseModel, text: str, negative: str = "") -> float:
    """In eps units where the network predicts the noise, by the formula."""
    return abs(loudness(text) - loudness(negative)) * float(model.direction.norm())


class Executor:
    """Calls wrappers from the outermost in, the last of them what they are around."""

    def __init__(self, guider: Any, wrappers: Sequence[Any], inner: Callable[..., Any]) -> None:
        self.class_obj = guider
        self._wrappers, self._inner = wrappers, inner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._wrappers:
            return self._inner(*args, **kwargs)
        first, *others = self._wrappers
        return first(Executor(self.class_obj, others, self._inner), *args, **kwargs)


def both(clip: Clip, *texts: str) -> list[Any]:
    """A conditioning with a row for each text."""
    return [[torch.cat([clip.encode_from_tokens_scheduled(t)[0][0] for t in texts]), {}]]


def noise_of(seed: int = 0, images: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((images, *SHAPE[1:]), generator=generator)


def sample_euler(model: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    for now, after in itertools.pairwise(sigmas):
        denoised = model(x, now.expand(len(x)))
        x = x + (x - denoised) / now * (after - now)
    return x


def draw(
    patcher: Any,
    noise: Tensor,
    positive: Any,
    negative: Any,
    _seed: int = 0,
    *,
    cfg: float = 7.5,
    sigmas: Sequence[float] = SIGMAS,
    latent: Tensor | None = None,
    mask: Tensor | None = None,
    function: Any = sample_euler,
    guides: Any = CFGGuider,
) -> Any:
    """What a KSampler does, as far as guards see of it."""
    options = {**patcher.model_options}
    options["transformer_options"] = {
        **options["transformer_options"], "wrappers": patcher.wrappers, "callbacks": {}
    }  # fmt: skip
    guider = guides(patcher, cfg)
    conds = [_converted(positive), _converted(negative)]
    latent = torch.zeros_like(noise) if latent is None else latent

    def outer_sample(noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *_: Any) -> Any:
        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            return sampling_function(patcher, x, sigma, conds, cfg, options)

        return sampler.sampler_function(predict, latent + noise * sigmas[0], sigmas)

    wrappers = [each for some in patcher.wrappers.get("outer_sample", {}).values() for each in some]
    sampler = SimpleNamespace(sampler_function=function, extra_options={})
    return Executor(guider, wrappers, outer_sample)(
        noise, latent, sampler, torch.tensor(sigmas), mask, None, True, 1
    )


def _converted(conditioning: Any) -> list[dict[str, Any]]:
    return [
        {"cross_attn": embeds, "model_conds": {"c_crossattn": Cond(embeds)}, "uuid": 1, **more}
        for embeds, more in conditioning
    ]


def sampling_function(
    patcher: Any, x: Tensor, sigma: Tensor, conds: list[Any], cfg: float, options: dict[str, Any]
) -> Tensor:
    """Both predictions of the picture, what is called before guidance, and guidance."""
    model = patcher.model
    sampling = patcher.get_model_object("model_sampling")
    if cfg == 1.0 and not options.get("disable_cfg1_optimization"):
        conds = [conds[0], None]

    def predicted(side: Any) -> Tensor:
        if not side:
            return torch.zeros_like(x)
        outputs = [model(x, each["model_conds"]["c_crossattn"].cond) for each in side]
        return sampling.calculate_denoised(
            sigma.reshape(-1, 1, 1, 1), sum(outputs) / len(outputs), x
        )

    out = [predicted(side) for side in conds]
    for function in options.get("sampler_pre_cfg_function", []):
        out = function(
            {"conds": conds, "conds_out": out, "cond_scale": cfg, "timestep": sigma, "input": x,
             "sigma": sigma, "model": model, "model_options": options}
        )  # fmt: skip
    return out[1] + cfg * (out[0] - out[1])
