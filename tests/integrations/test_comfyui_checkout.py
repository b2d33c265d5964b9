"""In a real checkout of ComfyUI, with the embedded model in its layout: MNEMOSCOPE_COMFYUI=DIR.

The witness is diffusers' own pipeline under Mnemoscope's guard: same weights, noise and sigmas.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from repository import ROOT

from benchmarks.comfyui.checkout import comfy_clip, comfy_flow, comfy_model, open_checkout
from integrations.comfyui.calibrating import calibrate_sampling
from integrations.comfyui.decision import Blocked, Sampled
from integrations.comfyui.guard import guarded
from integrations.comfyui.identity import Identity
from integrations.comfyui.watch import Watch
from mnemoscope import Calibration, CalibrationError, InputError, embedded

FOLDER = os.environ.get("MNEMOSCOPE_COMFYUI", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="MNEMOSCOPE_COMFYUI names no checkout of ComfyUI"),
]

TOWER, DOG = "google icon of tokyo tower, on rings, in zagreb 2020", "a dog in a red hat"
SHAPE = (1, 16, 8, 8)
STEPS = 4


@pytest.fixture(scope="module")
def pipe() -> Any:
    from mnemoscope.drawing.generate import load_pipeline

    return load_pipeline()


@pytest.fixture(scope="module")
def comfy(pipe: Any) -> tuple[Any, Any]:
    """MODEL and CLIP."""
    open_checkout(Path(FOLDER))
    model = comfy_model(pipe.unet, "EPS")
    config = embedded.MODEL / "text_encoder" / "config.json"
    return model, comfy_clip(pipe, embedded.MODEL / "tokenizer", config)


@pytest.fixture(scope="module")
def calibration(comfy: tuple[Any, Any]) -> Calibration:
    model, clip = comfy
    prompts = [row.prompt for row in embedded.read_prompts("calibration")][:60]
    return calibrate_sampling(
        model, clip, prompts, shape=SHAPE, sample=_as_node, fpr=0.05, delta=0.05
    )


def _as_node(model: Any, noise: torch.Tensor, positive: Any, negative: Any, _: int) -> Any:
    return sample(model, noise, positive, negative)


def sample(model: Any, noise: torch.Tensor, positive: Any, negative: Any, **told: Any) -> Any:
    """As a KSampler does."""
    from comfy.sample import sample as draw  # type: ignore[import-not-found]

    call = {"steps": STEPS, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal"} | told
    latent = call.pop("latent_image", torch.zeros_like(noise))
    return draw(
        model, noise, positive=positive, negative=negative, latent_image=latent, seed=1,
        disable_pbar=True, **call,
    )  # fmt: skip


def noise_of(seed: int, images: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((images, *SHAPE[1:]), generator=generator)


def encoded(clip: Any, *texts: str) -> Any:
    found = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]
    return [[torch.cat([each[0][0] for each in found]), found[0][0][1]]]


def seen(
    comfy: tuple[Any, Any], prompts: Sequence[str], guard: Watch, seed: int = 1, **told: Any
) -> Sampled:
    model, clip = comfy
    noise = noise_of(seed, len(prompts))
    drawn = sample(guard.attach(model), noise, encoded(clip, *prompts), encoded(clip, ""), **told)
    return guard.sampled(drawn)


def reporting(comfy: tuple[Any, Any], **told: Any) -> Watch:
    return guarded(*comfy, **{"mode": "report", "calibrations": ()} | told)


@pytest.mark.parametrize("steps", [1, 3])
def test_magnitudes_are_those_of_the_guard_of_a_diffusers_pipeline(
    pipe: Any, comfy: tuple[Any, Any], steps: int
) -> None:
    from diffusers import EulerDiscreteScheduler

    from mnemoscope.guard import Guard

    found = seen(comfy, [TOWER, DOG], reporting(comfy, steps=steps))
    other = EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="linspace", steps_offset=0
    )
    other.set_timesteps(STEPS)
    sigma = float(other.sigmas[0])
    start = noise_of(1, 2) * (1 + sigma**2) ** 0.5 / float(other.init_noise_sigma)
    pipe.scheduler = other
    with Guard(pipe, steps=steps) as guard:
        pipe([TOWER, DOG], num_inference_steps=STEPS, latents=start, output_type="latent")
    wanted = [each.score for each in guard.decisions]
    assert [each.score for each in found.decisions] == pytest.approx(wanted, rel=2e-4)
    assert wanted[0] > 2 * wanted[1]


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [("dpmpp_2m", "karras"), ("uni_pc", "simple"), ("euler_ancestral", "sgm_uniform")],
)
def test_the_first_step_is_the_same_whatever_samples(
    comfy: tuple[Any, Any], sampler: str, scheduler: str, calibration: Calibration
) -> None:
    guard = reporting(comfy, calibrations=(calibration,))
    wanted = seen(comfy, [TOWER], guard)
    found = seen(comfy, [TOWER], guard, sampler_name=sampler, scheduler=scheduler)
    assert found.score == pytest.approx(wanted.score, rel=1e-5)
    assert found.decisions[0].memorized is wanted.decisions[0].memorized is True


def test_what_is_not_flagged_is_drawn_to_the_bit(
    comfy: tuple[Any, Any], calibration: Calibration
) -> None:
    model, clip = comfy
    guard = guarded(model, clip, mode="block", calibrations=(calibration,))
    positive, negative = encoded(clip, DOG), encoded(clip, "")
    plain = sample(model, noise_of(1), positive, negative)
    assert torch.equal(sample(guard.attach(model), noise_of(1), positive, negative), plain)
    assert guard.sampled(plain).clear


def test_block_raises_and_black_leaves_the_flagged_latents_empty(
    comfy: tuple[Any, Any], calibration: Calibration
) -> None:
    model, clip = comfy
    block = guarded(model, clip, mode="block", calibrations=(calibration,))
    with pytest.raises(Blocked, match="1 of 2 image"):
        seen(comfy, [TOWER, DOG], block)
    black = guarded(model, clip, mode="black", calibrations=(calibration,))
    positive, negative = encoded(clip, TOWER, DOG), encoded(clip, "")
    drawn = sample(black.attach(model), noise_of(1, 2), positive, negative)
    plain = sample(model, noise_of(1, 2), positive, negative)
    assert not drawn[0].any()
    assert torch.equal(drawn[1], plain[1])
    assert black.sampled(drawn).hidden == (0,)
    assert not sample(black.attach(model), noise_of(1), encoded(clip, TOWER), negative).any()


def test_a_lora_behind_the_guard_is_another_state(
    comfy: tuple[Any, Any], calibration: Calibration
) -> None:
    model, clip = comfy
    guard = guarded(model, clip, mode="block", calibrations=(calibration,))
    patched = guard.attach(model).clone()
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    value = torch.ones_like(model.model.state_dict()[name])
    patched.add_patches({name: ("diff", (value,))}, 0.01)
    with pytest.raises(CalibrationError, match=r"state is model patched \(1 weights"):
        sample(patched, noise_of(1), encoded(clip, DOG), encoded(clip, ""))


def _freeu(model: Any) -> Any:
    from comfy_extras.nodes_freelunch import FreeU_V2  # type: ignore[import-not-found]

    return FreeU_V2().patch(model, 1.3, 1.4, 0.9, 0.2)[0]


def _lcm(model: Any) -> Any:
    from comfy_extras.nodes_model_advanced import (  # type: ignore[import-not-found]
        ModelSamplingDiscrete,
    )

    return ModelSamplingDiscrete().patch(model, "lcm", False)[0]


def test_what_the_guard_cannot_tell_is_refused_by_name(
    comfy: tuple[Any, Any], calibration: Calibration
) -> None:
    model, clip = comfy
    guard = guarded(model, clip, mode="black", calibrations=(calibration,))
    watched, dog, empty = guard.attach(model), encoded(clip, DOG), encoded(clip, "")
    with pytest.raises(InputError, match="FreeU"):
        sample(_freeu(watched), noise_of(1), dog, empty)
    with pytest.raises(InputError, match="LCM"):
        sample(_lcm(watched), noise_of(1), dog, empty)
    with pytest.raises(InputError, match=r"cfg 1\.0"):
        sample(watched, noise_of(1), dog, empty, cfg=1.0)
    with pytest.raises(InputError, match="2 parts"):
        sample(watched, noise_of(1), dog + encoded(clip, TOWER), empty)
    with pytest.raises(InputError, match="area"):
        sample(watched, noise_of(1), [[dog[0][0], {**dog[0][1], "area": (4, 4, 0, 0)}]], empty)
    with pytest.raises(InputError, match="not the guard's"):
        sample(watched, noise_of(1), dog, encoded(clip, "blurry"))
    with pytest.raises(InputError, match="noise mask"):
        sample(watched, noise_of(1), dog, empty, noise_mask=torch.ones(1, 8, 8))
    with pytest.raises(InputError, match="adds no noise"):
        sample(watched, torch.zeros(SHAPE), dog, empty, latent_image=noise_of(2))
    with pytest.raises(CalibrationError, match="sigmas is"):
        sample(watched, noise_of(1), dog, empty, denoise=0.5)


def test_extra_pass_has_the_baseline_computed_at_cfg_1(
    comfy: tuple[Any, Any], calibration: Calibration
) -> None:
    guard = guarded(*comfy, mode="report", calibrations=(calibration,), extra_pass=True)
    wanted = seen(comfy, [TOWER], guard)
    assert seen(comfy, [TOWER], guard, cfg=1.0).score == pytest.approx(wanted.score, rel=1e-6)


def test_velocities_and_flows_are_read_in_their_units(pipe: Any, comfy: tuple[Any, Any]) -> None:
    _, clip = comfy
    for kind in ("V_PREDICTION", "FLOW"):
        model = comfy_model(pipe.unet, kind)
        scheduler = "simple" if kind == "FLOW" else "normal"
        guard = reporting((model, clip))
        found = seen((model, clip), [TOWER], guard, scheduler=scheduler)
        sampling = model.model.model_sampling
        if kind == "FLOW":
            sigma, t, x, scale = 1.0, 1000.0, noise_of(1), 1.0  # sigma
        else:
            sigma, t, x = float(sampling.sigma_max), 999.0, noise_of(1)
            scale = 1 / (1 + sigma**2) ** 0.5  # sqrt(abar)
        with torch.no_grad():
            embeds = pipe.encode_prompt(TOWER, "cpu", 1, True)
            both = pipe.unet(
                x.repeat(2, 1, 1, 1), t, encoder_hidden_states=torch.cat(embeds)
            ).sample
        wanted = scale * float((both[0] - both[1]).norm())
        assert found.score == pytest.approx(wanted, rel=1e-4), kind


class Drawn:
    """A CLIP whose embeddings are drawn at random: a text's are always the same."""

    def __init__(self, like: Any, tokens: int, wide: int, pooled: int) -> None:
        self.patcher, self.tokenizer, self.layer_idx = like.patcher, like.tokenizer, None
        self.tokenizer_options: dict[str, Any] = {}
        self._shapes = (1, tokens, wide), (1, pooled)

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> Any:
        generator = torch.Generator().manual_seed(len(text))
        embeds, pooled = (torch.randn(shape, generator=generator) for shape in self._shapes)
        return [[embeds, {"pooled_output": pooled}]]


