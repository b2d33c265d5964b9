from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from attack_support import Fields, edit

from mnemoscope import embedded
from mnemoscope_runtime import Bundle, BundleError, IntegrityError, SchemaError, Screener
from mnemoscope_runtime.bundle import MANIFEST

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")


def listed(bundle: Path) -> list[str]:
    """The files of an untouched bundle."""
    names = list(Bundle.open(bundle).manifest.files)
    assert len(names) >= 6
    return names


def flipped(content: bytes, position: int, bits: int = 1) -> bytes:
    changed = bytearray(content)
    changed[position] ^= bits
    return bytes(changed)


# files that differ from the manifest


def test_flipped_byte(bundle: Path) -> None:
    dice = random.Random(0)
    for name in listed(bundle):
        content = (bundle / name).read_bytes()
        places = [0, len(content) - 1, *(dice.randrange(len(content)) for _ in range(6))]
        for place in places:
            (bundle / name).write_bytes(flipped(content, place, 1 << dice.randrange(8)))
            with pytest.raises(IntegrityError, match=r"differs .* \(sha256\)"):
                Bundle.open(bundle)
        (bundle / name).write_bytes(content)
    Bundle.open(bundle)


def test_flipped_byte_of_the_manifest(bundle: Path) -> None:
    original, content = Bundle.open(bundle), (bundle / MANIFEST).read_bytes()
    refused = 0
    places = range(0, len(content), 3)
    for place in places:
        (bundle / MANIFEST).write_bytes(flipped(content, place))
        try:
            opened = Bundle.open(bundle)
        except BundleError:
            refused += 1
            continue
        assert opened.id != original.id
        assert opened.manifest.files == original.manifest.files
        assert opened.manifest.graphs == original.manifest.graphs
        assert opened.manifest.noise_bank.file == original.manifest.noise_bank.file
    assert refused > len(places) / 2


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_truncated_file(bundle: Path, share: float) -> None:
    for name in listed(bundle):
        content = (bundle / name).read_bytes()
        (bundle / name).write_bytes(content[: int(share * (len(content) - 1))])
        with pytest.raises(IntegrityError, match="bytes, the manifest promises"):
            Bundle.open(bundle)
        (bundle / name).write_bytes(content)
    Bundle.open(bundle)


def test_truncated_manifest(bundle: Path) -> None:
    content = (bundle / MANIFEST).read_bytes().rstrip()
    for length in range(0, len(content), 7):
        (bundle / MANIFEST).write_bytes(content[:length])
        with pytest.raises(SchemaError):
            Bundle.open(bundle)


def test_extended_file(bundle: Path) -> None:
    for name in listed(bundle):
        content = (bundle / name).read_bytes()
        (bundle / name).write_bytes(content + b"\0")
        with pytest.raises(IntegrityError, match="bytes, the manifest promises"):
            Bundle.open(bundle)
        (bundle / name).write_bytes(content)
    Bundle.open(bundle)


def test_missing_file(bundle: Path) -> None:
    for name in listed(bundle):
        (bundle / name).rename(bundle / "aside")
        with pytest.raises(IntegrityError, match="is missing"):
            Bundle.open(bundle)
        (bundle / "aside").rename(bundle / name)
    (bundle / MANIFEST).unlink()
    with pytest.raises(SchemaError, match=r"has no manifest\.json"):
        Bundle.open(bundle)


def test_directory_in_place_of_a_file(bundle: Path) -> None:
    (bundle / "model.weights").unlink()
    (bundle / "model.weights").mkdir()
    with pytest.raises(IntegrityError):
        Bundle.open(bundle)


# links and names


@posix_only
def test_link_outside(bundle: Path, tmp_path: Path) -> None:
    for name in listed(bundle):
        (bundle / name).rename(tmp_path / "outside")  # the very bytes that the manifest promises
        (bundle / name).symlink_to(tmp_path / "outside")
        with pytest.raises(IntegrityError, match="link that leads outside"):
            Bundle.open(bundle)
        (bundle / name).unlink()
        (tmp_path / "outside").rename(bundle / name)
    Bundle.open(bundle)


@posix_only
def test_folder_that_is_a_link_outside(bundle: Path, tmp_path: Path) -> None:
    (bundle / "tokenizer").rename(tmp_path / "outside")
    (bundle / "tokenizer").symlink_to("../outside", target_is_directory=True)
    with pytest.raises(IntegrityError, match="link that leads outside"):
        Bundle.open(bundle)


@posix_only
@pytest.mark.parametrize("target", ["nowhere", "model.weights", "../nowhere"])
def test_link_to_nowhere_or_itself(bundle: Path, target: str) -> None:
    (bundle / "model.weights").unlink()
    (bundle / "model.weights").symlink_to(target)
    with pytest.raises(IntegrityError, match="is missing"):
        Bundle.open(bundle)


