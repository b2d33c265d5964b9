"""Gemma's tokenizer behind an instruction, without transformers."""

from __future__ import annotations

from .definitions import parsed
from .errors import IntegrityError
from .gemma_json import checked
from .template_reader import TemplateReader

__all__ = ["GemmaTokenizer"]

_START = "<bos>"


class GemmaTokenizer(TemplateReader):
    """Turns prompts into ids exactly as transformers' GemmaTokenizer does for Sana.

    The space at the end of an instruction and a prompt's first word are one token.
    """

    kind = "Gemma"

    def __init__(
        self,
        definition: bytes,
        *,
        length: int,
        pad_token: str,
        template: str = "{}",
        lowercase: bool = False,
        origin: str,
    ) -> None:
        """Read a `tokenizer.json`, which may be hostile (`gemma_json`).

        Args:
            definition: The contents of the file.
            length: Ids per prompt, its start and its template with it.
            pad_token: What fills up short prompts.
            template: What stands around a prompt, which takes the place of {}.
            lowercase: Put prompts in lower case first, without space around them.
            origin: What errors call the file.

        Raises:
            IntegrityError: it is no tokenizer of Gemma's kind, or does not go with the template.
        """
        library = parsed(definition, checked, kind=self.kind, origin=origin)
        pad, first = map(library.token_to_id, (pad_token, _START))
        before, *behind = template.split("{}")
        start = library.encode(before, add_special_tokens=False).ids
        if pad is None or first is None or len(behind) != 1 or len(start) >= length:
            raise IntegrityError(
                f"{origin} does not go with its template: {pad_token} or {_START} is missing, or "
                f"{length} ids hold no more than the template. Export the model again."
            )
        super().__init__(
            library,
            length,
            pad=pad,
            template=(before, behind[0]),
            start=[first, *start[:-1]] if start else [first],
            first=[first],
            lowercase=lowercase,
        )
