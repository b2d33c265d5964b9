"""What the site is made of, without what makes it: that has an environment of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from repository import ROOT

from mnemoscope.cli import app
from recipes.site import api, checking, commands, outside, shapes
from recipes.site.names import MODULES, packages

MADE = {"reference/cli.md"}


class Loader(yaml.SafeLoader):
    """Reads what is not plain YAML as nothing."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def named(entries: Any) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for inside in entry.values():
                yield from named(inside)


def test_every_page_has_a_place() -> None:
    told = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    places = list(named(told["nav"]))
    assert sorted(places) == sorted(pages | MADE)
    assert told["theme"]["font"] is False  # which would be asked of another host


def test_every_public_name_is_documented() -> None:
    names = [name for found in packages().values() for name in found]
    assert [name.path for name in names if not name.documented] == []
    said = {
        package: {name.path.rpartition(".")[2] for name in found}
        for package, found in packages().items()
        if package not in MODULES
    }
    assert said == {package: set(found) for package, found in checking.public_names().items()}


def test_every_public_name_has_a_place_in_the_reference() -> None:
    pages = dict(api.pages())
    for package, names in checking.public_names().items():
        page = pages[f"reference/api/{package}.md"]
        described = set(re.findall(r'^(?:::: |<a id=")([\w.]+)', page, re.M))
        assert {f"{package}.{name}" for name in names} <= described
    everywhere = "".join(pages.values())
    assert everywhere.count("::: mnemoscope.InputError\n") == 1
    assert "::: mnemoscope_runtime.InputError" not in everywhere  # which is the same


def test_every_option_is_told() -> None:
    told = commands.page()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        _, _, section = told.partition(f"## `mnemoscope {name}`\n")
        section = re.split(r"^## ", section, flags=re.M)[0]
        for parameter in command.params:
            assert any(each in section for each in parameter.opts), (name, parameter.opts)
    assert "[bold]" not in told


def test_links_out_of_the_pages_lead_to_copies() -> None:
    text, found = outside.moved(
        "[a](../examples/litellm.yaml) [b](taps.md#x) [c](../deploy) [d](https://a.org) [e](no.md)",
        "docs/serving.md",
    )
    assert text == (
        "[a](files/examples/litellm.yaml) [b](taps.md#x) [c](files/deploy/index.md) "
        "[d](https://a.org) [e](no.md)"
    )
    assert found == {"examples/litellm.yaml", "deploy"}
    text, found = outside.moved("[a](../../examples/x) [b](../serving.md)", "docs/how-to/serve.md")
    assert (text, found) == ("[a](../../examples/x) [b](../serving.md)", set())
    back, _ = outside.moved("[a](../../docs/security.md)", "tests/attacks/README.md")
    assert back == "[a](../../../security.md)"
    assert "[caddy/Caddyfile](caddy/Caddyfile)" in outside.listing("deploy")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """One that lacks nothing, of names alone."""
    ids = {package: list(names) for package, names in checking.public_names().items()}
    for module, name, _ in checking.imported_names():
        ids.setdefault(module, []).append(name)
    for package, names in ids.items():
        page = tmp_path / "reference" / "api" / f"{package}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("".join(f'<h2 id="{package}.{name}"></h2>' for name in names))
    (tmp_path / "index.html").write_text('<h1 id="top"></h1><a href="#top">up</a>')
    return tmp_path


def test_a_site_without_faults(site: Path) -> None:
    assert list(checking.faults(site)) == []


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ('<script src="https://unpkg.com/x.js"></script>', "loads https://unpkg.com/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', "loads //fonts.example/a.css"),
        ('<pre class="mermaid">graph</pre>', "a diagram that another host draws"),
        ('<a href="nowhere.html">x</a>', "nowhere.html leads nowhere"),
        ('<a href="#nothing">x</a>', "#nothing leads to no heading"),
        ('<img src="../a.png">', "../a.png leads out of the site"),
    ],
)
def test_faults_are_seen(site: Path, told: str, fault: str) -> None:
    (site / "index.html").write_text(told)
    [found] = checking.faults(site)
    assert found.startswith("index.html")
    assert found.endswith(fault)


def test_missing_names_and_styles_are_seen(site: Path) -> None:
    page = site / "reference" / "api" / "mnemoscope.guard.html"
    page.write_text(page.read_text().replace('"mnemoscope.guard.Guard"', '"other"'))
    (site / "a.css").write_text("@import 'https://fonts.example/a.css';")
    first, *others = checking.faults(site)
    assert first == "a.css loads https://fonts.example/a.css"
    assert "mnemoscope.guard.Guard has no entry in the reference" in others
    assert any("docs/guard.md imports mnemoscope.guard.Guard" in each for each in others)


def test_shapes_are_no_headings_or_links() -> None:
    told = "Of each. # [step][feature]\n    # [B, n], >= 0\n# ([B, L], [B, P])\nx # [N]"
    assert shapes.marked(told) == (
        "Of each. `[step][feature]`\n    `[B, n]`, >= 0\n`([B, L], [B, P])`\nx `[N]`"
    )
    assert shapes.marked("# a heading, [a](b)") == "# a heading, [a](b)"
