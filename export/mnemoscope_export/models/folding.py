"""The screening UNet: everything that does not depend on the prompt is computed at export.

Screening always sees the same noises at the same timestep. So the time embedding becomes part of
the convolutions' biases, and what comes before the first cross-attention (conv_in, the first
resnet, its self-attention, and the query) becomes constants, one for each noise of the bank.

In Stable Diffusion XL the time embedding depends on the prompt, through the pooled embedding, so
nothing but the first convolution is left to fold: there the noises are only fixed (`FixedNoises`).
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F

from mnemoscope_runtime.errors import ExportError

from ..configs import check_unet
from .on_bank import OnBank, for_each_noise, for_each_prompt, shared_copy

__all__ = ["FoldedUNet", "without_batch_limit"]


class _Upsample(nn.Module):
    """Nearest-neighbour upsampling and a convolution.

    diffusers' own module branches on the batch size (>= 64), which limits an exported graph. Values
    are repeated in float32 where they are bfloat16, which ONNX Runtime resizes on no device.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        dtype = x.dtype
        if dtype == torch.bfloat16:
            x = x.float()
        if output_size is None:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        else:
            x = F.interpolate(x, size=output_size, mode="nearest")
        out: Tensor = self.conv(x.to(dtype))
        return out


def without_batch_limit(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same UNet (weights shared) with upsampling that does not look at the batch size."""
    unet = shared_copy(unet)
    for block in unet.up_blocks:
        for i, upsampler in enumerate(block.upsamplers or ()):
            plain = isinstance(upsampler, Upsample2D) and upsampler.use_conv
            if not plain or upsampler.use_conv_transpose or upsampler.norm is not None:
                raise ExportError(
                    f"{type(upsampler).__name__} with these options is not supported."
                )
            block.upsamplers[i] = _Upsample(upsampler.conv)
    return unet


class FoldedUNet(OnBank):
    """A UNet at one timestep, on a bank of noises."""

    def __init__(self, unet: UNet2DConditionModel, noises: Tensor, timestep: int) -> None:
        """Fold `unet` (left as it is) for `noises` [n, C, H, W] at `timestep`.

        Raises:
            ExportError: the UNet is not laid out as Stable Diffusion 1.x or 2.x.
        """
        super().__init__()
        check_unet(unet.config, "The model", xl=False)
        unet = without_batch_limit(unet)
        with torch.no_grad():
            time = unet.time_proj(torch.tensor([timestep], device=noises.device)).to(noises.dtype)
            _fold_time(unet, unet.time_embedding(time))
            block = unet.down_blocks[0]
            h0 = unet.conv_in(noises)
            h1 = block.resnets[0](h0, None)
            attention = block.attentions[0]
            tokens, _ = attention._operate_on_continuous_inputs(h1)
            first = attention.transformer_blocks[0]
            tokens = tokens + first.attn1(first.norm1(tokens))
            query = first.attn2.to_q(first.norm2(tokens))
        self.unet = unet
        self.h0: Tensor
        self.h1: Tensor
        self.tokens: Tensor
        self.query: Tensor
        for name, value in (("h0", h0), ("h1", h1), ("tokens", tokens), ("query", query)):
            self.register_buffer(name, value)

    @property
    def network(self) -> UNet2DConditionModel:
        """The UNet, its time embedding folded."""
        return self.unet

    def forward(self, embeds: tuple[Tensor, ...], noise_index: Tensor) -> Tensor:
        """See `OnBank`; of what it is told there is only prompt_embeds. # ([B, L, D],)"""
        batch = embeds[0].shape[0]

        def pick(bank: Tensor) -> Tensor:
            return for_each_prompt(bank[noise_index], batch)

        context = for_each_noise(embeds[0], noise_index.shape[0])
        unet = self.unet
        h1 = pick(self.h1)
        x = self._first_attention(h1, pick(self.tokens), pick(self.query), context)
        skips = [pick(self.h0), x]

        block = unet.down_blocks[0]
        for resnet, attention in zip(block.resnets[1:], block.attentions[1:], strict=True):
            x = attention(resnet(x, None), encoder_hidden_states=context, return_dict=False)[0]
            skips.append(x)
        for downsampler in block.downsamplers or ():
            x = downsampler(x)
            skips.append(x)
        for block in unet.down_blocks[1:]:
            x, states = _call(block, context, hidden_states=x)
            skips += states
        if unet.mid_block is not None:
            x = _call(unet.mid_block, context, hidden_states=x)
        for block in unet.up_blocks:
            count = len(block.resnets)
            states, skips = tuple(skips[-count:]), skips[:-count]
            x = _call(block, context, hidden_states=x, res_hidden_states_tuple=states)
        out: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
        return out

    def _first_attention(
        self, h1: Tensor, tokens: Tensor, query: Tensor, context: Tensor
    ) -> Tensor:
        """The first cross-attention from its precomputed query on, [B * m, C, H, W]."""
        attention = self.unet.down_blocks[0].attentions[0]
        first = attention.transformer_blocks[0]
        cross = first.attn2

        def heads(x: Tensor) -> Tensor:  # [N, L, heads * d] -> [N, heads, L, d]
            return x.reshape(*x.shape[:2], cross.heads, -1).transpose(1, 2)

        attended = F.scaled_dot_product_attention(
            heads(query), heads(cross.to_k(context)), heads(cross.to_v(context))
        )
        tokens = tokens + cross.to_out[0](attended.transpose(1, 2).flatten(2))
        tokens = tokens + first.ff(first.norm3(tokens))
        for block in attention.transformer_blocks[1:]:
            tokens = block(tokens, encoder_hidden_states=context)
        batch, _, height, width = h1.shape
        out: Tensor = attention._get_output_for_continuous_inputs(
            tokens, h1, batch, height, width, tokens.shape[-1]
        )
        return out


def _fold_time(unet: UNet2DConditionModel, temb: Tensor) -> None:
    """conv1(x) + time_emb_proj(silu(temb)) -> conv1'(x), whose bias holds the sum."""
    for resnet in unet.modules():
        if isinstance(resnet, ResnetBlock2D):
            assert resnet.time_emb_proj is not None
            shift = resnet.time_emb_proj(resnet.nonlinearity(temb))[0]
            resnet.conv1.bias = nn.Parameter(resnet.conv1.bias + shift, requires_grad=False)
            resnet.time_emb_proj = None


def _call(block: nn.Module, context: Tensor, **inputs: object) -> Tensor:
    """Run a block without time embedding, with the prompt if it attends to one."""
    if getattr(block, "has_cross_attention", False):
        inputs["encoder_hidden_states"] = context
    out: Tensor = block(temb=None, **inputs)
    return out