@posix_only
@pytest.mark.timeout(20)
@pytest.mark.parametrize("target", ["/dev/zero", MANIFEST])
def test_manifest_that_is_a_link_without_end(bundle: Path, target: str) -> None:
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).symlink_to(target)
    with pytest.raises(SchemaError):
        Bundle.open(bundle)


@posix_only
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [MANIFEST, "model.weights"])
def test_pipe(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "name", ["../outside", "tokenizer/../../outside", "/outside", "..\\outside", "C:outside"]
)
@pytest.mark.parametrize("use", ["files", "graphs", "noise_bank"])
def test_name_outside(bundle: Path, name: str, use: str) -> None:
    content = (bundle / "noise_bank.npy").read_bytes()
    (bundle.parent / "outside").write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    name = str(bundle.parent / "outside") if name == "/outside" else name

    def change(fields: Fields) -> None:
        fields["files"][name] = record
        if use == "graphs":
            fields["graphs"]["screen"] = name
        if use == "noise_bank":
            fields["noise_bank"]["file"] = name

    edit(bundle, change)
    with pytest.raises(IntegrityError, match="leads outside the bundle"):
        Bundle.open(bundle)


# manifests


def test_newer_schema(bundle: Path) -> None:
    edit(bundle, lambda fields: fields.__setitem__("schema", fields["schema"] + 1))
    with pytest.raises(SchemaError, match="Upgrade mnemoscope"):
        Bundle.open(bundle)


def test_manifest_of_gigabytes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (bundle / MANIFEST).open("r+b") as file:
        file.truncate(8 * 2**30)  # sparse: it takes no room on the disk
    monkeypatch.setattr("os.fdopen", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(SchemaError, match="has more than 67,108,864 bytes"):
        Bundle.open(bundle)


def test_manifest_nested_without_end(bundle: Path) -> None:
    content = (bundle / MANIFEST).read_bytes()
    deep = b'"tools": ' + b'{"a": ' * 10**6 + b"{}" + b"}" * 10**6
    (bundle / MANIFEST).write_bytes(content.replace(b'"tools": {', deep + b', "x": {'))
    with pytest.raises(SchemaError, match="is damaged"):
        Bundle.open(bundle)


@pytest.mark.parametrize("size", [-1, 0, 2**40, 2**70])
def test_file_of_another_size(bundle: Path, size: int) -> None:
    edit(bundle, lambda fields: fields["files"]["screen.onnx"].__setitem__("bytes", size))
    with pytest.raises(BundleError):
        Bundle.open(bundle)


def test_file_of_gigabytes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (bundle / MANIFEST).read_bytes()
    for name in listed(bundle):
        with (bundle / name).open("r+b") as file:
            file.truncate(8 * 2**30)
    read = {MANIFEST: content}
    monkeypatch.setattr("mnemoscope_runtime.bundle.read_file", lambda path, _: read[path.name])
    with pytest.raises(IntegrityError, match="bytes, the manifest promises"):
        Bundle.open(bundle)


def test_manifest_without_the_tokenizer(bundle: Path) -> None:
    edit(bundle, lambda fields: fields["files"].pop("tokenizer/tokenizer.json"))
    with pytest.raises(IntegrityError, match=r"has no file 'tokenizer/tokenizer\.json'"):
        Screener.open(bundle)


@pytest.mark.parametrize("graph", ["screen", "step", "text_encoder"])
def test_manifest_without_a_graph(bundle: Path, graph: str) -> None:
    edit(bundle, lambda fields: fields["graphs"].pop(graph))
    with pytest.raises(IntegrityError, match=f"has no graph {graph}"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("scheduler", {"steps_offset": 2**63}),
        ("scheduler", {"steps_offset": -(2**63)}),
        ("noise_bank", {"seed": 10**400}),
        ("flops", {"screen": 0}),
        ("flops", {"screen": 10**400}),
        ("flops", {"text_encoder": 10**18}),
    ],
)
def test_numbers_out_of_range(tmp_path: Path, place: str, value: dict[str, int]) -> None:
    copy = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    edit(copy, lambda fields: fields[place].update(value))
    with pytest.raises((SchemaError, IntegrityError), match=r"manifest\.json (is|counts)"):
        Bundle.open(copy)


def test_a_manifest_that_says_something_twice(tmp_path: Path) -> None:
    copy = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    content = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text(content.replace('"guidance"', '"opset": 1, "guidance"'))
    with pytest.raises(SchemaError, match="it says 'opset' twice"):
        Bundle.open(copy)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["step.onnx", "model.weights"])
def test_a_file_that_changes_after_opening(tmp_path: Path, backend: str, name: str) -> None:
    copy = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    with Screener.open(copy, backend=backend, graphs=("text_encoder",)) as screener:
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(flipped(content, len(content) // 2))
        with pytest.raises(IntegrityError, match=r"differs .* \(sha256\)"):
            screener.prepare("step")
