"""`python in_litellm.py BASE KEY`, in the environment of LiteLLM: what its users have.

Reads prompts, one JSON text a line, has OpenAI's own client ask for a picture of each, and writes
what came of it, one JSON object a line. A prompt in a list begins with a picture.
"""

from __future__ import annotations

import json
import sys

from openai import APIStatusError, OpenAI

with OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0, timeout=60) as client:
    for line in sys.stdin:
        try:
            prompt = json.loads(line)
            if isinstance(prompt, str):
                drawn = client.images.generate(model="pictures", prompt=prompt)
            else:
                image = ("a.png", b"\x89PNG\r\n\x1a\n", "image/png")
                drawn = client.images.edit(model="pictures", prompt=prompt[0], image=image)
            found = {"status": 200, "picture": drawn.data[0].b64_json}
        except APIStatusError as error:
            found = {
                "status": error.status_code,
                "kind": type(error).__name__,
                "code": error.code,
                "param": error.param,
                "message": error.message,
                "retry_after": error.response.headers.get("retry-after"),
            }
        print(json.dumps(found), flush=True)
