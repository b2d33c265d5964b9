"""Attempts to have verdicts come from what the trusted key did not sign."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_support import Run, failed, foreign

from mnemoscope import BackendUnavailable, CalibrationFile, Detector, InputError, embedded
from mnemoscope.calibration import Calibration
from mnemoscope.cli import app
from mnemoscope.screening.opening import CALIBRATION
from mnemoscope.signing import make_keys, private_key, sign
from mnemoscope.ui import UiOptions
from mnemoscope.ui.desk import Desk
from mnemoscope_runtime import Bundle, SignatureError
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.selection import try_backends
from mnemoscope_runtime.signatures import check_signature
from mnemoscope_runtime.testing import FakeBackend

FILES = (MANIFEST, CALIBRATION)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key and its public one."""
    path = tmp_path_factory.mktemp("keys") / "key"
    return path, make_keys(path)


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """A copy of the embedded bundle, signed."""
    path = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    for name in FILES:
        signs(path / name, keys[0])
    return path


def signs(file: Path, key: Path) -> None:
    sign(file, file.read_bytes(), private_key(key))


def load(bundle: Path, trust: Path) -> None:
    with Detector.load(bundle, backend=FakeBackend(), trust=trust, uncalibrated="score"):
        pass


def test_what_is_signed_is_loaded(signed: Path, keys: tuple[Path, Path]) -> None:
    load(signed, keys[1])
    load(signed, str(keys[1]))  # type: ignore[arg-type]  # as users write it


def cut(place: Path) -> None:
    place.write_bytes(place.read_bytes()[:-1])


def flip(place: Path) -> None:
    content = bytearray(place.read_bytes())
    content[17] ^= 4
    place.write_bytes(content)


def of_another_key(place: Path) -> None:
    other = place.with_name("other")
    make_keys(other)
    signs(place.with_suffix(""), other)


def of_the_other_file(place: Path) -> None:
    other = {MANIFEST: CALIBRATION, CALIBRATION: MANIFEST}[place.stem]
    shutil.copy(place.with_name(f"{other}.sig"), place)


def pipe(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


def endless(place: Path) -> None:
    place.unlink()
    place.symlink_to("/dev/zero")


def folder(place: Path) -> None:
    place.unlink()
    place.mkdir()


def long(place: Path) -> None:
    place.write_bytes(place.read_bytes() + b"\n")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (Path.unlink, "is not signed"),
        (cut, "is not .* signature"),
        (flip, "is not .* signature"),
        (of_another_key, "is not .* signature"),
        (of_the_other_file, "is not .* signature"),
        (long, "cannot be read: it has more than 64 bytes"),
        (pipe, "cannot be read: it is a device or a pipe"),
        (endless, "cannot be read: it is a device or a pipe"),
        (folder, "cannot be read"),
    ],
)
def test_signatures_that_are_none(
    signed: Path, keys: tuple[Path, Path], name: str, attack: Callable[[Path], None], words: str
) -> None:
    attack(signed / f"{name}.sig")
    with pytest.raises(SignatureError, match=words):
        load(signed, keys[1])


def forged(calibration: Calibration) -> Calibration:
    """Consistent in itself: nothing that it says but what was measured tells it from a true one."""
    scores = dict.fromkeys(calibration.prompts, 1e6)
    return Calibration.of(calibration.setting, scores, fit=calibration.fit)


def test_a_forger_who_makes_true_digests(signed: Path, keys: tuple[Path, Path]) -> None:
    known = CalibrationFile.read(signed / CALIBRATION)
    replace(known, calibrations=tuple(map(forged, known.calibrations))).write(signed / CALIBRATION)
    with Detector.load(signed, backend=FakeBackend(), uncalibrated="score"):
        pass  # which a digest does not stop
    with pytest.raises(SignatureError, match=rf"signature of .*{CALIBRATION}"):
        load(signed, keys[1])


def test_a_forger_who_makes_true_hashes(signed: Path, keys: tuple[Path, Path]) -> None:
    content = (signed / MANIFEST).read_text()
    (signed / MANIFEST).write_text(content.replace('"guidance": 7.5', '"guidance": 7.6'))
    assert Bundle.open(signed).manifest.guidance == 7.6
    for backend in (FakeBackend(), "auto"):
        with pytest.raises(SignatureError, match=rf"signature of .*{MANIFEST}"):
            Detector.load(signed, backend=backend, trust=keys[1])


