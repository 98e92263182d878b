"""`lo` where another app runs than the embedded one, or none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import StartKernel

_APP = """\
from aiohttp import web
def works():
    return web.Application()
def broken():
    raise RuntimeError("no database here")
"""


def environment_of(folder: Path, app: str, loop: str = "kernel") -> dict[str, str]:
    """The environment of a kernel with one of the apps above."""
    (folder / "other_app.py").write_text(_APP)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return {"LO_KERNEL_APP": f"other_app:{app}", "LO_KERNEL_LOOP": loop, "PYTHONPATH": path}


@pytest.mark.parametrize("loop", ["kernel", "thread"])
def test_with_another_app_lo_says_what_needs_the_embedded_one(
    start_kernel: StartKernel, tmp_path: Path, loop: str
) -> None:
    """Address, errors and record work; a store, events or queries that nobody keeps are not made up."""
    kernel = start_kernel(env=environment_of(tmp_path, "works", loop))
    assert kernel.execute("print(lo.port > 0, len(lo.errors), lo.url)").text.startswith("True 0 http://")
    assert "audit" in kernel.execute("lo.audit.cells(1); print(dir(lo))").text
    for line in ("lo.events", "await lo.kvs.keys()", "await lo.query('x')", "lo.reducers", "lo.simulate()"):
        error = kernel.execute(line, check=False).error
        assert "needs app='embedded'" in error
        assert "other_app:works" in error
    card = kernel.execute("lo").value
    assert card.startswith("other_app:works at http://")
    assert "follow" not in card
    assert "has no attribute 'nonsense'" in kernel.execute("lo.nonsense", check=False).error


def test_after_a_failed_start_lo_says_so(start_kernel: StartKernel, tmp_path: Path) -> None:
    """No address, no empty store: each name says that the app did not start, and where the reason stands."""
    kernel = start_kernel(env=environment_of(tmp_path, "broken"))
    for line in ("lo.url", "lo.events", "await lo.kvs.keys()", "await lo.query('x')"):
        assert "did not start: lo.errors says why" in kernel.execute(line, check=False).error
    assert "no database here" in kernel.execute("print(lo.errors)").text
    assert kernel.execute("lo").value.startswith("Learning Observer: the app did not start")


def test_lokernel_says_in_its_first_line_what_kept_the_app_from_starting(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Whoever starts it at a terminal reads the reason beside the line that joins it."""
    env = environment | environment_of(tmp_path, "broken")
    command = [sys.executable, "-m", "lo_kernel", "--lokernel"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
    finally:
        process.terminate()
        process.communicate(timeout=5)
    assert said == (
        "Learning Observer: the app did not start, and the kernel works without it: "
        "RuntimeError: no database here\n"
    )
