"""Keys, the verbs that make and use them, and what is neither."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import Run, failed, foreign
from signature_support import FILES, flip, load

from mnemoscope import BackendUnavailable, InputError, embedded
from mnemoscope.screening.opening import CALIBRATION
from mnemoscope.signing import make_keys, private_key
from mnemoscope_runtime import SignatureError


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
