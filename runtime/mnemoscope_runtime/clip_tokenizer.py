"""CLIP's tokenizer, without transformers."""

from __future__ import annotations

from .definitions import parsed
from .errors import IntegrityError
from .tokenizer import Reader
from .tokenizer_json import checked
from .triggers import triggers

__all__ = ["ClipTokenizer"]

_START, _END = "<|startoftext|>", "<|endoftext|>"


class ClipTokenizer(Reader):
    """Turns prompts into ids exactly as transformers' CLIPTokenizer does for Stable Diffusion.

    Triggers of textual inversion that stand for several vectors are written out as diffusers does.
    """

    kind = "CLIP"

    def __init__(
        self,
        definition: bytes,
        *,
        length: int = 77,
        pad_token: str = _END,
        origin: str = "tokenizer/tokenizer.json",
    ) -> None:
        """Read a `tokenizer.json`, which may be hostile (`tokenizer_json`).

        Args:
            definition: The contents of the file.
            length: Ids per prompt: the text encoder's context length.
            pad_token: What fills up short prompts; "!" in Stable Diffusion 2.
            origin: What errors call the file.

        Raises:
            IntegrityError: it is no tokenizer of CLIP's kind.
        """
        library = parsed(definition, checked, kind=self.kind, origin=origin)
        ends = [library.token_to_id(text) for text in (_START, _END)]
        pad = library.token_to_id(pad_token)
        if pad is None or None in ends or library.encode("").ids != ends:
            raise IntegrityError(
                f"{origin} is not CLIP's: {_START}, {_END} or {pad_token} is missing, or not what "
                "stands around a prompt. Export the model again."
            )
        added = {token.content for token in library.get_added_tokens_decoder().values()}
        start, end = library.encode("").ids
        super().__init__(
            library, length, pad=pad, start=(start,), end=(end,), triggers=triggers(added)
        )
