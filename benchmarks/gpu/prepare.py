"""`python -m benchmarks.gpu.prepare`: install what this machine lacks, from wheels brought along.

They go into a folder of their own, SITE, which `benchmarks/gpu.sh` puts first on the path: nothing
of the machine's own environment changes, and its onnxruntime for CPUs, which would hide one for
GPUs, is hidden itself. Needs nothing but pip.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..running import run_main
from .wheels import FOLDER, ROOT

__all__ = ["SITE", "install", "join", "lacking"]

SITE = ROOT / "out" / "gpu" / "site"
_PART = re.compile(r"(?P<wheel>.+\.whl)\.part-(?P<number>\d+)-of-(?P<count>\d+)")
_LOWEST = re.compile(r"([\w.-]+)(?:\[[^]]*\])?>=([\d.]+)")


def main() -> None:
    """Join, choose, install; says what it did."""
    if not FOLDER.is_dir():
        print(f"no wheels in {FOLDER}: what is installed here must do", file=sys.stderr)
        return
    if reason := join(FOLDER):
        print(f"onnxruntime-gpu is left out: {reason}", file=sys.stderr)
    wanted = lacking(FOLDER, lowest(ROOT / "pyproject.toml"))
    install(FOLDER, wanted, SITE)
    print(f"installed: {', '.join(wanted) or 'nothing, all is here'}", file=sys.stderr)


def join(folder: Path) -> str | None:
    """Put a wheel that came in parts together.

    Returns:
        Why there is none; None if there is, or nothing was to be joined.
    """
    found = [match for each in folder.iterdir() if (match := _PART.fullmatch(each.name))]
    if not found:
        return None if list(folder.glob("onnxruntime_gpu-*.whl")) else "it was not brought along"
    name, count = found[0]["wheel"], int(found[0]["count"])
    parts = {int(each["number"]): folder / each.string for each in found if each["wheel"] == name}
    if missing := [str(number) for number in range(1, count + 1) if number not in parts]:
        return f"of its {count} parts {', '.join(missing)} are missing"
    expected = folder / f"{name}.sha256"
    if not expected.is_file():
        return f"{expected.name} is missing"
    content = b"".join(parts[number].read_bytes() for number in range(1, count + 1))
    if hashlib.sha256(content).hexdigest() != expected.read_text().split()[0]:
        return "its parts put together are not what was cut (sha256)"
    (folder / name).write_bytes(content)
    return None


def lowest(project: Path) -> dict[str, str]:
    """The lowest version of every package that the project names."""
    tables = tomllib.loads(project.read_text())["project"]
    lists = (tables["dependencies"], *tables["optional-dependencies"].values())
    found = (_LOWEST.match(each) for every in lists for each in every)
    return {_normal(match[1]): match[2] for match in found if match}


def lacking(
    folder: Path, lowest: dict[str, str], installed: Callable[[str], str] = version
) -> list[str]:
    """Names of wheels whose package is not here, or is older than the project wants."""

    def lacks(name: str) -> bool:
        try:
            return _numbers(installed(name)) < _numbers(lowest.get(name, "0"))
        except PackageNotFoundError:
            return True

    names = {_normal(each.name.split("-")[0]) for each in folder.glob("*.whl")}
    return sorted(filter(lacks, names))


def install(folder: Path, names: list[str], site: Path) -> None:
    """Let pip choose the wheels that fit this Python, and unpack them into `site`."""
    if names:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
                *("--no-compile", "--upgrade", "--find-links", str(folder)),
                *("--target", str(site), *names),
            ],
            check=True,
        )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", text.split("+")[0])[:3])


if __name__ == "__main__":
    run_main(main)