def test_xl_is_told_pooled_embeddings_and_sizes(comfy: tuple[Any, Any]) -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(32, 64), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2), cross_attention_dim=64, attention_head_dim=(2, 4),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + 24,
    ).eval()  # fmt: skip
    model, clip = comfy_model(unet, "EPS"), Drawn(comfy[1], 77, 64, 24)
    told = [clip.encode_from_tokens_scheduled(text)[0] for text in (DOG, "")]
    embeds = torch.cat([each[0] for each in told])
    pooled = torch.cat([each[1]["pooled_output"] for each in told])
    noise = noise_of(1)[:, :4]
    watch = reporting((model, clip))
    conds = [[[embeds, {"pooled_output": pooled}]] for embeds, pooled in zip(
        embeds.split(1), pooled.split(1), strict=True
    )]  # fmt: skip
    found = watch.sampled(sample(watch.attach(model), noise, *conds))
    with torch.no_grad():
        both = unet(
            noise.repeat(2, 1, 1, 1), 999.0, encoder_hidden_states=embeds,
            added_cond_kwargs={
                "text_embeds": pooled, "time_ids": torch.tensor([[64, 64, 0, 0, 64, 64.0]] * 2)
            },
        ).sample  # fmt: skip
    assert found.score == pytest.approx(float((both[0] - both[1]).norm()), rel=1e-3)
    other = [[told[1][0], {"pooled_output": told[0][1]["pooled_output"]}]]
    unmeasured = watch.sampled(sample(watch.attach(model), noise, conds[0], other))
    assert "not the guard's" in unmeasured.reason


