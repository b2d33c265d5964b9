"""MkDocs asks these: pages made from the code, and files that pages link to."""

from __future__ import annotations

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

from recipes.site import api, commands
from recipes.site.outside import ROOT, listing, moved, place


def on_config(config: MkDocsConfig) -> None:
    """The pages of packages have their places under Reference."""
    for section in config.nav or ():
        for entry in section.get("Reference", ()):
            if isinstance(entry, dict) and "API" in entry:
                entry["API"] = [path for path, _ in api.pages()]


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    """Add what is made, and what is linked to, and what that links to."""
    waiting: set[str] = set()
    for page in files.documentation_pages():
        waiting |= moved(page.content_string, f"docs/{page.src_uri}")[1]
    for path, text in {"reference/cli.md": commands.page(), **dict(api.pages())}.items():
        files.append(File.generated(config, path, content=text))
    seen: set[str] = set()
    while waiting:
        target = waiting.pop()
        seen.add(target)
        waiting |= _add(files, config, target) - seen


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Links out of docs lead to the copies."""
    path = page.file.src_uri
    copied = path.removeprefix("files/").removesuffix("/index.md")
    return moved(markdown, copied if path.startswith("files/") else f"docs/{path}")[0]


def _add(files: Files, config: MkDocsConfig, target: str) -> set[str]:
    """Add a file or a folder of the repository; what it links to."""
    path = ROOT / target
    if path.is_file() and path.suffix != ".md":
        files.append(File.generated(config, place(target), content=path.read_bytes()))
        return set()
    text = listing(target) if path.is_dir() else path.read_text("utf-8")
    page = File.generated(config, place(target), content=text)
    page.inclusion = InclusionLevel.NOT_IN_NAV
    files.append(page)
    return moved(text, target)[1]
