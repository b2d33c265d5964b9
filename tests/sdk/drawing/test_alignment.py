"""CLIP scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)

from mnemoscope import InputError, embedded
from mnemoscope.drawing.alignment import load_alignment

pytestmark = pytest.mark.slow


def test_the_embedded_one_knows_which_caption_belongs_to_which_picture() -> None:
    pictures = embedded.memorized_pictures()
    captions = [each.prompt for each in embedded.read_prompts("memorized")]
    alignment = load_alignment()
    own = alignment.score(captions, pictures)
    others = alignment.score(captions, [*pictures[1:], pictures[0]])
    assert own.shape == (100,)
    assert own.mean() > 0.7
    assert abs(others.mean()) < 0.1
    assert (own > others).mean() > 0.9


def test_a_clip_of_transformers(tmp_path: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL, subfolder="tokenizer")
    tiny = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config={
            **tiny,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id,
        },
        vision_config={**tiny, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    CLIPModel(config).save_pretrained(tmp_path)
    CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(tmp_path)
    alignment = load_alignment(tmp_path)
    images = [Image.new("RGB", (40, 40), each) for each in ("red", "blue")] * 9
    found = alignment.score(["a red cat"] * 18, images)
    assert found.shape == (18,)
    assert (np.abs(found) <= 1).all()
    assert found[0] == pytest.approx(found[16], abs=1e-5) != pytest.approx(found[1], abs=1e-5)


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no CLIP"):
        load_alignment(tmp_path)
    with pytest.raises(InputError, match=r"is no CLIP: there is no such directory"):
        load_alignment(tmp_path / "none")
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE.*hf download nobody/clip --local-dir"):
        load_alignment("nobody/clip")
