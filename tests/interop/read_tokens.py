"""`python read_tokens.py DIR`, in the environment of Optimum: ids of its slow CLIPTokenizer.

Writes DIR/NAME.npy for every layout DIR/NAME, with the odd prompts written out as diffusers does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import transformers
from diffusers.loaders import TextualInversionLoaderMixin
from transformers import CLIPTokenizer

sys.path.insert(0, str(Path(__file__).parent.parent))
from odd_prompts import odd_strings

for folder in sorted(each for each in Path(sys.argv[1]).iterdir() if each.is_dir()):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    assert not tokenizer.is_fast
    assert tokenizer.fix_text is None, "ftfy is installed"
    prompts = TextualInversionLoaderMixin().maybe_convert_prompt(odd_strings(), tokenizer)
    told = tokenizer(prompts, padding="max_length", truncation=True, max_length=77)
    np.save(folder.with_suffix(".npy"), np.array(told.input_ids))
print(transformers.__version__)
