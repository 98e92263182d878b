"""What a run says of tests that this machine can't run, and whether it fails for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WITHOUT = """
import sys, pytest, harness
harness.has_ipv6 = lambda: False
harness.program = lambda name: None
sys.exit(pytest.main(["-q", "-pno:cacheprovider", "-pconftest", "-c", *sys.argv[1:]]))
"""


def test_ci_fails_for_what_can_be_installed_alone(tmp_path: Path) -> None:
    """Without Chromium a run in CI has failed, and says how to get it; without IPv6 it hasn't."""
    tests = Path(__file__).parent
    environment = os.environ | {"CI": "true", "PYTHONPATH": str(tests)}
    runs = {}
    for marker in ("browser", "ipv6"):
        path = tmp_path / f"test_{marker}.py"
        path.write_text(f"import pytest\n@pytest.mark.{marker}\ndef test_it():\n    assert False\n")
        command = [sys.executable, "-c", WITHOUT, str(tests.parent / "pyproject.toml"), str(path)]
        runs[marker] = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    said = {marker: run.communicate(timeout=30)[0] for marker, run in runs.items()}
    assert runs["browser"].returncode == 1
    assert "left out, which fails the run because CI is set" in said["browser"]
    assert "1 test: chromium is not installed: apt-get install chromium" in said["browser"]
    assert runs["ipv6"].returncode == 0
    assert "1 test: this machine has no IPv6 (which fails no run)" in said["ipv6"]
