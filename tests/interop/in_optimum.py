"""`python in_optimum.py DIR`, in the environment of Optimum: what its users have.

Writes DIR/pytorch and DIR/onnx for a model that predicts velocity, which its scheduler has to say;
and, for every tokenizer DIR/layouts/NAME, DIR/layouts/NAME.npy: the ids that its slow CLIPTokenizer
gives the odd prompts, written out as diffusers does. Prints transformers' version.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import transformers
from diffusers.loaders import TextualInversionLoaderMixin
from optimum.onnxruntime import ORTStableDiffusionPipeline
from transformers import CLIPTokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from odd_prompts import odd_strings
from one_block import one_block
from pipelines import build_pipeline

DIR = Path(sys.argv[1])

pipeline = build_pipeline("v_prediction", unet=one_block(), text_layers=1)
pipeline.save_pretrained(DIR / "pytorch")
exported = ORTStableDiffusionPipeline.from_pretrained(str(DIR / "pytorch"), export=True)
exported.save_pretrained(DIR / "onnx")

for folder in sorted(each for each in (DIR / "layouts").iterdir() if each.is_dir()):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    assert not tokenizer.is_fast
    assert tokenizer.fix_text is None, "ftfy is installed"
    prompts = TextualInversionLoaderMixin().maybe_convert_prompt(odd_strings(), tokenizer)
    told = tokenizer(prompts, padding="max_length", truncation=True, max_length=77)
    np.save(folder.with_suffix(".npy"), np.array(told.input_ids))

print(transformers.__version__)
