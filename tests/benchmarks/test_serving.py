from __future__ import annotations

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import __main__ as serving
from benchmarks.serving import policy, soak
from benchmarks.serving.figures import bars, page, ratio
from benchmarks.serving.published import publish
from benchmarks.serving.servers import ROOT
from mnemoscope.serve import Limits

ARMS = ("bare engine", "AsyncDetector", "naive endpoint", "serve, HTTP JSON")


@pytest.mark.slow
@pytest.mark.skipif(
    not serving.CLIENTS.exists(),
    reason="tritonclient has an environment of its own: make .venv/clients/installed",
)
def test_every_arrival_is_answered_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--seconds", "0.1", "--rounds", "1", "--load", "0.5", "--load", "3", "--no-triton"]
    serving.main([*options, "--queue", "1", "--output", str(tmp_path)])
    report = json.loads((tmp_path / "serving.json").read_bytes())
    arms = (*ARMS, "serve, HTTP binary", "serve, gRPC")
    for load in (0.5, 3.0):
        turns = {row["arm"]: row for row in report["rows"] if row["load"] == load}
        assert set(turns) == set(arms)
        for arm, turn in turns.items():
            expected = max(2, int(load * report["capacity"] * 0.1))
            assert turn["failed"] == 0, turn["error"]
            assert len(turn["seconds"]) + turn["refused"] == expected
            assert min(turn["seconds"]) > 0
            assert turn["cpu"] > 0
            queues = arm.startswith(("serve", "Async"))
            assert bool(turn["refused"]) == (queues and load == 3.0) or load == 0.5
    assert all(rate > 0 for [rate] in report["throughput"].values())
    assert "300%" in capsys.readouterr().out
    assert (tmp_path / "serving.png").stat().st_size > 10_000
    assert "| 50% | bare engine |" in (tmp_path / "serving.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_service_is_asked_over_and_over(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        soak.main(["--calls", "100", "--every", "50", "--output", str(tmp_path)])
    [row] = json.loads((tmp_path / "serving-soak.json").read_bytes())["rows"]
    assert (row["backend"], row["calls"], len(row["rss"])) == ("serve", 100, 3)
    assert caught.value.code == (row["growth"] > 0.01)


def test_another_status_than_the_right_one_ends_the_soak() -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        client = soak.Client(f"127.0.0.1:{server.server_port}")
        with pytest.raises(RuntimeError, match="GET /metrics was answered with 204, not 200"):
            client.ask(("GET", "/metrics", b"", 200))
        thread.join()


@pytest.mark.slow
def test_what_a_queue_does_is_told_for_each_setting(tmp_path: Path) -> None:
    policy.main(["--seconds", "0.3", "--output", str(tmp_path)])
    *_, last = (tmp_path / "serving-policy.md").read_text().splitlines()
    assert last.startswith("| the same with `--wait 0.002` | ")
    assert len(re.findall(r"[\d.]+, [\d.]+, [\d.]+%", last)) == 3


def test_all_who_ask_are_answered_or_refused() -> None:
    asked = policy.ask(Limits(batch=1, queue=1, patience=0.001), 20, 0.2)
    assert asked.refused
    assert len(asked.seconds) + asked.refused == 83
    assert min(asked.seconds) > 0.048


def made_up(served: list[float], more: float) -> dict[str, Any]:
    """Two rounds, in the second of which all takes twice as long."""
    rows = [
        {"arm": arm, "load": load, "round": turn, "cpu": 0.1, "refused": 0, "failed": 0}
        | {"seconds": [(turn + 1) * second for second in seconds]}
        for load in (0.5, 1.5)
        for turn in range(2)
        for arm, seconds in (("bare engine", [1.0, 2.0, 3.0]), ("serve, gRPC", served))
    ]
    throughput = {"bare engine": [1.0, 0.5], "naive endpoint": [1.0, 0.5]}
    return {
        **{"rows": rows, "throughput": throughput | {"serve, gRPC": [more, more / 2]}},
        **{"capacity": 10.0, "clients": 8, "machine": "m", "rounds": 2, "seconds": 1.0, "queue": 4},
        **{"lanes": 2, "wait": 0.002, "patience": 0.02},
    }


def test_ratios_are_within_a_round() -> None:
    assert ratio(made_up([2.0, 4.0, 6.0], 1), "serve, gRPC", 0.5, 50) == pytest.approx(2)


@pytest.mark.parametrize(
    ("served", "more", "met"),
    [([1.2, 2.4, 3.6], 1.3, [True] * 4), ([1.6, 3.2, 4.8], 1.2, [False, False, True, False])],
)
def test_bars(served: list[float], more: float, met: list[bool]) -> None:
    report = made_up(served, more)
    assert [bar.is_met for bar in bars(report)] == met
    assert page(report).count("missed") == met.count(False)


def test_a_run_is_published_where_the_docs_have_it(tmp_path: Path) -> None:
    report = made_up([1.2, 2.4, 3.6], 1.25)
    report["rows"] += [row | {"load": 0.25} for row in report["rows"] if row["load"] == 0.5]
    for folder in ("docs/images", "benchmarks/results"):
        (tmp_path / folder).mkdir(parents=True)
    page = tmp_path / "docs" / "serving.md"
    real = (ROOT / "docs" / "serving.md").read_text("utf-8")
    page.write_text(real, "utf-8")
    del report["throughput"]["naive endpoint"]
    for _ in range(2):  # over what was there
        publish(report, tmp_path)
    text = page.read_text("utf-8")
    assert "| serve, gRPC | x 1.20 | x 1.20 | x 1.20 | 5,364 ms | 100.0 | 1 |" in text
    assert "| serve, gRPC: p50 at 50 %, x bare | <= 1.3 | 1.20 |" in text
    assert text.count("| bar | goal | found |") == 1
    assert text.startswith(real[:1000])
    assert text.endswith(real[-1000:])
    assert (
        json.loads((tmp_path / "benchmarks/results/embedded-serving.json").read_bytes()) == report
    )
    assert (tmp_path / "docs/images/serving.png").stat().st_size > 10_000
    page.write_text("# Serving\n")
    with pytest.raises(ValueError, match="Put them back"):
        publish(report, tmp_path)


def test_nothing_answered_is_no_bar_reached() -> None:
    report = made_up([], 1.3)
    assert [bar.is_met for bar in bars(report)] == [False, False, False, True]
