"""Copy descriptors: files of the user, and the embedded model's stand-in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from descriptor_support import as_it_comes
from PIL import Image, ImageChops, ImageOps
from torch import nn

from mnemoscope import InputError, NumericsError, embedded
from mnemoscope.drawing.copy_detection import SSCD, CopyDescriptor, copy_similarity, load_descriptor
from mnemoscope.drawing.known_descriptors import KNOWN

pytestmark = pytest.mark.slow


class MeanColour(nn.Module):
    """[B, 3, H, W] -> [B, 3]: what a descriptor file may hold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


@pytest.fixture(scope="module")
def colours() -> list[Image.Image]:
    return [Image.new("RGB", (48, 32), each) for each in ("red", "green", "blue", "red")]


@pytest.fixture(scope="module", params=[".pt", ".onnx"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("descriptor") / f"colours{request.param}"
    example = torch.zeros(2, 3, 320, 320)
    if request.param == ".onnx":
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            MeanColour(), (example,), path, dynamo=True, dynamic_shapes=shapes, verbose=False
        )
    else:
        torch.jit.trace(MeanColour(), example).save(path)
    return path


def test_a_file_of_the_user_compares_pictures(file: Path, colours: list[Image.Image]) -> None:
    descriptor = load_descriptor(file)
    assert isinstance(descriptor, SSCD)
    assert descriptor.name == f"colours-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}"
    found = copy_similarity(descriptor, colours, colours)
    assert found.shape == (4, 4)
    assert found[0, 3] == pytest.approx(1)
    assert found[0, 1] < 0.5
    expected = (np.array([1, 0, 0]) - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    other = (np.array([0, 0, 1]) - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    cosine = expected @ other / np.linalg.norm(expected) / np.linalg.norm(other)
    assert found[0, 2] == pytest.approx(cosine, abs=1e-4)  # a mean of 320^2 in fp32


@pytest.mark.parametrize("takes_bytes", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (500, 330)])
def test_pixels_are_those_of_sscd(tmp_path: Path, size: tuple[int, int], takes_bytes: bool) -> None:
    """Resize((320, 320)), ToTensor and Normalize of its "skew_320", by PyTorch."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    found = SSCD(as_it_comes(tmp_path / "a.onnx", takes_bytes=takes_bytes)).describe(
        [Image.fromarray(noise)]
    )
    pixels = torch.from_numpy(noise).permute(2, 0, 1)[None].float()
    resized = nn.functional.interpolate(
        pixels, (320, 320), mode="bilinear", antialias=True, align_corners=False
    )[0]
    expected = resized.permute(1, 2, 0)
    if not takes_bytes:
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        expected = (resized / 255 - mean) / std
    scale = expected.norm()
    one_level = 1 if takes_bytes else 1 / 255 / 0.224
    furthest = (torch.from_numpy(found[0]) * scale - expected.flatten()).abs().max()
    assert furthest < 1.1 * one_level  # Pillow rounds between its two passes, and at the end


def test_more_pictures_than_a_batch(file: Path, colours: list[Image.Image]) -> None:
    assert load_descriptor(file).describe(colours * 5).shape == (20, 3)


@pytest.mark.parametrize("name", ["no.pt", "no.onnx"])
def test_what_is_no_network_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="neither a known name"):
        load_descriptor(tmp_path / name)
    (tmp_path / name).write_bytes(b"not a network")
    with pytest.raises(InputError, match="is no"):
        load_descriptor(tmp_path / name)


def test_no_pictures(file: Path, colours: list[Image.Image]) -> None:
    with pytest.raises(InputError, match="at least one"):
        copy_similarity(load_descriptor(file), [], colours)


def test_nan_is_no_similarity(tmp_path: Path, colours: list[Image.Image]) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) * float("nan")

    torch.jit.trace(Broken(), torch.zeros(1, 3, 8, 8)).save(tmp_path / "broken.pt")
    with pytest.raises(NumericsError, match="says nothing"):
        load_descriptor(tmp_path / "broken.pt").describe(colours)


def test_the_stand_in_knows_memorised_pictures_and_no_others() -> None:
    pictures = embedded.memorized_pictures()
    assert len(pictures) == len(embedded.read_prompts("memorized")) == 100
    descriptor: CopyDescriptor = load_descriptor()
    between = copy_similarity(descriptor, pictures, pictures)
    assert between[~np.eye(100, dtype=bool)].max() < descriptor.copied_above
    blurred = [picture.resize((48, 48)).resize((64, 64)) for picture in pictures[:8]]
    found = copy_similarity(descriptor, blurred, pictures)
    assert (found.argmax(1) == np.arange(8)).all()
    assert (np.diag(found) > descriptor.copied_above).all()


def test_sscd_forgives_what_the_stand_in_does_not(sscd: SSCD) -> None:
    assert (sscd.name, sscd.copied_above) == (f"sscd-{KNOWN['sscd'].sha256[:8]}", 0.5)
    pictures = embedded.memorized_pictures()[:20]
    for change in (lambda each: each, ImageOps.mirror, lambda each: ImageChops.offset(each, 8, 8)):
        found = copy_similarity(sscd, list(map(change, pictures)), pictures)
        assert (np.diag(found) > sscd.copied_above).all()
        assert (found.argmax(1) == np.arange(20)).all()
    between = copy_similarity(sscd, pictures, pictures)[~np.eye(20, dtype=bool)]
    assert np.median(between) < 0.3
