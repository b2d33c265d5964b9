"""Qwen2's tokenizer in a chat's template, without transformers."""

from __future__ import annotations

from .definitions import parsed
from .errors import IntegrityError
from .qwen_json import checked
from .template_reader import TemplateReader

__all__ = ["QwenTokenizer"]


class QwenTokenizer(TemplateReader):
    """Turns prompts into ids exactly as transformers' Qwen2Tokenizer does for Qwen-Image.

    A line break at a prompt's beginning and the template's before it are one token.
    """

    kind = "Qwen2"

    def __init__(
        self,
        definition: bytes,
        *,
        length: int,
        pad_token: str,
        template: str,
        dropped: int,
        origin: str,
    ) -> None:
        """Read a `tokenizer.json`, which may be hostile (`qwen_json`).

        Args:
            definition: The contents of the file.
            length: Ids per prompt, its template with it.
            pad_token: What fills up short prompts.
            template: What stands around a prompt, which takes the place of {}.
            dropped: How many ids in front the network is not told of.
            origin: What errors call the file.

        Raises:
            IntegrityError: it is no tokenizer of Qwen2's kind, or does not go with the template.
        """
        library = parsed(definition, checked, kind=self.kind, origin=origin)
        pad = library.token_to_id(pad_token)
        before, *behind = template.split("{}")
        start = library.encode(before, add_special_tokens=False).ids
        if pad is None or len(behind) != 1 or not 0 <= dropped <= len(start) < length:
            raise IntegrityError(
                f"{origin} does not go with its template: {pad_token} is missing, or {dropped} ids "
                "are not all of what stands before a prompt. Export the model again."
            )
        super().__init__(
            library, length, pad=pad, template=(before, behind[0]), start=start[:dropped]
        )
