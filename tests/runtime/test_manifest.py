from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnemoscope_runtime import IntegrityError, Manifest, SchemaError
from mnemoscope_runtime.manifest import (
    SCHEMA,
    FileRecord,
    ModelRecord,
    NoiseBank,
    Probe,
    TokenizerRecord,
)
from mnemoscope_runtime.schedulers import Ddim, FlowDpm, FlowEuler, Scheduler

Fields = dict[str, Any]
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ORIGIN = "here/manifest.json"
GRAPHS = ("screen", "step", "text_encoder")


def new() -> Manifest:
    names = ["noise_bank.npy", *(f"{graph}.onnx" for graph in GRAPHS)]
    return Manifest.new(
        model=ModelRecord("modèle 模型", "ab" * 32, "sd1", "epsilon"),
        scheduler=Ddim("scaled_linear", 0.00085, 0.012, 1000, 1, False, "leading", 50),
        guidance=7.5,
        timestep=981,
        tokenizer=TokenizerRecord(77, "<|endoftext|>"),
        noise_bank=NoiseBank("noise_bank.npy", 7, (3, 4, 8, 8)),
        precision="float32",
        opset=18,
        graphs={graph: f"{graph}.onnx" for graph in GRAPHS},
        flops={"screen": 761 * 10**9, "step": 10**12, "text_encoder": 10**9},
        parity={"screen": {"max_relative_error": 1.25e-6}},
        budget=0.01,
        probes=(Probe("a cat", (0.5, 0.25, 1.5)),),
        tools={"torch": "2.6.0"},
        files={name: FileRecord("cd" * 32, 12) for name in names},
    )


def read(fields: Fields) -> Manifest:
    return Manifest.from_json(json.dumps(fields).encode(), ORIGIN)


@pytest.fixture
def fields() -> Fields:
    decoded: Fields = json.loads(new().to_json())
    return decoded


