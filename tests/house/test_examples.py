from __future__ import annotations

import runpy

import pytest
from example_support import EXAMPLES, Example
from fastapi.testclient import TestClient
from service_support import MEMORISED

# their tests are elsewhere: what asks them, or what they ask, has a process of its own
ELSEWHERE = {"fastapi_service", "finetune", "triton_client"}
NAMES = sorted({path.stem for path in EXAMPLES.glob("*.py")} - ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_example_runs(example: Example, name: str) -> None:
    result = example(name)
    assert result.code == 0
    assert result.out


@pytest.mark.slow
def test_the_service_draws_what_is_not_memorised() -> None:
    app = runpy.run_path(str(EXAMPLES / "fastapi_service.py"))["app"]
    with TestClient(app) as client:

        def ask(prompt: str) -> tuple[int, bytes]:
            answer = client.post("/pictures", json={"prompt": prompt})
            return answer.status_code, answer.content

        status, picture = ask("a quiet harbour")
        assert (status, picture[:4]) == (200, b"\x89PNG")
        assert ask(MEMORISED)[0] == 400
        for unjudged in ("", "word " * 100, "a" * 100_001):
            assert ask(unjudged)[0] == 400
