"""`python -m lo_kernel` with no option takes care of the kernel file."""

from __future__ import annotations

import json
import sys
import sysconfig
import venv
from pathlib import Path

from test_cli import Process

ROOT = Path(__file__).resolve().parents[1]


def environment_at(path: Path) -> str:
    """Make a virtual environment that finds our dependencies and the package; its interpreter."""
    venv.create(path, symlinks=True)
    site = path / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
    (site / "found.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    return str(path / "bin" / "python")


def said_by(python: str) -> str:
    """What `python -m lo_kernel` printed, from its start until Ctrl-C ended it."""
    server = Process([python, "-m", "lo_kernel"])
    try:
        server.says("/?token=")
        assert server.end() == 0
    finally:
        server.close()
    return server.output


def test_the_kernel_file_is_written_where_missing_and_mended_where_stale(tmp_path: Path) -> None:
    """A start without a kernel file writes it, with a stale one mends it, and a good one is left alone."""
    python = environment_at(tmp_path / "env")
    file = tmp_path / "env" / "share" / "jupyter" / "kernels" / "learning_observer" / "kernel.json"
    assert not file.exists()

    assert f"kernelspec written: {file.parent}" in said_by(python)
    written = json.loads(file.read_text())
    assert written["argv"] == [python, "-m", "lo_kernel", "-f", "{connection_file}"]

    gone = str(tmp_path / "moved away" / "bin" / "python")
    own = {"display_name": "Ours", "env": {"TZ": "UTC"}}
    file.write_text(json.dumps(written | own | {"argv": [gone, *written["argv"][1:]]}))
    assert f"kernelspec written anew: {file.parent} (what it starts is gone: {gone}" in said_by(python)
    assert json.loads(file.read_text()) == written | own

    before = file.stat()
    assert "kernelspec" not in said_by(python)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
