"""Ask `mnemoscope serve`, or Triton with the model of `mnemoscope triton`, by Triton's own client.

pip install 'tritonclient[http]'
python triton_client.py localhost:8000 "a cat" "another prompt"
"""

import argparse
import sys

import numpy as np
import tritonclient.http as triton

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("address", help="host:port")
parser.add_argument("prompts", nargs="+")
told = parser.parse_args()
address, prompts = told.address, told.prompts
asked = triton.InferInput("prompt", [len(prompts), 1], "BYTES")
asked.set_data_from_numpy(np.array(prompts, object).reshape(-1, 1))  # [n, 1]: Triton needs both
with triton.InferenceServerClient(address) as client:
    try:
        found = client.infer("mnemoscope", [asked])
    except triton.InferenceServerException as error:  # a prompt without a verdict, for one
        sys.exit(f"no verdicts: {error.message()}")
verdicts = {name: found.as_numpy(name).ravel() for name in ("memorized", "truncated")}
for prompt, memorized, truncated in zip(prompts, *verdicts.values(), strict=True):
    verdict = "memorized" if memorized else "in part" if truncated else "clean"
    print(f"{verdict:9}  {prompt}")
