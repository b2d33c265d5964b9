"""Options of a config, and the values of each that are covered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Option",
    "flag",
    "free",
    "names",
    "number",
    "off",
    "only",
    "problems",
    "shown",
    "taken",
    "unequal",
    "whole",
]

# what diffusers writes of itself into every config
_OF_THE_LIBRARY = frozenset(
    {"_class_name", "_diffusers_version", "_name_or_path", "_use_default_values", "_commit_hash"}
)


@dataclass(frozen=True)
class Option:
    """One option: which values are covered.

    Attributes:
        fits: Whether a value is covered.
        wanted: The same in words, after "must be".
        default: What the library takes where a config does not say.
    """

    fits: Callable[[Any], bool]
    wanted: str
    default: Any = None

    def spoken(self, value: Any) -> str:
        """ "VALUE (must be ...)" """
        return f"{shown(value)} (must be {self.wanted})"


def only(*values: Any, default: Any = ...) -> Option:
    """These values, the first of which the library takes unless another default is given."""

    def fits(value: Any) -> bool:
        return any(isinstance(value, bool) == isinstance(v, bool) and value == v for v in values)

    wanted = " or ".join(map(shown, values))
    return Option(fits, wanted, values[0] if default is ... else default)


def flag(*, default: bool) -> Option:
    """True or false; null is false."""
    return Option(lambda value: value is None or isinstance(value, bool), "true or false", default)


def off(*, default: bool | None = False) -> Option:
    """False, or null, which the libraries take for the same."""
    return Option(lambda value: value is None or value is False, "false", default)


def number(default: float | None) -> Option:
    """Any number."""
    return Option(
        lambda v: isinstance(v, int | float) and not isinstance(v, bool), "a number", default
    )


def whole(
    default: Any, least: int = 1, *, lists: bool = False, nulls: bool = False, odd: bool = False
) -> Option:
    """A whole number, no less than `least`.

    Args:
        default: What the library takes.
        least: The smallest.
        lists: A list of such, or of lists, will do too.
        nulls: So will null.
        odd: An even one will not.
    """

    def fits(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return lists and len(value) > 0 and all(map(fits, value))
        if value is None:
            return nulls
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and (value >= least and (not odd or value % 2 == 1))
        )

    kind = f"{'an odd' if odd else 'a whole'} number of at least {least}"
    return Option(
        fits, f"{kind}{', or a list' if lists else ''}{', or null' if nulls else ''}", default
    )


def names(*known: str, default: Any = None) -> Option:
    """A list of these names."""

    def fits(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and len(value) > 0
            and set(map(str, value)) <= set(known)
        )

    return Option(fits, f"of {' and '.join(known)}", default)


def free(default: Any = None) -> Option:
    """Anything: nothing that is measured depends on it."""
    return Option(lambda _: True, "anything", default)


def problems(options: Mapping[str, Option], config: Mapping[str, Any]) -> list[str]:
    """What in a config is not covered: options by name, with their values.

    A name that is not in the table may mean anything, so it is not covered either.
    """
    found = []
    for name, option in options.items():
        value = config.get(name, option.default)
        if not option.fits(value):
            found.append(f"{name} is {option.spoken(value)}")
    unknown = sorted(set(config) - set(options) - _OF_THE_LIBRARY)
    return [*found, *(f"{name}, an option that is not known here" for name in unknown)]


def taken(options: Mapping[str, Option], config: Mapping[str, Any]) -> dict[str, Any]:
    """What a library takes of a config, option by option: its default where that does not say."""
    return {name: config.get(name, option.default) for name, option in options.items()}


def unequal(own: Mapping[str, Any], *wanted: tuple[str, str, Any]) -> list[str]:
    """Which options are not what other parts of a model make them.

    Args:
        own: Options by name; see `taken`.
        wanted: Name of each, the value that it must have in words, and the value.
    """
    return [
        f"{option} is {own[option]} (must be {words}, {value})"
        for option, words, value in wanted
        if own[option] != value
    ]


def shown(value: Any) -> str:
    """A value as it stands in the file."""
    plain = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return plain[value]
    return f"{value!r:.60}"
