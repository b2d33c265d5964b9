"""Making keys and signatures; `mnemoscope_runtime.signatures` checks them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.reading import read_file
from mnemoscope_runtime.signatures import needs_cryptography, signature_of

from .outputs import write_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["make_keys", "private_key", "sign"]

_KEY = 2**16  # bytes


def make_keys(path: Path) -> Path:
    """Write a new private key, for its owner's eyes alone, and beside it the public one.

    Args:
        path: Where the private key goes.

    Returns:
        The public key, `path` with .pub behind it.

    Raises:
        InputError: one is there already, cannot be written, or would pass for the other.
        BackendUnavailable: cryptography is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise needs_cryptography(error) from None
    if path.suffix == ".pub":
        raise InputError(
            f"{path} would look like a public key, which is given away. Name the private key "
            f"otherwise: {path.with_suffix('')}."
        )
    key, public = Ed25519PrivateKey.generate(), path.with_name(f"{path.name}.pub")
    if taken := [each for each in (path, public) if os.path.lexists(each)]:
        raise InputError(f"{taken[0]} is there, and a key is never overwritten. Name another file.")
    pem = serialization.Encoding.PEM
    private_bytes = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_bytes = key.public_key().public_bytes(
        pem, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for place, content, mode in ((path, private_bytes, 0o600), (public, public_bytes, 0o644)):
        try:  # not staged: nobody else may read it, from its first byte on
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            raise InputError(
                f"{place} cannot be written: {error.strerror or error}. Name another file."
            ) from None
    return public


def private_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a file.

    Raises:
        InputError: there is none that can be used.
        BackendUnavailable: cryptography is not installed.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise needs_cryptography(error) from None
    try:
        key = load_pem_private_key(read_file(path, _KEY), None)
    except OSError as error:
        raise InputError(
            f"The key {path} cannot be read: {error.strerror or error}. Name another file."
        ) from None
    except TypeError:
        raise InputError(
            f"The key {path} is encrypted. Sign with a copy that is not: "
            f"`openssl pkey -in {path} -out KEY`."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"{path} is no private Ed25519 key in PEM. `mnemoscope keygen` writes one, and so does "
            "`openssl genpkey -algorithm ed25519`."
        )
    return key


def sign(file: Path, content: bytes, key: Ed25519PrivateKey) -> Path:
    """Write the signature of a file beside it.

    Args:
        file: The file.
        content: Its bytes, as they were read and checked.
        key: Who signs.

    Returns:
        The signature.

    Raises:
        InputError: it cannot be written.
    """
    place = signature_of(file)
    write_file(place, key.sign(content), "Make the folder writable.")
    return place