def test_stable_diffusion_3_is_read_in_units_of_the_picture(comfy: tuple[Any, Any]) -> None:
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=2,
        attention_head_dim=64, num_attention_heads=2, joint_attention_dim=72,
        caption_projection_dim=128, pooled_projection_dim=48, pos_embed_max_size=6,
    ).eval()  # fmt: skip
    model, clip = comfy_flow(transformer), Drawn(comfy[1], 77, 72, 48)
    told = [clip.encode_from_tokens_scheduled(text) for text in (DOG, "")]
    watch = reporting((model, clip), steps=2)
    seen: list[tuple[float, torch.Tensor]] = []
    guarded_model = watch.attach(model)

    def keep(args: Any) -> Any:
        seen.append((float(args["sigma"][0]), args["input"].clone()))
        return args["denoised"]

    found = watch.sampled(sample(guarded_model, noise_of(1), *told, scheduler="simple"))
    model = model.clone()
    model.set_model_sampler_post_cfg_function(keep)
    sample(model, noise_of(1), *told, scheduler="simple")
    wanted = []
    for sigma, x in seen[:2]:
        with torch.no_grad():
            both = transformer(
                x.repeat(2, 1, 1, 1), torch.cat([each[0][0] for each in told]),
                torch.cat([each[0][1]["pooled_output"] for each in told]),
                torch.tensor([sigma * 1000] * 2),
            ).sample  # fmt: skip
        wanted.append(sigma * float((both[0] - both[1]).norm()))
    assert seen[0][0] == 1.0
    assert found.score == pytest.approx(sum(wanted) / 2, rel=1e-3)


