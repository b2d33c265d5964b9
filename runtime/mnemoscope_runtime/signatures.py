"""Signatures, which tell who made a bundle or a calibration, as no digest does.

The signature of FILE is FILE.sig beside it, the 64 bytes of Ed25519 over the bytes of FILE. Keys
are PEM, SubjectPublicKeyInfo and PKCS 8. OpenSSL makes and checks all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BackendUnavailable, InputError, SignatureError
from .reading import read_file
from .wording import pip_install

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["check_signature", "needs_cryptography", "signature_of"]

_LENGTH = 64
_KEY = 2**16  # bytes; an Ed25519 key in PEM has about a hundred


def signature_of(file: Path) -> Path:
    """Where the signature of a file is."""
    return file.with_name(f"{file.name}.sig")


def check_signature(file: Path, content: bytes, trust: str | Path) -> None:
    """Refuse what was not signed by a key.

    Args:
        file: What was read.
        content: Its bytes, the very ones that will be parsed.
        trust: File of the public key.

    Raises:
        SignatureError: there is no signature, or it is not this key's of these bytes.
        InputError: the key cannot be used.
        BackendUnavailable: cryptography is not installed.
    """
    key, place = _public_key(Path(trust)), signature_of(file)
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(read_file(place, _LENGTH), content)
    except FileNotFoundError:
        raise SignatureError(
            f"{file} is not signed: there is no {place.name} beside it, and only what {trust} "
            "signed is trusted. Get it from who has that key, with its signature "
            "(`mnemoscope sign`)."
        ) from None
    except OSError as error:
        raise SignatureError(
            f"The signature {place} cannot be read: {error.strerror or error}. Get it again."
        ) from None
    except InvalidSignature:
        raise SignatureError(
            f"{place} is not {trust}'s signature of {file}: the file was changed after it was "
            "signed, or another key signed it. Do not use it; get it again from who has that key, "
            "who signs what was meant to change (`mnemoscope sign`)."
        ) from None


def needs_cryptography(error: ImportError) -> BackendUnavailable:
    """What to raise where it is not installed."""
    return BackendUnavailable(
        f"Signatures need cryptography: {error}. Install it with {pip_install('sign')}."
    )


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise needs_cryptography(error) from None
    try:
        content = read_file(path, _KEY)
        # of several the first would count without a word
        key = load_pem_public_key(content) if content.count(b"-----BEGIN") == 1 else None
    except OSError as error:
        raise InputError(
            f"The key {path} cannot be read: {error.strerror or error}. Name another file."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(
            f"{path} is not one public Ed25519 key in PEM. Give the .pub file that "
            "`mnemoscope keygen` wrote beside the private key."
        )
    return key
