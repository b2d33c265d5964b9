"""Files of the repository that pages link to: the site has them, too, in its folder `files`."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def place(path: str) -> str:
    """Where the site has a file of the repository; of a folder, the page that lists it."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"files/{path}/index.md" if (ROOT / path).is_dir() else f"files/{path}"


def moved(markdown: str, source: str) -> tuple[str, set[str]]:
    """A page with its links as they are in the site, and what outside of docs they lead to.

    Args:
        markdown: The page.
        source: Where it is in the repository; a folder for the page that lists it.
    """
    found: set[str] = set()
    here = posixpath.dirname(place(source))
    base = source if (ROOT / source).is_dir() else posixpath.dirname(source)

    def move(link: re.Match[str]) -> str:
        if re.match(r"[a-z]+:", link[2]):
            return link[0]
        target = posixpath.normpath(posixpath.join(base, link[2]))
        if not (ROOT / target).exists():
            return link[0]  # a page that is made, or a link that MkDocs will complain of
        if not target.startswith("docs/"):
            found.add(target)
        return link[1] + posixpath.relpath(place(target), here or ".") + link[3]

    return _LINK.sub(move, markdown), found


def listing(folder: str) -> str:
    """A page that links to all files of a folder."""
    files = sorted(
        path.relative_to(ROOT / folder).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    return "\n".join([f"# {folder}", "", *(f"- [{each}]({each})" for each in files), ""])