def places(fields: Fields, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where the named fields are; free-form tables count as one field."""
    found = []
    for name, value in fields.items():
        found.append((*path, name))
        if isinstance(value, dict) and name not in ("graphs", "flops", "parity", "tools", "files"):
            found += places(value, (*path, name))
    return found


def test_taps_are_written_where_there_are_some() -> None:
    tapped = replace(new(), taps=("a", "b"))
    assert Manifest.from_json(tapped.to_json(), ORIGIN) == tapped


@pytest.mark.parametrize("taps", [["a", "a"], [""]])
def test_taps_without_names_of_their_own(fields: Fields, taps: list[str]) -> None:
    with pytest.raises(IntegrityError, match="taps that have no names"):
        read({**fields, "taps": taps})


def test_a_graph_of_taps_without_taps(fields: Fields) -> None:
    fields["graphs"]["taps"], fields["flops"]["taps"] = "screen.onnx", 761 * 10**9
    assert read({**fields, "taps": ["a"]}).taps == ("a",)
    with pytest.raises(IntegrityError, match="a graph of taps, but names none"):
        read(fields)


PLACES = [*places(json.loads(new().to_json())), ("files", "step.onnx", "sha256")]


def parent(fields: Fields, place: tuple[str, ...]) -> Fields:
    for name in place[:-1]:
        fields = fields[name]
    return fields


def test_round_trip() -> None:
    manifest = new()
    text = manifest.to_json()
    again = Manifest.from_json(text, ORIGIN)
    assert again == manifest
    assert again.to_json() == text
    assert again.schema == SCHEMA


@unhurried
@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_and_number_survives(text: str, number: float) -> None:
    fields = json.loads(new().to_json())
    fields["model"]["id"], fields["guidance"] = text, number
    manifest = read(fields)
    assert Manifest.from_json(manifest.to_json(), ORIGIN) == manifest
    assert (manifest.model.id, manifest.guidance) == (text, number)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0",
        b"not json",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        new().to_json()[:-3],
        new().to_json() + b"}",
        new().to_json().replace(b"7.5", b"NaN"),
        new().to_json().replace("模".encode(), b"\xe6"),
        new().to_json().decode().encode("utf-16"),
        b'{"kind": ' + b"[" * 100_000,
        b'{"kind": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_not_json(text: bytes) -> None:
    with pytest.raises(SchemaError, match=r"here/manifest\.json is damaged"):
        Manifest.from_json(text, ORIGIN)


@pytest.mark.parametrize("kind", [None, "", "onnx-bundle", 1])
def test_other_kind(fields: Fields, kind: object) -> None:
    fields["kind"] = kind
    with pytest.raises(SchemaError, match="not the manifest of a Mnemoscope bundle"):
        read(fields)


def test_no_kind() -> None:
    with pytest.raises(SchemaError, match="not the manifest of a Mnemoscope bundle"):
        read({})


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, -1, 10**40, str(SCHEMA), None])
def test_other_schema(fields: Fields, schema: object) -> None:
    fields["schema"] = schema
    with pytest.raises(SchemaError, match=f"this version reads 1, 2, {SCHEMA}.*Upgrade"):
        read(fields)


def test_newer_schema_may_have_other_fields() -> None:
    with pytest.raises(SchemaError, match="Upgrade"):
        read({"kind": "mnemoscope-bundle", "schema": SCHEMA + 1, "weights": []})


def test_what_holds_its_default_is_not_written(fields: Fields) -> None:
    assert not {"embeddings", "zero_empty", "taps"} & set(fields)
    given = {"embeddings": ["prompt_embeds"], "zero_empty": False, "taps": []}
    assert read(fields | given) == read(fields) == new()


@pytest.mark.parametrize(
    "place",
    [
        ("lora",),
        ("model", "lora"),
        ("noise_bank", "dtype"),
        ("probes", "0", "steps"),
        ("files", "step.onnx", "url"),
    ],
    ids=".".join,
)
def test_fields_of_a_later_version(fields: Fields, place: tuple[str, ...]) -> None:
    inside: Any = fields
    for name in place[:-1]:
        inside = inside[int(name) if isinstance(inside, list) else name]
    inside[place[-1]] = None
    with pytest.raises(SchemaError, match=rf"says {re.escape('.'.join(place))}, which.*Upgrade"):
        read(fields)


def test_schema_1_is_read_as_it_was(fields: Fields) -> None:
    fields["schema"] = 1
    del fields["scheduler"]["kind"]
    found = read(fields | {"comment": "by hand"})
    assert found == replace(new(), schema=1)


def test_schema_2_says_no_sampler(fields: Fields) -> None:
    del fields["scheduler"]["kind"]
    fields["schema"] = 2
    assert read(fields) == replace(new(), schema=2)
    with pytest.raises(SchemaError, match=r"says comment.*Upgrade"):
        read(fields | {"comment": "by hand"})


FLOW = replace(new(), scheduler=FlowEuler(1000, 3.0, 0.25, 28), unit="x0")


@pytest.mark.parametrize("scheduler", [FLOW.scheduler, FlowDpm(1000, 3.0, 20)], ids=type)
def test_a_flow(scheduler: Scheduler) -> None:
    flow = replace(FLOW, scheduler=scheduler)
    assert Manifest.from_json(flow.to_json(), ORIGIN) == flow


def test_a_model_that_draws_in_one_step(fields: Fields) -> None:
    fields["scheduler"]["inference_steps"] = 1
    assert read(fields).scheduler.inference_steps == 1


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "flow"},
        {"kind": ["flow-euler"]},
        {"kind": None},
        {"kind": "ddim"},
        {"shift": 0},
        {"shift": "3"},
        {"last": 1.5},
        {"num_train_timesteps": 0},
        {"sigmas": [1, 0]},
    ],
    ids=str,
)
def test_flows_that_are_none(change: Fields) -> None:
    fields = json.loads(FLOW.to_json())
    fields["scheduler"] |= change
    with pytest.raises(SchemaError, match="scheduler"):
        read(fields)


def test_a_unit_that_is_not_the_samplers(fields: Fields) -> None:
    with pytest.raises(IntegrityError, match=r"measures in x0.*\(ddim\) is measured in eps"):
        read({**fields, "unit": "x0"})
    with pytest.raises(SchemaError, match="unit"):
        read({**fields, "unit": "pixels"})


@pytest.mark.parametrize("embeddings", [[], ["prompt_embeds", "other"]])
def test_unknown_embeddings(fields: Fields, embeddings: list[str]) -> None:
    with pytest.raises(SchemaError, match="embeddings"):
        read({**fields, "embeddings": embeddings})


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_missing_field(fields: Fields, place: tuple[str, ...]) -> None:
    del parent(fields, place)[place[-1]]
    with pytest.raises(SchemaError):
        read(fields)


@pytest.mark.parametrize("place", PLACES, ids=".".join)
@pytest.mark.parametrize("value", [None, [], {"a": {"b": {}}}], ids=["null", "array", "object"])
def test_wrong_type(fields: Fields, place: tuple[str, ...], value: object) -> None:
    parent(fields, place)[place[-1]] = value
    with pytest.raises(SchemaError):
        read(fields)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("precision",), "int8"),
        (("model", "prediction_type"), "sample"),
        (("scheduler", "beta_schedule"), "cosine"),
        (("scheduler", "timestep_spacing"), "karras"),
        (("scheduler", "beta_start"), 0),
        (("scheduler", "beta_start"), -0.1),
        (("scheduler", "beta_end"), 1),
        (("scheduler", "inference_steps"), 0),
        (("scheduler", "num_train_timesteps"), 0),
        (("scheduler", "num_train_timesteps"), 10**12),
        (("tokenizer", "length"), 1),
        (("tokenizer", "length"), -1),
        (("tokenizer", "length"), 10**12),
        (("noise_bank", "shape"), [3, 4, 8]),
        (("noise_bank", "shape"), [0, 4, 8, 8]),
        (("noise_bank", "shape"), [-3, 4, 8, 8]),
        (("timestep",), 981.5),
        (("budget",), 0),
        (("probes",), []),
        (("probes",), [{"prompt": "a cat", "magnitudes": [0.5, -0.25, 1.5]}]),
    ],
)
def test_value_that_cannot_be(fields: Fields, place: tuple[str, ...], value: object) -> None:
    parent(fields, place)[place[-1]] = value
    with pytest.raises(SchemaError, match=place[-1]):
        read(fields)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "..",
        "/etc/passwd",
        "//host/share/x",
        "a\\b",
        "..\\x",
        "C:x",
        "C:/x",
        "x:stream",
        "",
        "./x",
        "a//b",
        "a/",
        "a\0b",
    ],
)
def test_name_that_leads_outside(fields: Fields, name: str) -> None:
    fields["files"][name] = {"sha256": "cd" * 32, "bytes": 12}
    with pytest.raises(IntegrityError, match="leads outside the bundle"):
        read(fields)


@unhurried
@given(st.text(alphabet="ab./\\:C\0~ ", max_size=8))
def test_no_accepted_name_leads_outside(name: str) -> None:
    fields = json.loads(new().to_json())
    fields["files"][name] = {"sha256": "cd" * 32, "bytes": 12}
    try:
        read(fields)
    except IntegrityError:
        return
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        assert not path.anchor
        assert ".." not in path.parts
        assert path.as_posix() == name


@pytest.mark.parametrize("name", ["a", "a.b", "a/b/c", "tokenizer/tokenizer.json", "..a", "a..b"])
def test_name_inside(fields: Fields, name: str) -> None:
    fields["files"][name] = {"sha256": "cd" * 32, "bytes": 12}
    assert name in read(fields).files


@pytest.mark.parametrize("count", [0, 2, 4])
def test_probes_that_do_not_fit_the_noises(fields: Fields, count: int) -> None:
    fields["probes"][0]["magnitudes"] = [0.5] * count
    with pytest.raises(IntegrityError, match="probes that do not fit its 3 noises"):
        read(fields)


def rename_graph(fields: Fields) -> None:
    fields["graphs"]["screen"] = "other.onnx"


def rename_bank(fields: Fields) -> None:
    fields["noise_bank"]["file"] = "../noise_bank.npy"


def unlist_graph(fields: Fields) -> None:
    del fields["files"]["step.onnx"]


@pytest.mark.parametrize("change", [rename_graph, rename_bank, unlist_graph])
def test_graph_without_file(fields: Fields, change: Callable[[Fields], None]) -> None:
    change(fields)
    with pytest.raises(IntegrityError, match="does not list it under `files`"):
        read(fields)


@pytest.mark.parametrize("graph", GRAPHS)
def test_missing_graph(fields: Fields, graph: str) -> None:
    del fields["graphs"][graph]
    with pytest.raises(IntegrityError, match=f"has no graph {graph}"):
        read(fields)
