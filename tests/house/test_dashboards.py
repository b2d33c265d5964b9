"""The queries of the dashboard and of the alerts, against what a service really tells.

PromQL's parser is in the environment of tritonclient (`make .venv/clients/installed`).
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from repository import ROOT
from served import MEMORISED, served
from triton_server import CLIENTS

from mnemoscope import NumericsError, Overloaded, embedded
from mnemoscope_runtime import errors

DASHBOARD = ROOT / "deploy" / "grafana" / "mnemoscope.json"
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
PARSER = Path(__file__).parents[1] / "support" / "in_promql.py"
TARGET = {"job", "instance"}  # labels that Prometheus adds
ERRORS = {*errors.__all__, "NoVerdict", "TimeoutError"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not [*CLIENTS.parent.parent.glob("lib/python3.*/site-packages/promql_parser")],
        reason="PromQL's parser has an environment of its own: make .venv/clients/installed",
    ),
]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def parsed(queries: list[str]) -> list[dict[str, Any]]:
    """What PromQL's parser reads, with Grafana's variables filled in."""
    filled = [
        each.replace("$__rate_interval", "5m").replace("$model", "mnemoscope") for each in queries
    ]
    run = subprocess.run(
        [CLIENTS, PARSER],
        input="".join(f"{json.dumps(each)}\n" for each in filled),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, set[str]]]:
    """Of every series the values of its labels, after a request of each kind."""
    patch = pytest.MonkeyPatch()
    with served(show_scores=True) as service, patch.context() as context:
        service.post("/v1/screen", {"prompts": [MEMORISED, "", "a" * 100_001]})
        benign = [each.prompt for each in embedded.read_prompts("held_out")[:30]]
        service.post("/v1/screen", {"prompts": benign})
        service.post("/v1/guard/litellm", {"texts": ["a cat"]})
        service.post("/v1/screen", {"prompt": "a cat", "model": "nosuch"})
        infer = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["a cat"]}
        service.post("/v2/models/mnemoscope/infer", {"inputs": [infer]})
        detector = service.whole.models.get("mnemoscope")
        for error in (Overloaded(9, 1.0), NumericsError("NaN")):

            def fail(*_: object, raised: Exception = error, **__: object) -> None:
                raise raised

            context.setattr(detector, "submit_all", fail)
            service.post("/v1/screen", {"prompt": "a cat"})
        text = service.get("/metrics").text
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, defaultdict(set))
            for label, value in sample.labels.items():
                labels[label].add(value)
    return found


def check(query: dict[str, Any], told: dict[str, dict[str, set[str]]]) -> None:
    known = {**told, "up": {}}
    assert query["series"]
    for series in query["series"]:
        assert series["name"] in known
        labels = known[series["name"]]
        for label, how, value in series["compared"]:
            assert label in {*labels, *TARGET}, (series["name"], label)
            if label == "type":
                assert set(value.split("|")) <= ERRORS
            elif label not in TARGET and how == "MatchOp.Equal":
                assert value in labels[label], (series["name"], label, value)
        assert {*query["by"]} <= {*labels, *TARGET}
    for name in query["rates"]:
        assert re.search("_(total|count|sum|bucket)$", name), f"{name} does not only rise"


def test_every_panel_asks_for_what_there_is(told: dict[str, dict[str, set[str]]]) -> None:
    targets = [(panel["title"], each["expr"]) for panel in panels() for each in panel["targets"]]
    queries = parsed([query for _, query in targets])
    assert len(queries) == len(targets) > 10
    for query in queries:
        check(query, told)


def test_every_alert_asks_for_what_there_is(told: dict[str, dict[str, set[str]]]) -> None:
    for rule, query in zip(rules(), parsed([each["expr"] for each in rules()]), strict=True):
        check(query, told)
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        first = query["series"][0]["name"]
        kept = set(query["by"]) if query["by"] else {*told.get(first, {}), *TARGET}
        assert named <= kept, rule["alert"]


def test_what_is_told_is_shown(told: dict[str, dict[str, set[str]]]) -> None:
    queries = [each["expr"] for panel in panels() for each in panel["targets"]]
    shown = {series["name"] for query in parsed(queries) for series in query["series"]}
    ours = {each for each in told if each.startswith("mnemoscope_")}
    ours = {each for each in ours if not each.endswith(("_created", "_sum", "_count"))}
    asked = {"mnemoscope_drift_prompts", "mnemoscope_model_ready", "mnemoscope_build_info"}
    assert ours - shown == asked  # by alerts, or by whoever looks


def test_panels_stand_beside_one_another() -> None:
    places: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        area = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not area & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= area
    assert len({panel["id"] for panel in panels()}) == len(panels())


@pytest.mark.parametrize(
    "query",
    [
        "rate(mnemoscope_nosuch_total[5m])",
        'rate(mnemoscope_errors_total{kind="InputError"}[5m])',
        'rate(mnemoscope_errors_total{type="Nosuch"}[5m])',
        'rate(mnemoscope_requests_total{outcome="lost"}[5m])',
        "sum by (prompt) (rate(mnemoscope_requests_total[5m]))",
        "rate(mnemoscope_queue_length[5m])",
    ],
)
def test_the_check_sees_what_is_wrong(told: dict[str, dict[str, set[str]]], query: str) -> None:
    [found] = parsed([query])
    with pytest.raises(AssertionError):
        check(found, told)
