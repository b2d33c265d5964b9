from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from service_support import BREAKS, MEMORISED, Gate, fake_detector, serving

from mnemoscope import (
    Detection,
    InputError,
    ModelNotReady,
    NumericsError,
    Overloaded,
    UnknownModel,
)
from mnemoscope.serve import Limits
from mnemoscope.serve.service.asking import Found, Request, Service

Work = Callable[[Service, list[Request]], Awaitable[None]]


def run(work: Work, **settings: Any) -> None:
    async def main() -> None:
        async with serving(**settings) as (service, told):
            await work(service, told)

    asyncio.run(main())


def gated(gate: Gate) -> Any:
    return lambda _, __: fake_detector(gate)


def test_each_prompt_has_its_own_outcome_and_all_are_told() -> None:
    async def work(service: Service, told: list[Request]) -> None:
        prompts = ["a cat", "", MEMORISED, BREAKS, "x" * 100_001]
        found = await service.screen("mnemoscope", prompts, protocol="v1")
        verdicts = [each.memorized for each in found if isinstance(each, Detection)]
        assert verdicts == [False, None, True]
        assert isinstance(found[3], NumericsError)
        assert isinstance(found[4], InputError)
        [request] = told
        assert (request.protocol, request.model, request.prompts) == ("v1", "mnemoscope", 5)
        assert request.scores == tuple(found[k].score for k in (0, 2))  # type: ignore[union-attr]
        assert request.flagged == 1
        assert sorted(request.errors) == ["InputError", "NoVerdict", "NumericsError"]
        assert 0 < request.seconds < 10
        assert not any(prompt and prompt in repr(request) for prompt in prompts)

    run(work)


def test_requests_that_are_refused_as_a_whole_are_told() -> None:
    async def work(service: Service, told: list[Request]) -> None:
        with pytest.raises(UnknownModel):
            await service.screen("a prompt, by mistake", ["a cat"], protocol="http")
        for prompts in ([], ["a cat"] * 3):
            with pytest.raises(InputError, match="Send 1 to 2 at a time"):
                await service.screen("mnemoscope", prompts, protocol="http")
        assert [each.errors for each in told] == [("UnknownModel",), *[("InputError",)] * 2]
        assert [each.model for each in told] == ["", "mnemoscope", "mnemoscope"]
        totals = service.models.find("mnemoscope").statistics.totals()
        assert (totals.success.count, totals.fail.count) == (0, 2)

    run(work, prompts=2)


async def held(service: Service, gate: Gate) -> asyncio.Task[list[Found]]:
    """A request that the engine works on until the gate opens."""
    gate.go.clear()
    gate.begun.clear()
    first = asyncio.create_task(service.screen("mnemoscope", ["a"], protocol="http"))
    await asyncio.to_thread(gate.begun.wait, 10)
    return first


def test_a_full_queue_takes_all_of_a_request_or_nothing() -> None:
    gate = Gate()
    gate.go.set()

    async def work(service: Service, told: list[Request]) -> None:
        first = await held(service, gate)
        second = asyncio.create_task(service.screen("mnemoscope", ["b"] * 3, protocol="http"))
        await asyncio.sleep(0.01)
        seen = gate.seen
        with pytest.raises(Overloaded, match="3 prompts are waiting, too many to take on 2 more"):
            await service.screen("mnemoscope", ["c", "d"], protocol="http")
        third = asyncio.create_task(service.screen("mnemoscope", ["e"], protocol="http"))
        gate.go.set()
        assert [len(await each) for each in (first, second, third)] == [1, 3, 1]
        assert gate.seen - seen == 1 + 3 + 1  # and nothing of the refused one
        assert [each.errors for each in told] == [("Overloaded",), (), (), ()]

    run(work, opens=gated(gate), limits=Limits(queue=4), prompts=4)


def test_who_waits_no_longer_is_not_measured() -> None:
    gate = Gate()
    gate.go.set()

    async def work(service: Service, told: list[Request]) -> None:
        first = await held(service, gate)
        with pytest.raises(TimeoutError, match=r"within 0\.01 s\."):
            await service.screen("mnemoscope", ["b", "c"], protocol="grpc", timeout=0.01)
        with pytest.raises(TimeoutError):
            await service.screen("mnemoscope", ["b"], protocol="grpc", timeout=-1)
        left = asyncio.create_task(service.screen("mnemoscope", ["d"], protocol="grpc"))
        await asyncio.sleep(0.01)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        seen = gate.seen
        gate.go.set()
        await first
        await service.screen("mnemoscope", ["e"], protocol="http")
        assert gate.seen - seen == 2
        names = [each.errors for each in told]
        assert names == [("TimeoutError",), ("TimeoutError",), ("CancelledError",), (), ()]

    run(work, opens=gated(gate))


def test_the_services_own_time_is_the_most() -> None:
    gate = Gate()
    gate.go.set()

    async def work(service: Service, _: list[Request]) -> None:
        gate.go.clear()
        with pytest.raises(TimeoutError, match=r"within 0\.05 s\."):
            await service.screen("mnemoscope", ["a"], protocol="http", timeout=1000)
        gate.go.set()

    run(work, opens=gated(gate), timeout=0.05)


def test_what_is_not_ready_is_told() -> None:
    async def work(service: Service, told: list[Request]) -> None:
        await service.models.unload("mnemoscope")
        with pytest.raises(ModelNotReady):
            await service.screen("mnemoscope", ["a"], protocol="http")
        assert told[0].errors == ("ModelNotReady",)

    run(work, control=True)


def test_who_observes_cannot_keep_answers_back(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving() as (service, _):
            counted: list[Request] = []

            def fails(_: Request) -> None:
                raise ValueError

            other = Service(service.models, [fails, counted.append])
            [found] = await other.screen("mnemoscope", ["a cat"], protocol="http")
            assert isinstance(found, Detection)
            assert len(counted) == 1

    asyncio.run(main())
    assert "ValueError" in caplog.text
