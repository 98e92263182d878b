"""The real app, served in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lo_kernel.app.application import create_app
from lo_kernel.kernel.host import AppHost
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


@asynccontextmanager
async def running_app(settings: Settings) -> AsyncIterator[Runtime]:
    """Boot the app on this loop, give its runtime, and end it."""
    runtime = Runtime(settings)
    host = AppHost(settings, lambda: create_app(runtime), on_bind=runtime.bind)
    await host.start()
    try:
        yield runtime
    finally:
        await host.stop()
