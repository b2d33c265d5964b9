"""What is checked of a site that was built: nothing here knows how it was made."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
_LOADS = {("link", "href"), ("object", "data"), ("use", "href")}  # and whatever has a src


class Page(HTMLParser):
    """What a page links to, what it loads, and what in it can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.ids.add(value)
            elif name == "class":
                self.classes.update((value or "").split())
            elif tag == "a" and name == "href" and value:
                self.links.add(value)
            elif value and (name in ("src", "srcset", "poster") or (tag, name) in _LOADS):
                self.loads.add(value)


def faults(site: Path) -> Iterator[str]:
    """What is wrong with a site.

    Args:
        site: Its folder.
    """
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site).as_posix()
        for address in sorted(page.loads):
            if urlsplit(address).netloc:
                yield f"{where} loads {address}"
        if "mermaid" in page.classes:  # the theme would load what draws it
            yield f"{where} has a diagram that another host draws"
        if where != "404.html":  # whose addresses are from the root of a server
            yield from (f"{where}: {each}" for each in _dead(site, path, pages))
    for style in sorted(site.rglob("*.css")):
        for address in re.findall(
            r"(?:@import|url\()\s*[\"']?(\w+://[^)\"';]+)", style.read_text()
        ):
            yield f"{style.relative_to(site)} loads {address}"
    yield from _without_entry(pages, site)


def _dead(site: Path, path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    page = pages[path]
    for address in sorted(page.links | page.loads):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if target.is_dir():
            target /= "index.html"
        if not target.is_relative_to(site.resolve()) and target != path:
            yield f"{address} leads out of the site"
        elif not target.exists():
            yield f"{address} leads nowhere"
        elif parts.fragment and target.suffix == ".html":
            found = pages.get(site / target.relative_to(site.resolve())) if parts.path else page
            if found is not None and unquote(parts.fragment) not in {*found.ids, "__skip"}:
                yield f"{address} leads to no heading"


def _without_entry(pages: dict[Path, Page], site: Path) -> Iterator[str]:
    """Public names that the reference does not have."""
    for package, names in public_names().items():
        page = pages.get(site / "reference" / "api" / f"{package}.html")
        for name in names:
            if page is None or f"{package}.{name}" not in page.ids:
                yield f"{package}.{name} has no entry in the reference"
    for module, name, where in imported_names():
        page = pages.get(site / "reference" / "api" / f"{module}.html")
        if f"{module}.{name}" in public_names():
            continue  # a package
        if page is None or f"{module}.{name}" not in page.ids:
            yield f"{where} imports {module}.{name}, which has no entry in the reference"


@cache
def public_names() -> dict[str, tuple[str, ...]]:
    """What each package says in its `__all__`."""
    found = {}
    for room in ("runtime", "export", "sdk"):
        for file in sorted((ROOT / room).rglob("__init__.py")):
            package = ".".join(file.parent.relative_to(ROOT / room).parts)
            for node in ast.parse(file.read_text("utf-8")).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                    found[package] = tuple(ast.literal_eval(node.value))
    return found


def imported_names() -> Iterator[tuple[str, str, str]]:
    """Module, name and place of whatever pages and examples import of ours."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for path in [*pages, *sorted((ROOT / "examples").glob("*.py"))]:
        text = path.read_text("utf-8")
        blocks = (
            re.findall(r"^```python\n(.*?)^```", text, re.S | re.M) if path in pages else [text]
        )
        pattern = r"^from (mnemoscope[\w.]*) import (?:\(([^)]*)\)|(.*))$"
        for block in blocks:
            for module, several, one in re.findall(pattern, block, re.M):
                for name in re.sub(r"#.*", "", several or one).split(","):
                    if word := name.split(" as ")[0].strip():
                        yield module, word, path.relative_to(ROOT).as_posix()
