"""What tests send a service over sockets of their own, and what they read of it."""

from __future__ import annotations

import socket
from typing import Any

import httpx
from service_support import MEMORISED

INFER = "/v2/models/mnemoscope/infer"


def body(*prompts: str) -> dict[str, Any]:
    tensor = {"name": "prompt", "shape": [len(prompts)], "datatype": "BYTES", "data": prompts}
    return {"inputs": [tensor]}


def memorized(answer: httpx.Response) -> list[bool]:
    assert answer.status_code == 200, answer.text
    [found] = [each for each in answer.json()["outputs"] if each["name"] == "memorized"]
    values: list[bool] = found["data"]
    return values


def connect(address: str) -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def answered(address: str) -> None:
    assert memorized(httpx.post(address + INFER, json=body("a cat", MEMORISED))) == [False, True]


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(65536):
        found += part
    return found
