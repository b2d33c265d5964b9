"""What schemathesis makes up from the OpenAPI document, sent to the service as it is run.

It is in an environment of its own (`make .venv/clients/installed`).
"""

from __future__ import annotations

import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
from service_support import running
from triton_server import CLIENTS

# what a schema cannot say: a prompt to explain has words, one of two fields is given
UNSAID = "positive_data_acceptance"
CONFIG = """
[parameters]
"path.name" = "mnemoscope"
"path.model" = "mnemoscope"
"path.version" = "1"
"""

pytestmark = [
    pytest.mark.slow(first=True),
    pytest.mark.skipif(
        not CLIENTS.with_name("schemathesis").exists(),
        reason="schemathesis has an environment of its own: make .venv/clients/installed",
    ),
]


def test_answers_are_what_openapi_says(tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    # by one worker: threads that parse at once fail in Python 3.11 itself
    with running(noises=1, show_scores=True) as (http, _):
        run = subprocess.run(
            [
                *(CLIENTS.with_name("schemathesis"), "run", f"{http}/openapi.json"),
                *("--phases", "examples,coverage,fuzzing", "--max-examples", "8"),
                *("--exclude-checks", UNSAID, "--seed", "20"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        with urllib.request.urlopen(f"{http}/metrics") as answer:
            metrics = answer.read().decode()
    assert run.returncode == 0, run.stdout
    assert "24 selected" in run.stdout
    outcomes = re.findall(r'mnemoscope_requests_total\{.*outcome="(\w+)"', metrics)
    assert "answered" in outcomes
    assert "failed" not in outcomes
