"""Dash and Panel read what a page reads: the examples, run where these are installed."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from apps import running_app
from page_parts import send
from waiting import auntil

from lo_kernel.app.overview import add_overview
from lo_kernel.settings import Settings

# `make test-boards` runs them in an environment of their own: both change what JupyterLab and pytest load
pytestmark = pytest.mark.soak

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def read_a_class(module: ModuleType, settings: Settings) -> None:
    """Let the example read a class of two, then of three."""
    async with running_app(settings) as runtime:
        add_overview(runtime)
        await send(runtime, "ann", "bo")
        address = f"ws{runtime.url.removeprefix('http')}wsapi/communication_protocol"
        reading = asyncio.create_task(module.read(f"{address}?token={runtime.security.ticket()}"))
        await auntil(lambda: len(module.rows) == 2)
        await send(runtime, "cy")
        await auntil(lambda: len(module.rows) == 3)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.filterwarnings("ignore")
async def test_dash(settings: Settings) -> None:
    """The Dash example has a bar for each learner, and its page is served."""
    pytest.importorskip("dash", reason="Dash is not installed: pip install dash")
    module = load("dash_board")
    await read_a_class(module, settings)
    (bars,) = module.figure()["data"]
    assert sorted(bars["y"]) == ["tc-testcase-ann", "tc-testcase-bo", "tc-testcase-cy"]
    client = module.app.server.test_client()
    assert client.get("/").status_code == 200
    assert b"tick" in client.get("/_dash-layout").data


@pytest.mark.filterwarnings("ignore")
async def test_panel(settings: Settings) -> None:
    """The Panel example has a line for each learner."""
    pytest.importorskip("panel", reason="Panel is not installed: pip install panel")
    module = load("panel_board")
    await read_a_class(module, settings)
    assert list(module.table.object["user_id"]) == ["tc-testcase-ann", "tc-testcase-bo", "tc-testcase-cy"]
    assert "active" in set(module.table.object["presence"])
