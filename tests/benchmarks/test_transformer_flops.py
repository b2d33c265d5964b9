"""Arithmetic of transformers, against what paper and pencil say."""

from __future__ import annotations

from types import SimpleNamespace

from diffusers import DDIMScheduler, PixArtTransformer2DModel
from transformers import T5Config, T5EncoderModel

from benchmarks.transformer_flops import count
from mnemoscope_export.models.pixart import PixArtSigma

WIDTH, TOLD, LENGTH, SIDE, BLOCKS = 32, 40, 300, 8, 3


def small() -> PixArtSigma:
    transformer = PixArtTransformer2DModel(
        sample_size=SIDE, num_layers=BLOCKS, attention_head_dim=8, num_attention_heads=4,
        cross_attention_dim=WIDTH, caption_channels=TOLD,
    )  # fmt: skip
    encoder = T5EncoderModel(
        T5Config(vocab_size=64, d_model=TOLD, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
    )
    reads = SimpleNamespace(model_max_length=LENGTH)
    return PixArtSigma("", reads, encoder, transformer, DDIMScheduler())  # type: ignore[arg-type]


def product(rows: int, inner: int, columns: int) -> int:
    return 2 * rows * inner * columns


def test_one_pass_is_that_of_the_paper_and_so_is_what_folds() -> None:
    patches = (SIDE // 2) ** 2
    itself = 4 * product(patches, WIDTH, WIDTH) + 2 * product(patches, WIDTH, patches)
    text = (
        2 * product(patches, WIDTH, WIDTH)
        + 2 * product(LENGTH, WIDTH, WIDTH)
        + 2 * product(patches, WIDTH, LENGTH)
    )
    layers = 2 * product(patches, WIDTH, 4 * WIDTH)
    embedded = product(patches, 4 * 2 * 2, WIDTH)
    time = product(1, 256, WIDTH) + product(1, WIDTH, WIDTH) + product(1, WIDTH, 6 * WIDTH)
    caption = product(LENGTH, TOLD, WIDTH) + product(LENGTH, WIDTH, WIDTH)
    out = product(patches, WIDTH, 8 * 2 * 2)
    found = count(small)
    assert found.step == BLOCKS * (itself + text + layers) + embedded + time + caption + out
    assert found.step - found.screen == itself + embedded + time
    inner = 4 * 8
    encoder = 4 * product(LENGTH, TOLD, inner) + 2 * product(LENGTH, inner, LENGTH)
    assert found.encoders == encoder + 2 * product(LENGTH, TOLD, 48)
