"""The pages: where they lead, what they tell one to type, and the pictures drawn from figures.

That the site can be built, and that every public name has a place in it, `make docs` checks.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_support import Run
from documented import named_in_table
from repository import ROOT

from mnemoscope.cli import app
from recipes.pictures.__main__ import IMAGES, PICTURES
from tests.fuzz.targets import TARGETS

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
OTHERS = [
    *ROOT.glob("C*.md"),
    *(
        page
        for room in ("sdk", "runtime", "tests", "integrations", "examples")
        for page in (ROOT / room).rglob("*.md")
    ),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """Without blocks of code, whose brackets are no links and whose comments are no headings."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text("utf-8"), flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them, and the site."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def broken(page: Path, text: str) -> Iterator[str]:
    for target in LINK.findall(re.sub(r"`[^`]*`", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        meant = (page.parent / path).resolve() if path else page
        if not meant.exists():
            yield f"{target}: there is no such file"
        elif anchor and anchor not in anchors(meant):
            yield f"{target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken(page, prose(page))) == []


def test_a_broken_link_is_seen() -> None:
    text = "[a](metric.md#units) [b](nowhere.md) [c](metric.md#nothing) [d](https://example.org)"
    assert list(broken(DOCS / "metric.md", text)) == [
        "nowhere.md: there is no such file",
        "metric.md#nothing: there is no such heading",
    ]


def lines(page: Path) -> Iterator[list[str]]:
    """What a page tells one to type, as words."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("|"):
                if part.strip().startswith("mnemoscope "):
                    yield shlex.split(part, comments=True)[1:]


def refused(words: list[str]) -> str:
    """Why the command does not take them: an option that it has not, one without its value."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if words[0] not in command.commands:
            return f"there is no {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    context = command.make_context(command.name, [], resilient_parsing=True)
    context.resilient_parsing = False
    try:
        command.make_parser(context).parse_args(args=list(words))
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_pages_tell_one_to_type_is_taken(page: Path) -> None:
    wrong = {shlex.join(words): refused(words) for words in lines(page)}
    assert {words: why for words, why in wrong.items() if why} == {}


def unknown(text: str) -> set[str]:
    """What prose calls a command, and is none: with our name before it, or that of a group."""
    commands: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = set()
    for first, second in re.findall(r"`(?:mnemoscope )?([a-z]+)(?: ([a-z]+))?[ `]", text):
        within = getattr(commands.get(first), "commands", None)
        if within is not None and second and second not in within:
            found.add(f"{first} {second}")
    return found | set(re.findall(r"`mnemoscope ([a-z]+)", text)) - {*commands}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_prose_are_there(page: Path) -> None:
    assert unknown(prose(page)) == set()


def test_what_is_not_taken_is_seen() -> None:
    text = "`mnemoscope paint x`, `calibration drift`, `calibration check FILE`, `calibration`"
    assert unknown(text) == {"paint", "calibration drift"}
    assert sum(1 for page in PAGES for _ in lines(page)) > 80
    assert "--nowhere" in refused(["screen", "--nowhere", "a cat"])
    assert refused(["calibration", "carry", "my-bundle", "--to"])
    assert refused(["paint"]) == "there is no paint"


def unpinned(text: str) -> list[str]:
    """Lines of a block that install this package in versions that nobody tried."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
    installs = re.findall(r"^.*pip install.*'(?:\.|mnemoscope)\[.*$", "\n".join(blocks), re.M)
    return [line for line in installs if "-c constraints" not in line]


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=name)
def test_what_pages_install_is_pinned(page: Path) -> None:
    assert unpinned(page.read_text("utf-8")) == []


def test_what_is_not_pinned_is_seen() -> None:
    pinned = "pip install -c constraints.txt '.[torch]'"
    both = "pip install '.[torch]'\nvenv/bin/pip install 'mnemoscope[ray]'"
    assert unpinned(f"```sh\n{pinned}\n{both}\n```\n") == both.splitlines()


def test_every_reader_of_files_is_in_the_table_of_changed_files() -> None:
    page = (DOCS / "hardening.md").read_text("utf-8")
    rows = re.findall(r"^\|.*\| ([\d,]+) \| [\d,]+ \| [\d,]+ \| \d+ \|$", page, re.M)
    assert len(rows) == len(TARGETS)
    assert f"{sum(int(each.replace(',', '')) for each in rows):,} files" in page


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_are_what_is_drawn_of_stored_figures(picture: str) -> None:
    drawn = str(PICTURES[picture]())
    assert (IMAGES / f"{picture}.svg").read_text("utf-8") == drawn


def test_all_evidence_is_on_its_page() -> None:
    page = (DOCS / "evidence.md").read_text("utf-8")
    for raw in sorted((ROOT / "benchmarks" / "results").iterdir()):
        assert f"(../benchmarks/results/{raw.name})" in page, raw.name
    programs = set(re.findall(r"python -m (benchmarks[\w.]*)", page))
    assert len(programs) > 20
    for program in programs:
        path = ROOT.joinpath(*program.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), program


def test_the_first_five_minutes_are_what_happens(run: Run) -> None:
    page = (DOCS / "start.md").read_text("utf-8")
    prompt = "google icon of tokyo tower, on rings, in zagreb 2020"
    table = run("screen", prompt, "a cat")
    assert table.code == 1
    shown = [" ".join(line.split()) for line in page.splitlines()]
    for line in table.out.splitlines():
        assert " ".join(line.split()) in shown
    explained = run("explain", prompt, "--keep", "tower")
    told = {" ".join(line.split()) for line in explained.out.splitlines()}
    _, _, after = page.partition("mnemoscope explain")
    lines = [" ".join(line.split()) for line in after.split("\n\n")[1].splitlines()]
    assert len(lines) == 12
    assert {line for line in lines if line != "..."} <= told


def test_results_page_names_every_key(run: Run) -> None:
    [line] = run("screen", "--format", "json", "--noises", "1", "a cat").out.splitlines()
    assert set(json.loads(line)) == named_in_table("results.md")


def raw(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def test_the_short_version_is_of_the_raw_figures() -> None:
    page = (DOCS / "evidence.md").read_text("utf-8")
    rows = [
        f"| {each['steps']} | {each['noises']} | "
        + " | ".join(
            "{value:.3f} [{low:.3f}, {high:.3f}]".format(**each[figure])
            for figure in ("auc", "tpr_at_1_percent_fpr")
        )
        + " |"
        for each in raw("embedded-detection")
        if each["against"] == "held_out"
    ]
    told = re.findall(r"^\| \d+ \| \d+ \| .* \|$", page, re.M)
    assert len(told) == 4
    assert set(told) <= set(rows)
    timed = raw("embedded-latency")["rows"].values()
    known = {
        f"{each['p50_ms']:.2f} | {each['p99_ms']:.2f} | {each['ratio_p50']:.2f} |" for each in timed
    }
    told = re.findall(r"(\d+\.\d\d \| \d+\.\d\d \| \d+\.\d\d \|)$", page, re.M)
    assert len(told) == 6
    assert set(told) <= known
