"""/v1/explain."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from served import MEMORISED, Served, served

from mnemoscope import Detector, InputError
from mnemoscope.explain import Explainer, Explanation, explain


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served(show_scores=True, timeout=5.0) as found:
        yield found


def test_it_says_what_the_sdk_says(service: Served) -> None:
    answer = service.post("/v1/explain", {"prompt": MEMORISED}).json()
    expected = explain(MEMORISED, noises=1)
    assert answer["memorized"] is True
    assert [(each["word"], each["kind"]) for each in answer["words"]] == [
        (each.word, each.kind) for each in expected.words
    ]
    found = [each["score"] for each in answer["words"]]
    assert found == pytest.approx([each.score for each in expected.words], abs=1e-3)
    assert answer["method"] == "occlusion"
    assert answer["bundle"] == expected.bundle


def test_it_is_not_told_where_scores_are_hidden() -> None:
    with served() as service:
        answer = service.post("/v1/explain", {"prompt": MEMORISED})
    assert answer.status_code == 403
    assert "--show-scores" in answer.json()["error"]


def test_what_cannot_be_explained_says_why(service: Served) -> None:
    assert service.post("/v1/explain", {"prompt": ""}).status_code == 400
    assert service.post("/v1/explain", {"prompt": "a", "method": "gradient"}).status_code == 400
    assert service.post("/v1/explain", {"prompt": "a", "model": "b"}).status_code == 404


def test_half_an_all_clear_is_none_where_the_operator_says_so() -> None:
    told = {"prompt": "word " * 76}
    with served(show_scores=True, refuse_truncated=True) as service:
        found = service.post("/v1/explain", told).json()
    assert found["unread"]
    assert found["memorized"] is None


def test_explanations_do_not_take_for_ever_and_do_not_hold_prompts_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(*_: object, **__: object) -> None:
        time.sleep(0.5)

    monkeypatch.setattr(Explainer, "explain", slow)
    with served(show_scores=True, timeout=0.2) as service:
        answer = service.post("/v1/explain", {"prompt": "a cat"})
        assert answer.status_code == 504
        assert "no explanation within 0.2 s." in answer.json()["error"]
        assert service.post("/v1/screen", {"prompt": "a cat"}).status_code == 200


def test_a_bundle_that_takes_over_explains_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    explained, tried = Explainer.explain, 0

    with served(show_scores=True) as service:
        detector = service.whole.models.get("mnemoscope")

        def interrupted(explainer: Explainer, *args: Any, **told: Any) -> Explanation:
            nonlocal tried
            tried += 1
            if tried == 1:
                old, detector.detector = detector.detector, Detector.load(threads=1)
                old.close()
            return explained(explainer, *args, **told)

        monkeypatch.setattr(Explainer, "explain", interrupted)
        answer = service.post("/v1/explain", {"prompt": "a cat"})
    assert (answer.status_code, tried) == (200, 2)


def test_so_many_may_wait_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def held(*_: object, **__: object) -> None:
        go.wait(20)
        raise InputError("no more")

    monkeypatch.setattr(Explainer, "explain", held)
    with served(show_scores=True) as service:

        async def main() -> list[int]:
            transport = httpx.ASGITransport(service.whole.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                asked = [
                    asyncio.ensure_future(client.post("/v1/explain", json={"prompt": "a"}))
                    for _ in range(12)
                ]
                done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                refused = [each.result() for each in done]
                assert all(int(each.headers["retry-after"]) >= 1 for each in refused)
                go.set()
                return [(await each).status_code for each in asked]

        found = service.run(main())
    assert set(found) == {400, 429}
    assert 3 <= found.count(429) <= 4  # one is worked on, or waits as well
