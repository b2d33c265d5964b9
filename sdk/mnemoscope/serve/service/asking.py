"""What every protocol asks: prompts of a model, within a time, all counted in one place."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Literal

from mnemoscope_runtime.errors import InputError, MnemoscopeError
from mnemoscope_runtime.wording import counted

from ...screening.detection import Detection
from .models import Models
from .tracing import screening

__all__ = ["Found", "Protocol", "Request", "Service"]

Protocol = Literal["http", "grpc", "v1", "litellm"]
_log = logging.getLogger(__name__)
_CUT = "Of a part this service gives no all-clear: send a shorter prompt."
Found = Detection | MnemoscopeError


@dataclass(frozen=True)
class Request:
    """One that ended, for whoever counts; nothing in it tells what the prompts were.

    Attributes:
        protocol: How it came.
        model: The model's name; empty if there is none of the name that was asked for.
        prompts: How many it had.
        seconds: From when it was read until it was answered.
        scores: Of prompts that have a verdict.
        flagged: How many prompts are memorised.
        errors: Why there are no verdicts, as names of error classes, or NoVerdict for what was
            measured and has none: one for each prompt, or one for the whole request.
    """

    protocol: Protocol
    model: str
    prompts: int
    seconds: float
    scores: tuple[float, ...]
    flagged: int
    errors: tuple[str, ...]


class Service:
    """Models, and those who are told of every request."""

    def __init__(self, models: Models, observe: Sequence[Callable[[Request], None]] = ()) -> None:
        """Take models over, which somebody else starts and closes.

        Args:
            models: The models.
            observe: Each is told of every request, in the loop: it has to be quick.
        """
        self.models = models
        self.options = models.options
        self._observe = tuple(observe)

    async def screen(
        self,
        name: str,
        prompts: Sequence[str],
        *,
        protocol: Protocol,
        version: str = "",
        timeout: float | None = None,
    ) -> list[Found]:
        """Screen prompts. Who is cancelled, or waits no longer, is not measured.

        Args:
            name: The model.
            prompts: At most as many as the options say.
            protocol: How they came.
            version: The model's; any if empty.
            timeout: Seconds that the client waits, if fewer than the options say.

        Returns:
            A detection of each prompt, or why there is none.

        Raises:
            InputError: there are too many prompts, or none.
            Unserved: no such model, none that answers, or too many prompts are waiting.
            TimeoutError: the time is over.
        """
        start = time.perf_counter()
        found: list[Found] = []
        wrong: BaseException | None = None
        try:
            with screening(protocol, name if name in self.models else "", len(prompts)):
                found = await self._screen(name, prompts, version, timeout)
        except BaseException as error:
            wrong = error
            raise
        finally:
            self._tell(name, len(prompts), time.perf_counter() - start, protocol, found, wrong)
        return found

    async def _screen(
        self, name: str, prompts: Sequence[str], version: str, timeout: float | None
    ) -> list[Found]:
        options = self.options
        detector = self.models.get(name, version)
        if not 1 <= len(prompts) <= options.prompts:
            raise InputError(
                f"The request has {counted(len(prompts), 'prompt')}. Send 1 to {options.prompts} "
                "at a time."
            )
        seconds = options.timeout if timeout is None else min(timeout, options.timeout)
        asked = detector.submit_all(prompts, steps=options.steps, noises=options.noises)
        try:
            async with asyncio.timeout(seconds):
                found = [await _outcome(each) for each in asked]
        except TimeoutError:
            raise TimeoutError(
                f"There was no answer within {max(seconds, 0):.3g} s. Nothing is known of "
                "these prompts: ask again, or wait longer."
            ) from None
        finally:
            for each in asked:
                each.cancel()  # does nothing to those that are done
        return [_whole(each) for each in found] if options.refuse_truncated else found

    def _tell(
        self,
        name: str,
        prompts: int,
        seconds: float,
        protocol: Protocol,
        found: Sequence[Found],
        wrong: BaseException | None,
    ) -> None:
        detections = [each for each in found if isinstance(each, Detection)]
        errors = [
            type(each).__name__ for each in (*found, wrong) if isinstance(each, BaseException)
        ]
        errors += ["NoVerdict" for each in detections if each.memorized is None]
        known = name in self.models
        if known:
            self.models.find(name).statistics.request(seconds, answered=not errors)
        request = Request(
            protocol=protocol,
            model=name if known else "",
            prompts=prompts,
            seconds=seconds,
            scores=tuple(each.score for each in detections if each.memorized is not None),
            flagged=sum(each.memorized is True for each in detections),
            errors=tuple(errors),
        )
        for observe in self._observe:
            try:
                observe(request)
            except Exception:
                _log.exception("What observes requests failed; they are answered all the same")


def _whole(found: Found) -> Found:
    """What was found, without the verdict if it is an all-clear for part of a prompt."""
    if isinstance(found, Detection) and found.truncated and found.memorized is False:
        return replace(found, memorized=None, notes=(*found.notes, _CUT))
    return found


async def _outcome(asked: Future[Detection]) -> Found:
    try:
        return await asyncio.wrap_future(asked)
    except MnemoscopeError as error:
        return error
