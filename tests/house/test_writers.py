"""Files are written by one function, `staging.replacing`, and nothing goes around it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from repository import ROOT

FOLDERS = ("runtime/mnemoscope_runtime", "export/mnemoscope_export", "sdk/mnemoscope")
WRITES = {
    *("write_bytes", "write_text", "savefig", "save", "savez", "savez_compressed", "tofile"),
    *("save_pretrained", "save_file", "save_model", "to_csv", "to_parquet", "to_json_file"),
    *("mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory"),
    *("copyfile", "copy2", "copytree", "move", "rename", "renames", "truncate"),
    *("symlink_to", "hardlink_to", "touch", "ParquetWriter", "SpooledTemporaryFile"),
}
IN_STAGED = "into a folder that is staged"
ALLOWED = {  # what writes by itself, and why
    "runtime/mnemoscope_runtime/staging.py": ({"open", "rename", "truncate"}, "the one function"),
    "runtime/mnemoscope_runtime/reading.py": ({"open"}, "for reading, by flags in a variable"),
    "runtime/mnemoscope_runtime/user_cache.py": ({"open", "fdopen"}, "a secret, its owner's alone"),
    "runtime/mnemoscope_runtime/backends/onnxruntime_gpu/kept.py": (
        {"rename"},
        "puts staged folders in place",
    ),
    "runtime/mnemoscope_runtime/backends/copying.py": ({"write_bytes"}, IN_STAGED),
    "export/mnemoscope_export/publish.py": ({"open", "rename"}, "puts staged folders in place"),
    "export/mnemoscope_export/writing.py": ({"write_bytes", "save", "savez"}, IN_STAGED),
    "export/mnemoscope_export/weights.py": ({"open", "save"}, IN_STAGED),
    "export/mnemoscope_export/bundle_tokenizer.py": ({"write_bytes"}, IN_STAGED),
    "export/mnemoscope_export/onnx/source.py": ({"save"}, IN_STAGED),
    "sdk/mnemoscope/audit/journal.py": ({"open", "touch", "truncate"}, "grows in place"),
    "sdk/mnemoscope/audit/confirming/drawing.py": ({"save"}, "into memory"),
    "sdk/mnemoscope/audit/ray_cluster.py": ({"mkdtemp"}, "Ray's own folder, gone with its cluster"),
    "sdk/mnemoscope/guard/decision.py": ({"open"}, "a log, which grows in place"),
    "sdk/mnemoscope/signing.py": ({"open", "fdopen"}, "a private key, its owner's alone"),
    "sdk/mnemoscope/outputs.py": ({"open"}, "tries whether a file could be written"),
    "sdk/mnemoscope/serve/triton/repository.py": ({"write_bytes"}, IN_STAGED),
    "sdk/mnemoscope/cli/__init__.py": ({"open"}, "/dev/null in place of what is closed"),
    "sdk/mnemoscope/cli/_workers.py": ({"open"}, "/dev/null, for what nobody reads"),
    "sdk/mnemoscope/tables.py": ({"ParquetWriter"}, "into a file that is staged"),
    "sdk/mnemoscope/plotting.py": ({"savefig"}, "into memory"),
    "sdk/mnemoscope/mitigate/report.py": ({"save"}, "into memory"),
    "sdk/mnemoscope/ui/calibration_tab.py": ({"move"}, "a threshold, and no file"),
    "sdk/mnemoscope/ui/listing.py": ({"TemporaryDirectory"}, "gone before its results are shown"),
    "sdk/mnemoscope/ui/pictures.py": ({"save"}, "into memory"),
    "sdk/mnemoscope/ui/running.py": ({"TemporaryDirectory"}, "the page's own, gone with it"),
    "sdk/mnemoscope/drawing/sheets.py": ({"save"}, "into a file that is staged"),
}


def writes(source: str) -> set[str]:
    """What a module calls that writes files; opening counts unless it is for reading."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in WRITES or (name in ("open", "fdopen") and _may_write(node)):
            found.add(name)
    return found


def _may_write(call: ast.Call) -> bool:
    """Whether `open` has a mode that is not known to be of reading."""
    name = ast.unparse(call.func)
    if name == "os.open":
        return "O_RDONLY" not in ast.unparse(call)
    owner = name.rpartition(".")[0]
    if owner.isidentifier() and owner[0].isupper():  # Bundle.open and the like
        return False
    modes = call.args[:1] if owner not in ("", "io", "os") else call.args[1:2]
    modes += [each.value for each in call.keywords if each.arg == "mode"]
    return any(ast.unparse(mode) not in ("'r'", "'rb'") for mode in modes)


def test_nothing_is_written_around_the_one_function() -> None:
    found = {
        str(path.relative_to(ROOT)): calls
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if (calls := writes(path.read_text()))
    }
    assert found == {path: calls for path, (calls, _) in ALLOWED.items()}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("Path(p).open('w')", {"open"}),
        ("open(p, mode='ab')", {"open"}),
        ("p.open('r+b' if new else mode)", {"open"}),
        ("os.open(p, os.O_CREAT)", {"open"}),
        ("figure.savefig(p); np.save(p, x)", {"savefig", "save"}),
        ("p.open('rb'); open(p); open(p, encoding='utf-8'); Bundle.open(p)", set()),
    ],
)
def test_the_check_sees_writers(code: str, names: set[str]) -> None:
    assert writes(code) == names


def test_folders_are_the_products() -> None:
    assert all((ROOT / folder / "__init__.py").is_file() for folder in FOLDERS)
    assert all(Path(ROOT / path).is_file() for path in ALLOWED)
