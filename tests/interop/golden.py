"""`python golden.py HTTP GRPC CASES MODEL ...`, where tritonclient is: answers to golden requests.

CASES is a JSON file of prompts by case. Prints what came back by model, protocol and case: the
outputs, each with datatype, shape and value (in hexadecimal, but as it stands in JSON), or the text
of an error. Of several models, what came of forty requests at once to the last of them, too.
"""

from __future__ import annotations

import json
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

HTTP, GRPC, CASES, *MODELS = sys.argv[1:]
OUTPUTS = ["score", "p_value", "memorized", "truncated"]
http, grpc = tritonclient.http, tritonclient.grpc


def prompts(module: Any, texts: list[str], **options: Any) -> Any:
    # surrogates stand for bytes that are no UTF-8
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    given = module.InferInput("prompt", [len(texts), 1], "BYTES")
    given.set_data_from_numpy(np.array(encoded, np.object_).reshape(-1, 1), **options)
    return [given]


def over_json(client: Any, model: str, texts: list[str]) -> Any:
    wanted = [http.InferRequestedOutput(name, binary_data=False) for name in OUTPUTS]
    found = client.infer(model, prompts(http, texts, binary_data=False), outputs=wanted)
    return found.get_response()["outputs"]


def over_http(client: Any, model: str, texts: list[str]) -> Any:
    found = client.infer(model, prompts(http, texts))
    return [
        told(each["name"], each, found.as_numpy(each["name"]).tobytes())
        for each in found.get_response()["outputs"]
    ]


def over_grpc(client: Any, model: str, texts: list[str]) -> Any:
    found = client.infer(model, prompts(grpc, texts)).get_response()
    return [
        told(each.name, {"datatype": each.datatype, "shape": list(each.shape)}, raw)
        for each, raw in zip(found.outputs, found.raw_output_contents, strict=True)
    ]


def told(name: str, about: dict[str, Any], raw: bytes) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": about["datatype"],
        "shape": about["shape"],
        "data": raw.hex(),
    }


def together(client: Any, model: str) -> dict[str, Any]:
    """Forty requests at once, and one after the other: what each got, and calls that it took."""
    texts = ["" if number % 8 == 3 else f"a cat, {number}" for number in range(40)]

    def calls() -> int:
        [stats] = client.get_inference_statistics(model).model_stats
        return stats.execution_count

    def verdict(found: Any, error: Any) -> Any:
        return found.as_numpy("memorized").tolist() if error is None else error.message()

    begun = calls()
    ends: list[queue.Queue[Any]] = [queue.Queue() for _ in texts]
    for text, end in zip(texts, ends, strict=True):
        client.async_infer(
            model,
            prompts(grpc, [text]),
            callback=lambda result, error, end=end: end.put(verdict(result, error)),
        )
    answers = [end.get(timeout=60) for end in ends]
    took = calls() - begun
    alone = []
    for text in texts:
        try:
            alone.append(verdict(client.infer(model, prompts(grpc, [text])), None))
        except InferenceServerException as error:
            alone.append(error.message())
    return {"answers": answers, "alone": alone, "calls": took, "requests": len(texts)}


def main() -> None:
    cases = json.loads(Path(CASES).read_text())
    over = http.InferenceServerClient(HTTP)
    ways = {
        "json": (over_json, over),
        "http": (over_http, over),
        "grpc": (over_grpc, grpc.InferenceServerClient(GRPC)),
    }
    found: dict[str, Any] = {model: {way: {} for way in ways} for model in MODELS}
    for model in MODELS:
        for way, (ask, client) in ways.items():
            for case, texts in cases.items():
                try:
                    found[model][way][case] = ask(client, model, texts)
                except InferenceServerException as error:
                    found[model][way][case] = f"{error.status()}: {error.message()}"
    if len(MODELS) > 1:
        found["together"] = together(ways["grpc"][1], MODELS[-1])
    print(json.dumps(found))


main()
