"""The notebooks, run by Jupyter's own client, as those who open them run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from repository import ROOT

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
SAID = {  # and how many pictures are shown
    "audit_and_mitigate": ("distinct prompts flagged", "confirmed", 1),
    "screen_and_explain": ("memorised  google icon of tokyo tower", "% kept: ", 4),
}


def read(notebook: Path) -> Any:
    return nbformat.read(notebook, as_version=4)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(notebook: Path) -> None:
    found = read(notebook)
    nbformat.validate(found)
    cells = [cell for cell in found.cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert set(found.metadata) <= {"kernelspec", "language_info"}


@pytest.mark.slow(first=True)
def test_notebooks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other in one kernel, which keeps no name: torch is loaded once."""
    paths = ":".join(str(ROOT / room) for room in ("runtime", "export", "sdk"))
    for name, value in {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))  # nothing of this user's, nothing left
    kernel = KernelManager()
    for notebook in NOTEBOOKS:
        found = read(notebook)
        found.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
        client = NotebookClient(found, km=kernel, timeout=300, shutdown_kernel="graceful")
        client.resources = {"metadata": {"path": str(tmp_path)}}
        client.execute(reset_kc=False, cleanup_kc=notebook == NOTEBOOKS[-1])
        outputs = [out for cell in found.cells if cell.cell_type == "code" for out in cell.outputs]
        said = "".join(out.text for out in outputs if out.output_type == "stream")
        first, second, pictures = SAID[notebook.stem]
        assert first in said
        assert second in said
        assert sum("image/png" in out.get("data", ()) for out in outputs) == pictures