def test_weights_are_those_of_the_file_while_a_lora_is_in_them(comfy: tuple[Any, Any]) -> None:
    model, clip = comfy
    before = Identity.of(model, clip)
    patched = model.clone()
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    value = torch.ones_like(model.model.state_dict()[name])
    patched.add_patches({name: ("diff", (value,))}, 0.01)
    told = encoded(clip, DOG), encoded(clip, "")
    with_it = sample(patched, noise_of(1), *told)
    now = Identity.of(patched, clip)
    assert now.model == before.model
    assert now.state.startswith("model patched (1 weights")
    assert Identity.of(model, clip) == before
    assert not torch.equal(sample(model, noise_of(1), *told), with_it)


@pytest.fixture
def run(comfy: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs one of our graphs as ComfyUI's queue does, with the embedded model for a checkpoint."""
    import execution  # type: ignore[import-not-found]
    import folder_paths  # type: ignore[import-not-found]
    import nodes  # type: ignore[import-not-found]
    from comfy_extras.nodes_preview_any import PreviewAny  # type: ignore[import-not-found]

    class Checkpoint:
        RETURN_TYPES = ("MODEL", "CLIP", "VAE")
        FUNCTION = "load"

        @classmethod
        def INPUT_TYPES(cls) -> Any:  # noqa: N802
            return {"required": {"ckpt_name": ("STRING",)}}

        def load(self, ckpt_name: str) -> Any:  # noqa: ARG002
            return (*comfy, SimpleNamespace(decode=lambda x: torch.ones(len(x), 64, 64, 3)))

    folder = tmp_path / "custom_nodes" / "mnemoscope"
    ours = ROOT / "integrations" / "comfyui"
    shutil.copytree(ours, folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert asyncio.run(nodes.load_custom_node(str(folder)))
    known = {"CheckpointLoaderSimple": Checkpoint, "PreviewAny": PreviewAny}
    for name, node in known.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node)
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    server = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None)
    takes = inspect.signature(execution.PromptExecutor).parameters
    told = {"cache_args": {"lru": 0, "ram": 0.0}} if "cache_args" in takes else {}
    executor = execution.PromptExecutor(server, **told)

    def queue(name: str, **changes: dict[str, Any]) -> Any:
        """What nodes show, by their numbers, and what went wrong."""
        graph = json.loads((ours / "graphs" / f"{name}.json").read_text("utf-8"))
        for node in graph.values():
            if node["class_type"] == "EmptyLatentImage":
                node["inputs"] |= {"width": 64, "height": 64}
        for number, inputs in changes.items():
            graph[number.removeprefix("n")]["inputs"] |= inputs
        valid, error, outputs, _ = asyncio.run(execution.validate_prompt("1", graph, None))
        assert valid, error
        executor.execute(graph, "1", {}, outputs)
        failed = [told for event, told in executor.status_messages if event == "execution_error"]
        shown = {k: v.get("text") for k, v in executor.history_result["outputs"].items()}
        return shown, failed[0] if failed else None

    return queue


