"""What pictures said of a list, in four numbers and a few sentences for who does not read code.

What was counted and what is estimated from a sample are told apart.
"""

from __future__ import annotations

from ..prompts.printable import counted
from .confirming import Confirmation
from .confirming.estimates import Estimate, Part, total

__all__ = ["numbers", "sentences"]

_UNKNOWN = "not known"


def numbers(flagged: int, confirmation: Confirmation) -> list[tuple[str, str]]:
    """The result in four numbers, and what each is.

    Args:
        flagged: How many captions the audit flags.
        confirmation: What came of drawing captions.
    """
    repeats = confirmation.repeats
    return [
        (f"{flagged:,}", "captions flagged"),
        _confirmed(confirmation),
        _missed(confirmation),
        (
            _UNKNOWN if repeats is None else f"{int(repeats.dropped.sum()):,}",
            "pictures that repeat another",
        ),
    ]


def sentences(flagged: int, confirmation: Confirmation) -> list[str]:
    """The result in words; arguments as of `numbers`."""
    return [*_drawn(confirmation), *_left_out(flagged, confirmation), *_repeated(confirmation)]


def _confirmed(confirmation: Confirmation) -> tuple[str, str]:
    whole = _whole(confirmation.flagged)
    if confirmation.copied_above is None or whole.drawn == whole.size:
        known = confirmation.copied_above is not None
        return f"{whole.found:,}" if known else _UNKNOWN, "of them confirmed by pictures"
    if not whole.drawn:
        return _UNKNOWN, "of them confirmed by pictures: none was drawn"
    return (
        f"{whole.found:,} of {whole.drawn:,}",
        "drawn were confirmed by pictures; an estimated "
        f"{_interval(total(confirmation.flagged))} of all flagged with a picture",
    )


def _missed(confirmation: Confirmation) -> tuple[str, str]:
    (others,), missed = confirmation.others, confirmation.missed
    if missed is None:
        return _UNKNOWN, "memorised captions missed"
    if others.drawn == others.size:
        return f"{others.found:,}", "memorised captions missed"
    if not others.drawn:
        return _UNKNOWN, "memorised captions missed: no caption that is not flagged was drawn"
    many = (
        f"an estimated {_interval(missed)} of all are memorised and missed"
        if others.found
        else f"at most {missed.high:,.0f} of all are memorised and missed"
    )
    return (
        f"{others.found:,} of {others.drawn:,}",
        f"captions drawn as a check, not flagged, were confirmed; {many}",
    )


def _drawn(confirmation: Confirmation) -> list[str]:
    whole, (others,) = _whole(confirmation.flagged), confirmation.others
    first = f"The model drew {counted(whole.drawn, 'caption')} that it may have memorised"
    if confirmation.copied_above is None:
        return [
            f"{first}. Whether a drawing is its training picture nobody could tell: look at the "
            "pairs below."
        ]
    back = f"{first}, and for {whole.found:,} of them a training picture came back."
    if not others.size:
        return [back]
    return [
        back,
        f"It drew {others.drawn:,} of the {counted(others.size, 'caption')} that {_are(others)} "
        f"not flagged as a check, and for {others.found:,} of them one came back.",
    ]


def _left_out(flagged: int, confirmation: Confirmation) -> list[str]:
    without = flagged - _whole(confirmation.flagged).size
    if not without:
        return []
    have, are = ("has", "is") if without == 1 else ("have", "are")
    return [
        f"{counted(without, 'flagged caption')} {have} no picture that can be read, and {are} "
        "neither confirmed nor cleared."
    ]


def _repeated(confirmation: Confirmation) -> list[str]:
    repeats = confirmation.repeats
    if repeats is None:
        return ["Which pictures of the set repeat others is not known."]
    dropped, all_ = int(repeats.dropped.sum()), int((repeats.picture >= 0).sum())
    repeat = "repeats" if dropped == 1 else "repeat"
    return [
        f"{dropped:,} of {counted(all_, 'picture')} of the set {repeat} another one; the more "
        "often a model sees a picture, the sooner it memorises it."
    ]


def _whole(parts: tuple[Part, ...]) -> Part:
    """Parts of a list as one."""
    return Part(
        sum(part.size for part in parts),
        sum(part.drawn for part in parts),
        sum(part.found for part in parts),
    )


def _are(part: Part) -> str:
    return "is" if part.size == 1 else "are"


def _interval(estimate: Estimate) -> str:
    assert estimate.value is not None
    return f"{estimate.value:,.0f} ({estimate.low:,.0f} to {estimate.high:,.0f})"
