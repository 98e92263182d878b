"""How much memory this process uses, as status and monitor read it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from lo_kernel.app.meter import memory

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


def test_it_is_what_the_system_says() -> None:
    """In bytes, as the process's resident pages are."""
    resident = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert resident is not None
    assert memory() == pytest.approx(int(resident[1]) * 1024, rel=0.2)


def test_a_page_is_as_large_as_the_system_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as large pages, as some ARM machines have, make four times as many bytes, for both."""
    from lo_kernel.kernel import monitor

    assert monitor.memory is memory  # type: ignore[attr-defined]
    before, pages = memory(), os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(os, "sysconf", lambda name: 4 * pages if name == "SC_PAGE_SIZE" else 0)
    assert memory() == pytest.approx(4 * before, rel=0.1)
