"""No command asks the network for anything: by Python's own account, and by that of the C library.

What reports its use may do so seconds later, when a test has ended; but it leaves files soon. So
the user's folders are empty ones here, and stay empty.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from cli_support import COMMANDS
from repository import ROOT

pytestmark = [
    pytest.mark.slow(first=True),
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None, reason="needs cc and LD_PRELOAD"
    ),
]
# nothing else: under `CI` or the like, what reports elsewhere keeps still
KEPT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "OMP_NUM_THREADS")
WATCH = """
import json, os, sys
def note(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        print(event, args, file=open(os.environ["PYTHON_CALLS"], "a"))
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if isinstance(args[1], tuple):  # a path is of the machine itself
            print(event, args, file=open(os.environ["PYTHON_CALLS"], "a"))
sys.addaudithook(note)
"""
RUN = """
from mnemoscope.cli import main
codes = []
for args in json.loads(sys.argv[1]):
    sys.argv[1:] = args
    try:
        main()
    except SystemExit as end:
        codes.append((args[0], end.code or 0))
print(json.dumps(codes), file=open("codes", "w"))
"""
LISTS = ["--positives", "few.txt", "--benign", "others.txt", "--noises", "1"]
PLAIN = [
    ["calibrate", *LISTS, "--fpr", "0.3", "--output", "c.json", "--plot", "c.png"],
    ["calibration", "inspect", "c.json"],
    ["keygen", "key.pem"],
    ["sign", "--calibration", "c.json", "--key", "key.pem"],
    ["screen", "--file", "few.txt", "--calibration", "c.json", "--noises", "1", "-o", "s.csv"],
    ["screen", "a cat", "--backend", "auto", "--noises", "1"],
    ["audit", "few.txt", "-o", "audit.csv", "--report", "audit.html"],
    ["explain", "a cat", "--no-edits"],
    ["demo", "-o", "demo", "--noises", "1"],
    ["bench", "-o", "bench", "--rounds", "3", "--noises", "1"],
    ["parity", *LISTS, "--backend", "openvino", "--force"],
    ["inspect"],
    ["doctor"],
    ["build", "--backend", "tensorrt", "--engines", "engines"],
    ["triton", "models"],
]
WITH_TORCH = [
    ["generate", "a cat", "-o", "x.png", "--steps", "1"],
    ["evaluate", *LISTS[:2], "--negatives", "others.txt", "-o", "evaluation", "--noises", "1"],
    ["mitigate", "a cat", "-o", "y.png", "--strategy", "guidance", "--seeds", "1"],
    ["explain", "a cat", "--method", "gradient", "--no-edits"],
    ["export", str(ROOT / "sdk/mnemoscope/embedded/model"), "bundle", "--noises", "1"],
]
# of the demo's 700 prompts those are left that it shows
FEW_OF_THE_DEMO = """
from mnemoscope.cli import demo
every = demo.read_prompts
demo.read_prompts = lambda *kinds: every(*kinds)[:10]
"""
# graphs take a minute to export, and what makes them asks nobody
UP_TO_GRAPHS = """
from mnemoscope_export import writing
from mnemoscope_runtime.errors import ExportError
def stop(*_): raise ExportError("far enough")
writing._write_graphs = stop
"""
SERVE = """
import os, pathlib, signal, threading, time
from mnemoscope.cli import main
said = pathlib.Path("said")
sys.stderr = said.open("w", buffering=1)
def end():
    until = time.monotonic() + 60
    while "serving" not in said.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end, daemon=True).start()
sys.argv[1:] = ["serve", "--port", "0", "--grpc-port", "0", "--threads", "1"]
main()
"""
ON_RAY = ["audit", "few.txt", "-o", "ray.csv", "--ray", "local", "--workers", "1"]
UNTIL_IT_LEFT_A_FILE = """
import onnxruntime, pathlib, time
until = time.monotonic() + 60  # it starts beside what is imported
while not any(pathlib.Path.home().rglob("*.db")) and time.monotonic() < until:
    time.sleep(0.05)
