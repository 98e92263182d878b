"""An app that listens on an IPv6 address."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from apps import running_app

from lo_kernel.app.browser_address import find_address
from lo_kernel.app.simulate import simulate_class
from lo_kernel.settings import Settings


@pytest.mark.ipv6
@pytest.mark.parametrize("host", ["::1", "::"])
async def test_its_addresses_can_be_used(tmp_path: Path, host: str) -> None:
    """Pages, events and links: the address has brackets, and the app answers under it."""
    settings = Settings(host=host, port=0, store="memory", workspace=str(tmp_path))
    async with running_app(settings) as runtime, aiohttp.ClientSession() as client:
        assert runtime.url == f"http://[::1]:{runtime.port}/"
        assert find_address(settings, runtime.port, {}).base == runtime.url
        async with client.get(f"{runtime.url}health/live") as answer:
            assert answer.status == 200
        done = await simulate_class(runtime.ingest_url, students=2, seconds=0.2, speed=50, seed=1)
        assert 0 < done.events <= runtime.archive.last
