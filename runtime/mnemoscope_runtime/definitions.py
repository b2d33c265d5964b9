"""A `tokenizer.json` that may be anybody's, made the library's tokenizer."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer as Library

from .errors import IntegrityError
from .tokenizer_json import Refused

__all__ = ["parsed"]


def parsed(
    definition: bytes, checked: Callable[[bytes], bytes], *, kind: str, origin: str
) -> Library:
    """The tokenizer in a file, once it has been looked through.

    Args:
        definition: The contents of the file.
        checked: What looks through it, and writes anew what may be parsed (`tokenizer_json`).
        kind: What errors call the tokenizers that it is to be one of.
        origin: What errors call the file.

    Raises:
        IntegrityError: it is no tokenizer of that kind.
    """
    try:
        return Library.from_buffer(checked(definition))
    except Refused as error:
        raise IntegrityError(
            f"{origin} is no tokenizer of {kind}'s kind: {error}. If the bundle is yours, export "
            "the model again with this version; if not, do not use it."
        ) from None
    except Exception as error:  # tokenizers raises bare Exception
        raise IntegrityError(
            f"{origin} is no tokenizer: {error}. Export the model again."
        ) from None
