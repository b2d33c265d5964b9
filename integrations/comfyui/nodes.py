"""What ComfyUI shows of this: five nodes. All they know of ComfyUI is in here and in `comfyui`."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from mnemoscope import Calibration, CalibrationFile, Detector
from mnemoscope.prompts import read_prompt_file
from mnemoscope.prompts.printable import counted
from mnemoscope_runtime.errors import InputError

from . import comfyui
from .calibrating import calibrate_sampling
from .decision import MODES, Mode
from .guard import guarded
from .places import found, place
from .screening import check_clear, screen
from .setting import read
from .watch import Watch

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

_LOG = logging.getLogger("mnemoscope")
_CATEGORY = "mnemoscope"
_GUARD = "MEMORIZATION_GUARD"
_BUNDLE = "SCREENING_BUNDLE"

_NEGATIVE = (
    "STRING",
    {
        "multiline": True,
        "default": "",
        "tooltip": "The text of your negative prompt, word by word.",
    },
)
_LOOKS = (
    "INT",
    {"default": 3, "min": 1, "max": 100, "tooltip": "At how many of the model's first calls to "
     "look. 1 holds for every sampler, and finds little."},
)  # fmt: skip
_EXTRA = (
    "BOOLEAN",
    {"default": False, "tooltip": "Only for cfg 1.0: have the prediction without the prompt "
     "computed all the same, which takes twice the time."},
)  # fmt: skip


class MemorizationGuard:
    """MODEL to MODEL: every sampling with it is measured, and blocked if it is about to recite."""

    CATEGORY = _CATEGORY
    FUNCTION = "attach"
    RETURN_TYPES = ("MODEL", _GUARD)
    RETURN_NAMES = ("model", "guard")
    DESCRIPTION = (
        "Tells from the first step of a sampling whether it is about to reproduce a training image."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "As the sampler is to have it, with its LoRA."}),
                "clip": ("CLIP", {"tooltip": "The one that encodes your prompts."}),
                "mode": (list(MODES), {"default": "block"}),
                "calibration": (
                    "STRING",
                    {"default": "", "tooltip": "File name of a calibration."},
                ),
                "negative": _NEGATIVE,
                "looks": _LOOKS,
            },
            "optional": {"extra_pass": _EXTRA},
        }

    @classmethod
    def IS_CHANGED(cls, calibration: str, **_: Any) -> str:
        """Another calibration under the same name counts as a change."""
        try:
            file = found(calibration, comfyui.written(), "a calibration").stat()
        except (InputError, OSError):
            return ""
        return f"{file.st_mtime_ns} {file.st_size}"

    def attach(
        self,
        model: Any,
        clip: Any,
        mode: Mode,
        calibration: str,
        negative: str,
        looks: int,
        extra_pass: bool = False,
    ) -> tuple[Any, Watch]:
        """The model with a guard on it."""
        known: tuple[Calibration, ...] = ()
        if calibration.strip():
            known = read(found(calibration, comfyui.written(), "a calibration"), looks)
        guard = guarded(
            model,
            clip,
            mode=mode,
            calibrations=known,
            negative=negative,
            steps=looks,
            extra_pass=extra_pass,
        )
        return guard.attach(model), guard


class MemorizationVerdict:
    """What the guard saw of the sampling that drew a latent; flagged pictures are black."""

    CATEGORY = _CATEGORY
    FUNCTION = "judge"
    RETURN_TYPES = ("IMAGE", "STRING", "FLOAT", "BOOLEAN")
    RETURN_NAMES = ("images", "verdict", "score", "clear")
    DESCRIPTION = "Says what the guard saw. clear is true only if all was measured and not flagged."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        return {
            "required": {
                "guard": (_GUARD,),
                "latent": ("LATENT", {"tooltip": "The sampler's own, not changed since."}),
                "images": ("IMAGE", {"tooltip": "What VAE Decode makes of that latent."}),
            }
        }

    def judge(
        self, guard: Watch, latent: dict[str, Any], images: Tensor
    ) -> tuple[Tensor, str, float, bool]:
        """Images [B, H, W, C], the verdict, the highest score, and whether all is clear.

        Raises:
            InputError: the images are not those of the latent.
        """
        seen = guard.sampled(latent["samples"])
        _LOG.info("%s", seen)
        if seen.decisions and len(images) != len(seen.decisions):
            raise InputError(
                f"The latent is of {counted(len(seen.decisions), 'image')}, and "
                f"{len(images):,} are given. "
                "Connect what VAE Decode makes of that very latent."
            )
        if seen.hidden:
            images = images.clone()
            images[list(seen.hidden)] = 0
        return images, str(seen), seen.score, seen.clear


class CalibrateMemorizationGuard:
    """Sets a guard's threshold from benign prompts, through the sampler that will draw."""

    CATEGORY = _CATEGORY
    FUNCTION = "calibrate"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("report",)
    OUTPUT_NODE = True
    DESCRIPTION = (
        "Draws the first step of every benign prompt (299 or more for 1 %), and writes a "
        "calibration for the guard."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        samplers, schedulers = comfyui.samplers()
        return {
            "required": {
                "model": ("MODEL",),
                "clip": ("CLIP",),
                "latent": ("LATENT", {"tooltip": "An empty one of the size that you draw in."}),
                "prompts": ("STRING", {"default": "benign.txt", "tooltip": "File of prompts that "
                            "the model has not memorised: txt, csv, tsv, jsonl or parquet."}),
                "name": ("STRING", {"default": "my-model.json"}),
                "negative": _NEGATIVE,
                "looks": _LOOKS,
                "fpr": ("FLOAT", {"default": 0.01, "min": 0.0001, "max": 0.5, "step": 0.0001,
                        "tooltip": "The most benign pictures that may be flagged, as a share."}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10000}),
                "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1}),
                "sampler_name": (samplers,),
                "scheduler": (schedulers,),
            },
            "optional": {"extra_pass": _EXTRA},
        }  # fmt: skip

    def calibrate(
        self,
        model: Any,
        clip: Any,
        latent: dict[str, Any],
        prompts: str,
        name: str,
        negative: str,
        looks: int,
        fpr: float,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        extra_pass: bool = False,
    ) -> dict[str, Any]:
        """Measure and write."""
        path = place(name, comfyui.written())
        source = found(prompts, comfyui.given(), "a file of benign prompts")
        empty = comfyui.empty_latent(model, latent["samples"])

        def sample(model: Any, noise: Tensor, positive: Any, negative: Any, seed: int) -> object:
            return comfyui.sample(
                model, noise, steps, cfg, sampler_name, scheduler, positive, negative, empty, seed
            )

        calibration = calibrate_sampling(
            model,
            clip,
            list(read_prompt_file(source, tell=_LOG.info)),
            shape=tuple(empty.shape),
            sample=sample,
            negative=negative,
            steps=looks,
            extra_pass=extra_pass,
            fpr=fpr,
            seed=seed,
            progress=comfyui.progress(),
            tell=_LOG.warning,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        CalibrationFile((calibration,)).write(path)
        report = (
            f"{path.name}: threshold {calibration.threshold:.4g} from "
            f"{counted(len(calibration.scores), 'prompt')}; at most {fpr:.2%} of such pictures "
            "are flagged, with 95 % confidence."
        )
        _LOG.info("%s", report)
        return {"ui": {"text": (report,)}, "result": (report,)}


class LoadScreeningBundle:
    """Opens a bundle, once for all prompts."""

    CATEGORY = _CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = (_BUNDLE,)
    RETURN_NAMES = ("bundle",)
    DESCRIPTION = "A bundle that `mnemoscope export` made of the model that you draw with."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        return {
            "required": {
                "bundle": ("STRING", {"default": "", "tooltip": "Folder of the bundle."}),
                "backend": ("STRING", {"default": "onnxruntime"}),
                "detector": ("STRING", {"default": "magnitude"}),
            }
        }

    def load(self, bundle: str, backend: str, detector: str) -> tuple[Detector]:
        """The detector."""
        path = found(bundle, comfyui.given(), "the folder of a bundle")
        loaded = Detector.load(path, backend=backend, detector=detector, uncalibrated="score")
        return (loaded,)


class ScreenPrompt:
    """Screens a prompt before anything is sampled; with "block" only clear ones come through."""

    CATEGORY = _CATEGORY
    FUNCTION = "screen"
    RETURN_TYPES = ("STRING", "STRING", "FLOAT", "STRING", "BOOLEAN")
    RETURN_NAMES = ("prompt", "verdict", "score", "explanation", "clear")
    DESCRIPTION = "Tells from the prompt alone whether the model is about to recite."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        return {
            "required": {
                "bundle": (_BUNDLE,),
                "prompt": ("STRING", {"multiline": True, "default": ""}),
                "gate": (["block", "report"], {"default": "block"}),
                "steps": ("INT", {"default": 1, "min": 1, "max": 999}),
                "noises": ("INT", {"default": 0, "min": 0, "max": 999, "tooltip": "0 for all."}),
                "explain": ("BOOLEAN", {"default": True}),
            }
        }

    def screen(
        self, bundle: Detector, prompt: str, gate: str, steps: int, noises: int, explain: bool
    ) -> tuple[str, str, float, str, bool]:
        """The prompt as it came, and what was said of it."""
        screened = screen(bundle, prompt, steps=steps, noises=noises or None, explain=explain)
        _LOG.info("%s", screened)
        if gate == "block":
            check_clear(screened)
        score = screened.detection.score
        return prompt, str(screened), score, screened.explanation, screened.clear


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "MnemoscopeGuard": MemorizationGuard,
    "MnemoscopeVerdict": MemorizationVerdict,
    "MnemoscopeCalibrateGuard": CalibrateMemorizationGuard,
    "MnemoscopeLoadBundle": LoadScreeningBundle,
    "MnemoscopeScreenPrompt": ScreenPrompt,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "MnemoscopeGuard": "Memorization Guard",
    "MnemoscopeVerdict": "Memorization Verdict",
    "MnemoscopeCalibrateGuard": "Calibrate Memorization Guard",
    "MnemoscopeLoadBundle": "Load Screening Bundle",
    "MnemoscopeScreenPrompt": "Screen Prompt",
}
