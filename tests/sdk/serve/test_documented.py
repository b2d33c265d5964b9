"""The page on serving."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess

import httpx
import pytest
import typer
from documented import named_in_table, run_code
from repository import ROOT
from service_support import running

from mnemoscope.cli import app as commands
from mnemoscope.serve.service.answer import OUTPUTS
from mnemoscope.serve.service.statuses import STATUSES


@pytest.mark.slow
def test_the_first_lines() -> None:
    found = run_code("serving.md", "async def main")["found"]
    assert [each.memorized for each in found] == [False, True]


@pytest.mark.slow
def test_the_middleware() -> None:
    app = run_code("serving.md", "add_middleware")["app"]

    @app.post("/v1/images/generations")
    async def draw() -> str:
        return "drawn"

    async def ask(prompt: str) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/v1/images/generations", json={"prompt": prompt})
            return answer.status_code

    async def main() -> list[int]:
        told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        said: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        life = asyncio.create_task(app({"type": "lifespan"}, told.get, said.put))
        await told.put({"type": "lifespan.startup"})
        await said.get()
        found = [
            await ask(each)
            for each in ("google icon of tokyo tower, on rings, in zagreb 2020", "a cat")
        ]
        await told.put({"type": "lifespan.shutdown"})
        await life
        return found

    assert asyncio.run(main()) == [400, 200]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl() -> None:
    page = (ROOT / "docs" / "serving.md").read_text("utf-8")
    [lines] = [each for each in re.findall(r"```sh\n(.*?)```", page, re.S) if "curl" in each]
    with running(noises=1) as (base, _):
        told = lines.replace("localhost:8000", base)
        run = subprocess.run(["sh", "-ec", told], capture_output=True, text=True, check=True)
    plain, end = json.JSONDecoder().raw_decode(run.stdout)
    assert [each["memorized"] for each in plain["results"]] == [False]
    outputs = {each["name"]: each["data"] for each in json.loads(run.stdout[end:])["outputs"]}
    assert outputs["memorized"] == [False]


def test_every_option_of_the_service_is_in_the_table() -> None:
    command = typer.main.get_command(commands).commands["serve"]  # type: ignore[attr-defined]
    options = {name for each in command.params for name in each.opts if name.startswith("--")}
    words = {word for cell in named_in_table("serving.md") for word in cell.split()}
    assert {word for word in words if word.startswith("--")} == options - {"--help"}


def test_every_output_and_status_is_named() -> None:
    page = (ROOT / "docs" / "serving.md").read_text("utf-8")
    _, _, run_it = page.partition("## Run it")
    for name in OUTPUTS:
        assert f"`{name}`" in run_it
    rows = [line.split("|")[1:3] for line in run_it.splitlines() if line.startswith("|")]
    for _, http, grpc in STATUSES:
        assert any(str(http) in row[0] and grpc in row[1] for row in rows), (http, grpc)
