"""Models with random weights; also for environments with other versions of diffusers."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from mnemoscope import embedded


def scheduler(prediction_type: str) -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def text_config(tokenizer: CLIPTokenizer, **fields: int) -> CLIPTextConfig:
    """A small text encoder's."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **fields,
    )


def build_pipeline(
    prediction_type: str,
    seed: int = 0,
    *,
    unet: UNet2DConditionModel | None = None,
    text_layers: int = 2,
) -> StableDiffusionPipeline:
    """A Stable Diffusion with random weights: 8x8x4 latents, two levels of one resnet.

    One that predicts velocities has linear projections as Stable Diffusion 2 has them, but nothing
    between the ways down and up, and no attention on the way up. What is exported for something
    else than its layout has a smaller `unet` yet, and less of a text encoder.
    """
    velocities = prediction_type == "v_prediction"
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    text_encoder = CLIPTextModel(text_config(tokenizer, num_hidden_layers=text_layers))
    unet = unet or UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type=None if velocities else "UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "UpBlock2D" if velocities else "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=4,
        use_linear_projection=velocities,
    )
    vae = small_vae()
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_xl(seed: int = 0, depth: int = 1, *, small: bool = False) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL's layout with random weights: 8x8x4 latents, one resnet a level.

    Its lower level has transformers of `depth` blocks. A `small` one takes half as long to export:
    it attends on the way down alone, and its text encoders have a layer less.
    """
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    other = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer", pad_token="!")
    layers = 2 if small else 3
    config = text_config(tokenizer, num_hidden_layers=layers, projection_dim=24)
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type=None if small else "UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D" if small else "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, depth),
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )
    return StableDiffusionXLPipeline(
        vae=small_vae(),
        text_encoder=CLIPTextModel(config),
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        tokenizer_2=other,
        unet=unet,
        scheduler=scheduler("epsilon"),
        add_watermarker=False,
    )


def build_sd3(
    t5_tokenizer: T5Tokenizer | None = None, seed: int = 0, **schedule: object
) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3's layout with random weights: 8x8x4 latents, two joint blocks.

    The first is one of 3.5's, with a second attention. With a tokenizer of T5's there is a T5.
    """
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    other = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer", pad_token="!")
    config = text_config(tokenizer, num_hidden_layers=2, projection_dim=24)
    clips = [CLIPTextModelWithProjection(config) for _ in range(2)]
    t5 = None
    if t5_tokenizer is not None:
        t5 = small_t5(t5_tokenizer, 72)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=72,
        caption_projection_dim=32,
        pooled_projection_dim=48,
        pos_embed_max_size=6,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **schedule}),
        vae=None,
        text_encoder=clips[0],
        tokenizer=tokenizer,
        text_encoder_2=clips[1],
        tokenizer_2=other,
        text_encoder_3=t5,
        tokenizer_3=t5_tokenizer,
    )


def small_vae(**config: object) -> AutoencoderKL:
    """A VAE that halves pictures once, with random weights: four channels."""
    return AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, sample_size=16, **config)


def small_t5(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    """A T5 of one layer with random weights."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer) + 4, d_model=width, d_kv=8, d_ff=32, num_layers=1,
            num_heads=4, feed_forward_proj="gated-gelu",
        )
    )  # fmt: skip


def build_flux(t5_tokenizer: T5Tokenizer, *, schnell: bool = False, seed: int = 0) -> FluxPipeline:
    """FLUX.1's layout with random weights: a joint block and a single one."""
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=40,
        pooled_projection_dim=32,
        guidance_embeds=not schnell,
        axes_dims_rope=(4, 6, 6),
    )
    shift = {"shift": 1.0} if schnell else {"shift": 3.0, "use_dynamic_shifting": True}
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**shift),
        vae=None,
        text_encoder=CLIPTextModel(text_config(tokenizer, num_hidden_layers=1)),
        tokenizer=tokenizer,
        text_encoder_2=small_t5(t5_tokenizer, 40),
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    )


def build_pixart(
    t5_tokenizer: T5Tokenizer, seed: int = 0, out_channels: int = 8
) -> PixArtSigmaPipeline:
    """PixArt-Sigma's layout with random weights: two blocks, and a variance beside the noise."""
    torch.manual_seed(seed)
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        out_channels=out_channels,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        cross_attention_dim=32,
        caption_channels=40,
    )
    return PixArtSigmaPipeline(
        tokenizer=t5_tokenizer,
        text_encoder=small_t5(t5_tokenizer, 40),
        vae=None,
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


def build_qwen_image(tokenizer: Qwen2Tokenizer, seed: int = 0) -> QwenImagePipeline:
    """Qwen-Image's layout with random weights: two blocks."""
    torch.manual_seed(seed)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + 4, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
            "bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.pad_token_id,
        },
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
                       "out_hidden_size": 32},
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=1.0, use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192,
            shift_terminal=0.02,
        ),
        vae=None,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer,
        transformer=transformer,
    )  # fmt: skip


def build_sana(tokenizer: GemmaTokenizer, seed: int = 0) -> SanaPipeline:
    """Sana's layout with random weights: two blocks, and a Gemma of which one layer looks far."""
    torch.manual_seed(seed)
    config = Gemma2Config(
        vocab_size=len(tokenizer) + 4, hidden_size=24, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8,
        attn_logit_softcapping=2.0, sliding_window=16,
    )  # fmt: skip
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        num_cross_attention_heads=2, cross_attention_head_dim=16, cross_attention_dim=32,
        caption_channels=24, sample_size=4, qk_norm="rms_norm_across_heads",
    )  # fmt: skip
    return SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(config),
        vae=None,
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )
