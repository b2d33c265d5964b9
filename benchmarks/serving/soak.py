"""`python -m benchmarks.serving.soak`: does the memory of a service stay flat over many requests?

Four clients ask `mnemoscope serve`, started on one noise, what a client may ask: verdicts by both
APIs in JSON, metrics, and requests that are refused, each on connections that are opened anew after
a while. Resident memory of the server is read every hundred requests; exit code 1 if it grows by
more than 1 % between the 2,000th and the last. Linux only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

from rich.console import Console

from benchmarks.soak import GROWTH, Soak, report, resident
from mnemoscope import embedded

from ..running import run_main
from . import servers

__all__ = ["main", "soak"]

_CLIENTS = 4
_REQUESTS = 100  # of a connection
_INFER, _SCREEN = "/v2/models/mnemoscope/infer", "/v1/screen"
Asked = tuple[str, str, bytes, int]  # method, path, body, and the status that is right


def requests() -> Iterator[Asked]:
    """What is asked, over and over: nine verdicts, and one of what else there is."""
    texts = [row.prompt for row in embedded.read_prompts("memorized", "held_out")]
    others = cycle(
        [
            ("POST", _SCREEN, json.dumps({"prompts": [*texts[:8], ""]}).encode(), 200),
            ("GET", "/metrics", b"", 200),
            ("POST", _INFER, infer(""), 400),
            ("POST", _INFER, b"{", 400),
            ("POST", "/v2/models/nobody/infer", infer("a cat"), 404),
            ("POST", _INFER, infer("x" * 100_001), 400),
        ]
    )
    for number, text in enumerate(cycle(texts)):
        yield ("POST", _INFER, infer(text), 200) if number % 10 else next(others)


def infer(text: str) -> bytes:
    """A request for a verdict."""
    tensor = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [text]}
    return json.dumps({"inputs": [tensor]}).encode()


class Client(threading.local):
    """A connection for each thread, which is closed after a while."""

    def __init__(self, place: str) -> None:
        self._connection = http.client.HTTPConnection(place, timeout=60)
        self._asked = 0

    def ask(self, asked: Asked) -> None:
        """Ask, and check the status of the answer."""
        method, path, body, status = asked
        self._connection.request(method, path, body)
        answer = self._connection.getresponse()
        answer.read()
        self._asked += 1
        if self._asked % _REQUESTS == 0:
            self._connection.close()
        if answer.status != status:
            raise RuntimeError(f"{method} {path} was answered with {answer.status}, not {status}.")


def soak(calls: int, every: int) -> Soak:
    """Ask so many times, and read memory every so often."""
    asked = requests()
    with servers.ours() as server, ThreadPoolExecutor(_CLIENTS) as pool:
        client = Client(server.http)
        rss, start = [resident(server.pid)], time.perf_counter()
        for _ in range(calls // every):
            list(pool.map(client.ask, [next(asked) for _ in range(every)]))
            rss.append(resident(server.pid))
        return Soak("serve", calls, every, time.perf_counter() - start, tuple(rss))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    args = parser.parse_args(arguments)
    if not 1 <= args.every <= args.calls // 2 or args.calls % args.every:
        parser.error("--calls must be a multiple of --every, and at least twice as many")
    run = soak(args.calls, args.every)
    report([run], 1, args.output / "serving-soak.json", Console(width=120))
    sys.exit(run.growth > GROWTH)


if __name__ == "__main__":
    run_main(main)
