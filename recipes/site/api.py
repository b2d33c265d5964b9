"""A page for each package, of the names in its `__all__`."""

from __future__ import annotations

from collections.abc import Iterator

from .names import packages

# classes in two files: what their bases have is described with them
WHOLE = ("mnemoscope_export.models.base.Model", "mnemoscope_runtime.screener.Screener")


def pages() -> Iterator[tuple[str, str]]:
    """Path and Markdown of each. A name that several packages have is described in the shortest."""
    homes: dict[str, str] = {}
    for package in sorted(packages(), key=lambda each: (each.count("."), "_" in each, each)):
        for name in packages()[package]:
            homes.setdefault(name.home, name.path)
    for package, names in packages().items():
        told = [
            f"# `{package}`",
            f"::: {package}\n    options: {{members: false, heading_level: 2}}",
        ]
        for name in sorted(names, key=lambda each: each.path.rpartition(".")[2].lower()):
            if homes[name.home] == name.path:
                whole = "\n    options: {inherited_members: true}" if name.home in WHOLE else ""
                told.append(f"::: {name.path}{whole}")
            else:
                short = name.path.rpartition(".")[2]
                told.append(f'## `{short}`\n\n<a id="{name.path}"></a>is [`{homes[name.home]}`][].')
        yield f"reference/api/{package}.md", "\n\n".join([*told, ""])
