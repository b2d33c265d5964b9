"""What draws and compares, on the embedded model, against diffusers' own pipeline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mnemoscope import BundleError, InputError, embedded
from mnemoscope.audit.confirming import Artist
from mnemoscope.drawing.generate import generate
from mnemoscope_runtime import Bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def artist() -> Artist:
    return Artist.load(steps=4)


def test_drawings_are_those_of_generate(artist: Artist) -> None:
    prompts = [row.prompt for row in embedded.read_prompts("memorized")[:2]]
    for prompt, drawn in zip(prompts, artist.draw(prompts, [0, 3]), strict=True):
        expected = generate(prompt, seeds=[0, 3], steps=4)
        for one, other in zip(drawn, expected, strict=True):
            difference = np.asarray(one, np.int16) - np.asarray(other, np.int16)
            assert np.abs(difference).max() <= 1  # rounding, which depends on the batch


def test_descriptions_are_as_it_is_and_as_rendered(artist: Artist) -> None:
    pictures = embedded.memorized_pictures()[:3]
    found = artist.describe(pictures).astype(np.float32)
    plain = artist.descriptor.describe(pictures)
    rendered = artist.descriptor.describe(artist.painter.rendered(pictures))
    # float16 has 11 bits: each number is off by 2**-12 of itself at most, and so is the length
    assert np.linalg.norm(found[:, 0] - plain, axis=1).max() < 2**-11
    assert np.linalg.norm(found[:, 1] - rendered, axis=1).max() < 2**-11


def test_it_belongs_to_the_bundle_of_its_model(artist: Artist) -> None:
    record = Bundle.open(embedded.BUNDLE).manifest.model
    artist.require(record)
    with pytest.raises(BundleError, match="whose weights are not those of"):
        artist.require(replace(record, weights_sha256="0" * 64))
    with pytest.raises(BundleError, match="negative prompt"):
        artist.require(replace(record, negative="blurry"))


def test_it_is_known_by_all_that_matters(artist: Artist) -> None:
    other = Artist.load(steps=4)
    assert artist.identity() == other.identity()
    assert replace(artist, guidance=5.0).identity() != artist.identity()
    bias = next(iter(other.painter.vae.parameters())).data
    bias += 1e-3
    assert other.identity() != artist.identity()


def test_what_cannot_be_loaded() -> None:
    with pytest.raises(InputError, match="1 to 999 steps"):
        Artist.load(steps=0)
    with pytest.raises(InputError, match="neither a known name"):
        Artist.load(descriptor="missing.onnx")