"""
PIPELINE = """
from mnemoscope.drawing.generate import load_pipeline
load_pipeline().save_pretrained("saved")  # diffusers loads onnxruntime here
assert "onnxruntime" in sys.modules
from diffusers import StableDiffusionPipeline
from mnemoscope.guard import Guard
pipe = StableDiffusionPipeline.from_pretrained("saved")
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shim") / "network_calls.so"
    source = ROOT / "tests" / "support" / "network_calls.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", out, source, "-ldl"], check=True)
    return out


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where commands run, with the user's folders in it."""
    (tmp_path / "home").mkdir()
    for name in ("few", "others"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} cats {i}\n" for i in range(12)))
    return tmp_path


def watch(shim: Path, place: Path, code: str, *args: str) -> list[str]:
    """What a process that runs that code asked the network, and left in the user's folders."""
    told = {key: os.environ[key] for key in KEPT if key in os.environ}
    told |= {"HOME": str(place / "home"), "MPLCONFIGDIR": matplotlib.get_cachedir()}
    asked = [place / "by C", place / "by Python"]
    told |= {"LD_PRELOAD": str(shim), "NETWORK_CALLS": str(asked[0]), "PYTHON_CALLS": str(asked[1])}
    done = subprocess.run(
        [sys.executable, "-c", WATCH + code, *args],
        cwd=place, env=told, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = [f"{by.name}: {line}" for by in asked if by.exists() for line in by.open()]
    return calls + [path.name for path in (place / "home").rglob("*") if path.is_file()]


def test_every_command_is_tried() -> None:
    assert {args[0] for args in PLAIN + WITH_TORCH} | {"serve", "ui"} == {*COMMANDS}


def test_no_command_asks_the_network(shim: Path, place: Path) -> None:
    """Nor does a guarded pipeline; in one process, as most of what they take is imports."""
    code = FEW_OF_THE_DEMO + UP_TO_GRAPHS + RUN + PIPELINE
    assert watch(shim, place, code, json.dumps(PLAIN + WITH_TORCH)) == []
    codes = json.loads((place / "codes").read_text())
    needs_more = {"build", "keygen", "sign"}  # a GPU's library, and cryptography
    assert {name for name, code in codes if code not in (0, 1, 5)} - needs_more == {"export"}


def test_a_service_asks_nobody(shim: Path, place: Path) -> None:
    assert watch(shim, place, SERVE) == []
    assert "serving mnemoscope at http://127.0.0.1:" in (place / "said").read_text()


def test_a_cluster_of_this_machine_asks_itself(shim: Path, place: Path) -> None:
    asked = watch(shim, place, RUN, json.dumps([ON_RAY]))
    assert json.loads((place / "codes").read_text()) == [["audit", 0]]
    itself = ("localhost", "127.0.0.1")
    assert [each for each in asked if not any(name in each for name in itself)] == []
    assert asked


def test_both_witnesses_see_what_asks(shim: Path, place: Path) -> None:
    code = (
        "import ctypes, socket\n"
        "try: socket.create_connection(('127.0.0.1', 9), 1)\nexcept OSError: pass\n"
        "ctypes.CDLL(None).gethostbyname(b'native.invalid')"
    )
    asked = watch(shim, place, code)
    for call in ("by C: getaddrinfo 127", "by C: connect 127", "by C: gethostbyname native"):
        assert any(each.startswith(call) for each in asked), asked
    assert sum(each.startswith("by Python: ") for each in asked) == 2


def test_a_report_would_leave_files(shim: Path, place: Path) -> None:
    """ONNX Runtime's own, if it is one of the builds that report."""
    from onnxruntime import __version__

    if tuple(map(int, __version__.split(".")[:2])) < (1, 31):
        pytest.skip("reports nothing")
    left = watch(shim, place, UNTIL_IT_LEFT_A_FILE)
    assert any(each == "onnxruntime.db" for each in left)
