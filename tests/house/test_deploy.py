"""What is in deploy/: linted, and read by those it is for.

No image is built: test_installed.py does the steps of the Dockerfile in an environment.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_support import Run
from deploy_support import DEPLOY, DOCKERFILES, INSTALLED, instructions
from triton_server import CLIENTS

from mnemoscope.serve.service.options import ServiceOptions

UNIT = DEPLOY / "systemd" / "mnemoscope.service"
MANIFEST = DEPLOY / "kserve" / "inferenceservice.yaml"
KSERVES_OWN = {"minReplicas", "timeout"}
needs_linters = pytest.mark.skipif(
    not CLIENTS.with_name("hadolint").exists(),
    reason="linters have an environment of their own: make .venv/clients/installed",
)
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here"
)


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, check=False, **options
    )


def commands() -> Iterator[tuple[str, list[str]]]:
    """What starts the service, in each of the files."""
    for dockerfile in DOCKERFILES:
        yield dockerfile.name, json.loads(instructions(dockerfile)["CMD"])
    [start] = re.findall(r"^ExecStart=(.+)$", UNIT.read_text(), re.MULTILINE)
    program, *arguments = shlex.split(start)
    assert program == f"{INSTALLED}/bin/mnemoscope"
    yield UNIT.name, arguments
    yield MANIFEST.name, container()["args"]


def predictor() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())["spec"]["predictor"]
    return found


def container() -> Any:
    [found] = predictor()["containers"]
    return found


@needs_linters
@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_linted(file: Path) -> None:
    result = run(CLIENTS.with_name("hadolint"), "--no-color", file)
    assert (result.returncode, result.stdout) == (0, "")


@needs_linters
def test_the_linter_sees_what_is_bad(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /tmp && pip install x\n")
    result = run(CLIENTS.with_name("hadolint"), bad)
    assert result.returncode != 0
    assert "DL3006" in result.stdout


@needs_linters
def test_compose_reads_its_file() -> None:
    result = run(
        CLIENTS.with_name("docker-compose"),
        "-f",
        DEPLOY / "compose.yaml",
        "config",
        "--format=json",
    )
    assert result.returncode == 0, result.stderr
    config = json.loads(result.stdout)
    mounts = [
        each for service in config["services"].values() for each in service.get("volumes", ())
    ]
    for source in (each["source"] for each in mounts if each["type"] == "bind"):
        assert Path(source).is_file(), source
    build = config["services"]["mnemoscope"]["build"]
    assert (Path(build["context"]) / build["dockerfile"]).is_file()
    for service in config["services"].values():
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1"
    told = {name: yaml.safe_load(each["content"]) for name, each in config["configs"].items()}
    [source] = told["datasources"]["datasources"]
    assert f'"uid": "{source["uid"]}"' in (DEPLOY / "grafana" / "mnemoscope.json").read_text()
    [job] = told["prometheus"]["scrape_configs"]
    assert f'job="{job["job_name"]}"' in (DEPLOY / "prometheus" / "rules.yml").read_text()


@pytest.mark.parametrize(
    ("file", "arguments"), [pytest.param(*each, id=each[0]) for each in commands()]
)
def test_every_command_is_one_of_ours(
    run: Run, monkeypatch: pytest.MonkeyPatch, file: str, arguments: list[str]
) -> None:
    started: list[ServiceOptions] = []

    async def serve(options: ServiceOptions, _: object) -> None:
        started.append(options)

    monkeypatch.setattr("mnemoscope.serve.service.running.serve", serve)
    result = run(*arguments)
    assert result.code == 0, result.err
    [options] = started
    assert options.host == ("127.0.0.1" if file == UNIT.name else "0.0.0.0")
    assert not options.show_scores
    assert not options.control


@pytest.mark.parametrize("file", [*DOCKERFILES, UNIT], ids=lambda path: path.name)
def test_what_is_installed_watches_drift(file: Path) -> None:
    [extras] = re.findall(r"'(?:\.|mnemoscope)\[(.+)\]'", file.read_text())
    assert {"calibrate", "serve"} <= set(extras.split(","))


def test_the_manifest_asks_where_the_service_listens() -> None:
    found = container()
    [port] = found["ports"]
    assert f"--port={port['containerPort']}" in found["args"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert found[probe]["httpGet"]["port"] == port["containerPort"]
        assert found[probe]["httpGet"]["path"] in ("/v2/health/live", "/v2/health/ready")


@needs_linters
@pytest.mark.parametrize("misspelt", [False, True])
def test_kubernetes_takes_the_pod(tmp_path: Path, misspelt: bool) -> None:
    """KServe's predictor is a pod's spec, and what KServe adds to it."""
    spec = {name: each for name, each in predictor().items() if name not in KSERVES_OWN}
    if misspelt:
        spec["containers"][0]["redinessProbe"] = {}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mnemoscope"}, "spec": spec}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
    result = run(CLIENTS.with_name("kubernetes-validate"), "--strict", tmp_path / "pod.yaml")
    assert (result.returncode != 0) is misspelt, result
    assert ("redinessProbe" in result.stdout + result.stderr) is misspelt


@needs_systemd
def test_systemd_reads_its_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(f"{INSTALLED}/bin/mnemoscope", sys.executable))
    result = run("systemd-analyze", "verify", unit)
    assert (result.returncode, result.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("DynamicUser=yes", "DynamikUser=yes"))
    assert "DynamikUser" in run("systemd-analyze", "verify", unit).stderr


@needs_systemd
def test_the_unit_is_locked_up() -> None:
    result = run("systemd-analyze", "security", "--offline=true", "--threshold=15", UNIT)
    assert result.returncode == 0, result.stdout[-300:]
