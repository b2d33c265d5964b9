from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mnemoscope import InputError
from mnemoscope.serve import Limits
from mnemoscope.serve.service.options import ServiceOptions, Source


def test_models_are_written_with_their_bundle_and_calibration(tmp_path: Path) -> None:
    assert Source.parse("sd=bundles/sd") == Source("sd", Path("bundles/sd"))
    assert Source.parse("sd=b/sd:c.json") == Source("sd", Path("b/sd"), Path("c.json"))
    (tmp_path / "with:colon").mkdir()
    place = tmp_path / "with:colon"
    assert Source.parse(f"a={place}") == Source("a", place)
    assert Source.parse(f"a={place}:x=y.json") == Source("a", place, Path("x=y.json"))


@pytest.mark.parametrize("text", ["", "name", "name=", "=bundle", "a b=c", ".a=c", "a/b=c", "é=c"])
def test_models_that_cannot_be_written_so(text: str) -> None:
    with pytest.raises(InputError, match=r"--model NAME=BUNDLE|cannot be a model's name"):
        Source.parse(text)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": -1}, "port is -1"),
        ({"port": 65536}, "port is 65536"),
        ({"port": True}, "port is True"),
        ({"port": 8001}, "cannot both have port 8001"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": "1"}, "timeout is '1'"),
        ({"linger": -1}, "linger is -1"),
        ({"linger": float("nan")}, "linger is nan"),
        ({"body": 0}, "body is 0"),
        ({"prompts": 0}, "prompts is 0"),
        ({"prompts": 9, "limits": Limits(queue=8)}, "as many as the queue holds"),
        ({"host": None}, "host is None"),
        ({"models": ()}, "no model to serve"),
        ({"models": (Source("a"), Source("a"))}, "Two models are called 'a'"),
        ({"models_dir": Path("nowhere"), "control": True}, "nowhere is no folder"),
        ({"models_dir": Path(__file__).parent}, "--control"),
        ({"host": "0.0.0.0", "control": True}, "0.0.0.0 could load and unload models.*--keys"),
        ({"host": "::", "control": True}, "--keys"),
        ({"host": "models.example", "control": True}, "--keys"),
    ],
)
def test_what_cannot_be_used_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ServiceOptions(**settings)


def test_nobody_else_can_ask_unless_told() -> None:
    assert ServiceOptions().host == "127.0.0.1"
    assert not ServiceOptions().show_scores
    assert not ServiceOptions().control


def test_clients_that_need_a_key_may_load_from_elsewhere() -> None:
    assert ServiceOptions(host="0.0.0.0", control=True, keys=Path("keys")).control
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert ServiceOptions(host=host, control=True).control


def test_both_ports_may_be_free_ones() -> None:
    assert ServiceOptions(port=0, grpc_port=0).port == 0
    assert ServiceOptions(grpc_port=None).grpc_port is None