def test_the_graphs_that_come_with_the_nodes_run(run: Any, tmp_path: Path) -> None:
    from PIL import Image

    prompts = [row.prompt for row in embedded.read_prompts("calibration")][:60]
    (tmp_path / "input" / "benign.txt").write_text("\n".join(prompts))
    shown, failed = run("calibrate", n3={"fpr": 0.05})
    assert failed is None
    assert "my-model.json: threshold" in shown["4"][0]

    shown, failed = run("guard", n3={"text": DOG})
    assert failed is None
    assert shown["10"][0].startswith("Image 0: not flagged. Score")
    shown, failed = run("guard", n3={"text": TOWER})
    assert failed["node_type"] == "KSampler"
    assert failed["exception_message"].startswith("Nothing was drawn: 1 of 1 image would")
    shown, failed = run("guard", n2={"mode": "black"}, n3={"text": TOWER})
    assert failed is None
    assert shown["10"][0].startswith("Image 0: memorised. Score")
    white, black = (Image.open(each) for each in sorted((tmp_path / "output").glob("*.png")))
    assert white.getextrema() == ((255, 255),) * 3
    assert black.getextrema() == ((0, 0),) * 3
    again, failed = run("guard", n2={"mode": "black"}, n3={"text": TOWER}, n6={"seed": 2})
    assert failed is None
    assert again["10"][0].startswith("Image 0: memorised")  # the guard is cached, its verdict not
    assert again != shown

    bundle = {"bundle": str(embedded.BUNDLE)}
    shown, failed = run("screen", n2=bundle, n3={"prompt": DOG})
    assert failed is None
    assert shown["10"][0].startswith("Not flagged. Score")
    _, failed = run("screen", n2=bundle, n3={"prompt": TOWER})
    assert failed["node_type"] == "MnemoscopeScreenPrompt"
    assert "drops without: google (+" in failed["exception_message"]
