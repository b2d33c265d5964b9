"""Keys that clients show, from a file; compared in a time that tells nothing of them."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.reading import read_file

from .options import is_name

__all__ = ["REFUSAL", "Keys"]

REFUSAL = "A key is needed here. Send one in the header `Authorization: Bearer KEY`."
_LARGEST = 2**20  # bytes of a file
_SHORTEST = 16  # characters of a key


@dataclass(frozen=True)
class Keys:
    """Those of a file, as digests, and whose they are: names, empty for a key without one."""

    digests: tuple[bytes, ...]
    names: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Those of a file: one a line, as KEY or NAME:KEY. Lines that start with # are notes.

        Raises:
            InputError: it cannot be read, others may read it, or a line holds no key.
        """
        try:
            text = read_file(path, _LARGEST).decode()
            mode = path.stat().st_mode
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The keys in {path} cannot be read: {error}.") from None
        if os.name == "posix" and mode & stat.S_IRWXO:
            raise InputError(
                f"Everybody on this machine may open {path}. Run: chmod o= {path}; a secret of "
                "Kubernetes takes defaultMode: 0440."
            )
        keys: list[tuple[str, str]] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, colon, key = (each.strip() for each in line.rpartition(":"))
            if len(key) < _SHORTEST or not all("!" <= each <= "~" for each in key):
                raise InputError(
                    f"Line {number} of {path} holds no key. Write KEY or NAME:KEY, a key of at "
                    f"least {_SHORTEST} visible ASCII characters without a colon."
                )
            if colon and not is_name(name):
                raise InputError(
                    f"Line {number} of {path} has no name before its colon. Write up to 100 "
                    "letters, digits, points, dashes and underscores there: metrics show it."
                )
            keys.append((name, key))
        if not keys:
            raise InputError(f"{path} holds no keys, so that nobody could ask. Write one a line.")
        names, values = zip(*keys, strict=True)
        return cls(tuple(map(_digest, values)), names)

    def whose(self, authorization: str | None) -> str | None:
        """Whose key the header Authorization shows, or gRPC's metadata of that name.

        Returns:
            The name, empty for a key without one; None, if it shows none of them.
        """
        scheme, _, key = (authorization or "").partition(" ")
        shown = _digest(key.strip())
        # all are compared, so that the time does not tell which
        same = [hmac.compare_digest(shown, each) for each in self.digests]
        if scheme.lower() != "bearer" or not any(same):
            return None
        return self.names[same.index(True)]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
