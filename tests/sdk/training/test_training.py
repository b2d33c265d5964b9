"""The package says what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_without_torch_it_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from mnemoscope import BackendUnavailable\n"
        "try:\n"
        "    import mnemoscope.training\n"
        "except BackendUnavailable as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "pip install -c constraints.txt '.[torch]'" in result.stdout