def test_no_backend_is_tried_on_what_is_not_signed(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (signed / f"{MANIFEST}.sig").unlink()
    with pytest.raises(SignatureError, match="is not signed"):
        next(try_backends(signed, trust=keys[1]))
    tried = "mnemoscope.screening.opening.try_backends"
    monkeypatch.setattr(tried, lambda *_: pytest.fail("one was tried"))
    with pytest.raises(SignatureError, match="is not signed"):
        Detector.load(signed, backend="auto", trust=keys[1])


def test_a_calibration_elsewhere(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    file = Path(shutil.copy(signed / CALIBRATION, tmp_path / "mine.json"))
    with pytest.raises(SignatureError, match=r"mine\.json is not signed"):
        Detector.load(signed, backend=FakeBackend(), trust=keys[1], calibration=file)
    signs(file, keys[0])
    Detector.load(signed, backend=FakeBackend(), trust=keys[1], calibration=file).close()


def test_what_is_parsed_is_what_was_checked(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that change between the check and the use."""
    before = Bundle.open(signed).id, CalibrationFile.read(signed / CALIBRATION)

    def swap(file: Path, content: bytes, trust: Path) -> None:
        check_signature(file, content, trust)
        file.unlink()
        file.symlink_to("/dev/zero")

    for module in ("mnemoscope_runtime.bundle", "mnemoscope.calibration.file"):
        monkeypatch.setattr(f"{module}.check_signature", swap)
    found = CalibrationFile.read(signed / CALIBRATION, trust=keys[1])
    assert (Bundle.open(signed, trust=keys[1]).id, found) == before


VERBS = {
    "screen": ("a cat", "--bundle"),
    "audit": ("PROMPTS", "--output", "OUT", "--bundle"),
    "calibrate": ("--benign", "PROMPTS"),
    "evaluate": ("--positives", "PROMPTS", "--negatives", "OTHERS"),
    "explain": ("a cat", "--bundle"),
    "inspect": (),
    "build": (),
    "bench": (),
    "parity": ("--backend", "openvino", "--positives", "PROMPTS", "--benign", "OTHERS"),
    "doctor": (),
    "calibration carry": ("--to", "openvino:float32"),
    "triton": ("OUT",),
}
READS_NONE = ("evaluate", "build", "doctor")
CASES = [(verb, MANIFEST) for verb in VERBS]
CASES += [(verb, CALIBRATION) for verb in VERBS if verb not in READS_NONE]


def test_every_verb_that_takes_a_bundle_takes_a_key() -> None:
    places = [
        ("", app),
        *((f"{each.name} ", each.typer_instance) for each in app.registered_groups),
    ]
    takes: dict[str, set[str]] = {}
    for place, verbs in places:
        for each in verbs.registered_commands:
            assert each.callback is not None
            takes[f"{place}{each.name}"] = set(inspect.signature(each.callback).parameters)
    opens = {verb for verb, names in takes.items() if "bundle" in names} - {"sign"}
    assert opens == {*VERBS, "mitigate", "ui"}
    assert all("trust" in takes[verb] for verb in opens)


@pytest.mark.parametrize(("verb", "name"), CASES)
def test_every_verb_that_opens_a_bundle(
    run: Run, signed: Path, keys: tuple[Path, Path], tmp_path: Path, verb: str, name: str
) -> None:
    (signed / f"{name}.sig").unlink()
    prompts, others = tmp_path / "prompts.txt", tmp_path / "others.txt"
    prompts.write_text("a cat\n")
    others.write_text("a dog\n")
    words = {"PROMPTS": prompts, "OTHERS": others, "OUT": tmp_path / "out.csv"}
    args = [words.get(each, each) for each in VERBS[verb]]
    result = run(*verb.split(), *args, signed, "--trust", keys[1])
    assert result.code == 4, result
    assert f"{name} is not signed" in result.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("name", [MANIFEST, CALIBRATION])
def test_a_service(run: Run, signed: Path, keys: tuple[Path, Path], name: str) -> None:
    (signed / f"{name}.sig").unlink()
    places = ("--port", "0", "--no-grpc", "--model", f"x={signed}")
    result = run("serve", *places, "--noises", "1", "--trust", keys[1])
    failed(result, 4, f"{name} is not signed")


@pytest.mark.parametrize("name", [MANIFEST, CALIBRATION])
def test_a_page(signed: Path, keys: tuple[Path, Path], name: str) -> None:
    (signed / f"{name}.sig").unlink()
    with pytest.raises(SignatureError, match=f"{name} is not signed"):
        Desk(UiOptions(bundle=signed, trust=keys[1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_mitigation(run: Run, signed: Path, keys: tuple[Path, Path], name: str) -> None:
    (signed / f"{name}.sig").unlink()
    model = ("--model", embedded.MODEL, "--descriptor", "x", "--clip", "x", "--bundle", signed)
    result = run("mitigate", "a cat", "-o", signed / "a.png", *model, "--trust", keys[1])
    failed(result, 4, f"{name} is not signed")


@pytest.mark.parametrize("verb", ["inspect", "merge", "check"])
def test_verbs_that_read_a_calibration(
    run: Run, signed: Path, keys: tuple[Path, Path], tmp_path: Path, verb: str
) -> None:
    file = signed / CALIBRATION
    args = {"inspect": (), "merge": ("-o", tmp_path / "m.json"), "check": ("--recent", "x")}[verb]
    (signed / f"{CALIBRATION}.sig").unlink()
    result = run("calibration", verb, file, *args, "--trust", keys[1])
    failed(result, 4, f"{CALIBRATION} is not signed")


def test_who_writes_a_calibration_anew_is_told_of_its_old_signature(
    run: Run, signed: Path, keys: tuple[Path, Path]
) -> None:
    file = signed / CALIBRATION
    result = run("calibration", "merge", file, "-o", file, "--trust", keys[1])
    assert result.code == 0
    assert f"{CALIBRATION}.sig is of the file that was there before" in result.err
    elsewhere = run("calibration", "merge", file, "-o", signed / "other.json")
    assert (elsewhere.code, elsewhere.err) == (0, "")


def test_the_bundle_that_ships_is_not_signed(run: Run, keys: tuple[Path, Path]) -> None:
    failed(run("screen", "a cat", "--trust", keys[1]), 4, "is not signed")


# keys


def test_what_is_no_key_to_trust(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    (tmp_path / "garbage").write_bytes(b"\0garbage")
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "p256.pub").write_bytes(pem)
    (tmp_path / "two.pub").write_bytes(keys[1].read_bytes() * 2)
    for path in (keys[0], tmp_path / "garbage", tmp_path / "p256.pub", tmp_path / "two.pub"):
        with pytest.raises(InputError, match="is not one public Ed25519 key in PEM"):
            load(signed, path)
    for path in (tmp_path / "none", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="cannot be read"):
            load(signed, path)
    with pytest.raises(InputError, match="trust is 7"):
        load(signed, 7)  # type: ignore[arg-type]


def test_what_is_no_key_to_sign_with(keys: tuple[Path, Path], tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
    )

    with pytest.raises(InputError, match="is no private Ed25519 key"):
        private_key(keys[1])
    with pytest.raises(InputError, match="cannot be read"):
        private_key(tmp_path)
    secret = private_key(keys[0]).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )
    (tmp_path / "secret").write_bytes(secret)
    with pytest.raises(InputError, match="is encrypted"):
        private_key(tmp_path / "secret")


def test_without_cryptography(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("cryptography.exceptions", "cryptography.hazmat.primitives"):
        monkeypatch.setitem(sys.modules, module, None)
    for use in (lambda: load(signed, keys[1]), lambda: private_key(keys[0])):
        with pytest.raises(
            BackendUnavailable, match=r"pip install -c constraints.txt '\.\[sign\]'"
        ):
            use()
    with pytest.raises(BackendUnavailable, match=r"pip install -c constraints.txt '\.\[sign\]'"):
        make_keys(signed / "key")


# the verbs that sign


def test_keygen_and_sign(run: Run, tmp_path: Path) -> None:
    path, key = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle"), tmp_path / "key"
    made = run("keygen", key)
    assert made.out == f"private key {key}\npublic key {key}.pub\n"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    failed(run("keygen", key), 2, "a key is never overwritten")
    failed(run("keygen", tmp_path / "k.pub"), 2, "would look like a public key")
    assert key.read_bytes() == before
    done = run("sign", path, "--key", key)
    assert done.out == "".join(f"signature {path / name}.sig\n" for name in FILES), done
    load(path, tmp_path / "key.pub")
    failed(run("sign", "--key", key), 2, "Nothing to sign")


def test_only_what_holds_is_signed(run: Run, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    path = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    content = (path / CALIBRATION).read_bytes()
    (path / CALIBRATION).write_bytes(content.replace(b'"threshold":1.', b'"threshold":3.'))
    failed(run("sign", path, "--key", keys[0]), 4, "not what was written")
    (path / CALIBRATION).write_bytes(content)
    mine = tmp_path / "foreign.json"
    failed(
        run("sign", path, "--key", keys[0], "--calibration", foreign(mine)), 4, "made on bundle fff"
    )
    flip(path / "noise_bank.npy")
    failed(run("sign", path, "--key", keys[0]), 4, "differs from what the manifest promises")
    assert not list(path.glob("*.sig"))


@pytest.mark.slow
def test_openssl_makes_and_checks_the_same(run: Run, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no OpenSSL")

    def ssl(*args: object) -> str:
        done = subprocess.run(
            [openssl, *map(str, args)], check=True, capture_output=True, text=True
        )
        return done.stdout

    path, mine, theirs = tmp_path / "bundle", tmp_path / "mine", tmp_path / "theirs"
    shutil.copytree(embedded.BUNDLE, path)
    assert run("keygen", mine).code == 0
    assert run("sign", path, "--key", mine).code == 0
    for name in FILES:
        told = ("-in", path / name, "-sigfile", path / f"{name}.sig")
        told = ("pkeyutl", "-verify", "-pubin", "-inkey", f"{mine}.pub", "-rawin", *told)
        assert "Verified Successfully" in ssl(*told)
    ssl("genpkey", "-algorithm", "ed25519", "-out", theirs)
    ssl("pkey", "-in", theirs, "-pubout", "-out", f"{theirs}.pub")
    with pytest.raises(SignatureError):
        load(path, Path(f"{theirs}.pub"))
    for name in FILES:
        told = ("-in", path / name, "-out", path / f"{name}.sig")
        ssl("pkeyutl", "-sign", "-inkey", theirs, "-rawin", *told)
    load(path, Path(f"{theirs}.pub"))
    private_key(theirs)
