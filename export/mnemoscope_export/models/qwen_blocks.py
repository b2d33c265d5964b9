"""Qwen-Image's transformer in real numbers, and on a bank of noises."""

from __future__ import annotations

import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .base import Embeds
from .on_bank import OnBank, for_each_noise, for_each_prompt
from .packed import PackedFlow

__all__ = ["Attend", "FoldedQwenImage", "Places"]


class Places(nn.Module):
    """What tells attention where a token is, worked out once: in a graph places never change."""

    def __init__(self, image: Tensor, text: Tensor) -> None:
        """Keep rotations, as complex numbers. # [N, D / 2], [512, D / 2]"""
        super().__init__()
        for name, each in (("image", image), ("text", text)):
            self.register_buffer(name, torch.stack([each.real, each.imag]).float())

    def forward(self, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Cosines and sines. # [2, N, D / 2], [2, 512, D / 2]"""
        return self.get_buffer("image"), self.get_buffer("text")


class Attend:
    """diffusers' QwenDoubleStreamAttnProcessor2_0 without complex numbers and booleans."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_mask: Tensor,
        image_rotary_emb: tuple[Tensor, Tensor],
        **_: object,
    ) -> tuple[Tensor, Tensor]:
        """Attend to text and patches together. # [B, N, D], [B, 512, D]"""
        image, text = image_rotary_emb
        x, told, mask = hidden_states, encoder_hidden_states, encoder_hidden_states_mask

        def heads(projected: Tensor) -> Tensor:
            return projected.reshape(*projected.shape[:-1], attn.heads, -1)

        streams = (
            (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj, attn.norm_added_q,
             attn.norm_added_k, told, text),
            (attn.to_q, attn.to_k, attn.to_v, attn.norm_q, attn.norm_k, x, image),
        )  # fmt: skip
        parts = [
            (_turned(norm_q(heads(q(y))), at), _turned(norm_k(heads(k(y))), at), heads(v(y)))
            for q, k, v, norm_q, norm_k, y, at in streams
        ]
        query, key, value = (
            torch.cat(pair, dim=1).transpose(1, 2) for pair in zip(*parts, strict=True)
        )
        unread = (1 - mask.to(x.dtype)) * torch.finfo(x.dtype).min
        bias = torch.cat([unread, torch.zeros_like(x[..., 0])], dim=1)[:, None, None]
        found = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        joined = found.transpose(1, 2).flatten(2)
        count = told.shape[1]
        return attn.to_out[0](joined[:, count:]), attn.to_add_out(joined[:, :count])


def _turned(x: Tensor, at: Tensor) -> Tensor:
    """Pairs of numbers, turned as complex ones. # [B, S, heads, D], [2, S, D / 2]"""
    cosine, sine = at[:, :, None]
    real, imaginary = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    turned = real * cosine - imaginary * sine, real * sine + imaginary * cosine
    return torch.stack(turned, -1).flatten(-2).to(x.dtype)


class _Said(nn.Module):
    """What a layer says, whatever it is told."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value: Tensor
        self.register_buffer("value", value)

    def forward(self, _: object) -> Tensor:
        """The same for every sample. # [1, ...]"""
        return self.value


class FoldedQwenImage(OnBank):
    """A transformer at one timestep, on a bank of noises.

    Blocks are shifted, scaled and gated by what the timestep says, and by no prompt: layers that
    hold a third of the weights become constants.
    """

    def __init__(self, model: PackedFlow, noises: Tensor, timestep: float) -> None:
        """Fold a `traceable` model for `noises` [n, C, H, W] at `timestep`."""
        super().__init__()
        self.transformer: QwenImageTransformer2DModel = model.network
        self.unpacked, own = model.unpacked, self.transformer
        with torch.no_grad():
            at = model.told(timestep, noises[:1]) / 1000
            temb = own.time_text_embed(at, noises)
            self.patches: Tensor
            self.register_buffer("patches", own.img_in(model.packed(noises)))
            self.temb: Tensor
            self.register_buffer("temb", temb)
            for block in own.transformer_blocks:
                block.img_mod = _Said(block.img_mod(temb))
                block.txt_mod = _Said(block.txt_mod(temb))

    @property
    def network(self) -> QwenImageTransformer2DModel:
        """The transformer."""
        return self.transformer

    def forward(self, embeds: Embeds, noise_index: Tensor) -> Tensor:
        """See `OnBank`; of what it is told. # ([B, 512, D], [B, 512])"""
        (told, mask), count, own = embeds, noise_index.shape[0], self.transformer
        x = for_each_prompt(self.patches[noise_index], told.shape[0])
        text = for_each_noise(own.txt_in(own.txt_norm(told)), count)
        read, places = for_each_noise(mask, count), own.pos_embed()
        for block in own.transformer_blocks:
            text, x = block(
                hidden_states=x,
                encoder_hidden_states=text,
                encoder_hidden_states_mask=read,
                temb=self.temb,
                image_rotary_emb=places,
            )
        out: Tensor = self.unpacked(own.proj_out(own.norm_out(x, self.temb)))
        return out
