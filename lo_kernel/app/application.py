"""The LO app: an aiohttp application around a runtime, with one guard in front of all its routes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiohttp import WSCloseCode, web

from lo_kernel.app import health, ingest, pages, protocol
from lo_kernel.app.behalf import on_behalf
from lo_kernel.app.ingest import SOCKETS
from lo_kernel.app.security import takes
from lo_kernel.compat.finder import Aliases
from lo_kernel.modules import routes as module_routes
from lo_kernel.modules.served import Served
from lo_kernel.modules.startup import start_modules
from lo_kernel.runtime import Runtime

__all__ = ["RUNTIME", "create_app"]

RUNTIME = web.AppKey("lo_runtime", Runtime)
_ALIASES = web.AppKey("lo_aliases", list[Aliases])
_FINISHING = web.AppKey("lo_finishing", list[asyncio.Task[None]])
_SERVED = web.AppKey("lo_served", Served)
_NO_MODULES = "this server takes no modules: it was not started with --allow-inject"


def create_app(runtime: Runtime) -> web.Application:
    """The application; its start opens the runtime, its end commits and closes it.

    Events in: ``/wsapi/in/``. Queries: ``/wsapi/communication_protocol``. Nobody gets in without a token
    (:mod:`lo_kernel.app.security`).
    """
    app = web.Application(
        middlewares=[runtime.security.middleware(), on_behalf(runtime.reads)],
        client_max_size=ingest.HARD_LIMIT,
    )
    app[RUNTIME] = runtime
    app[SOCKETS] = set()
    app[_ALIASES] = []
    app[_FINISHING] = []
    app[_SERVED] = served = Served()
    app.add_routes(ingest.routes(runtime))
    app.add_routes(protocol.routes(runtime))
    app.add_routes(pages.routes(runtime))
    app.add_routes(health.routes(runtime))
    app.on_startup.append(_start)
    if runtime.settings.allow_inject:
        from lo_kernel.app import inject

        injector = inject.Injector(runtime)
        app.add_routes(inject.routes(injector))

        async def start_injector(app: web.Application) -> None:
            await injector.start()

        async def stop_injector(app: web.Application) -> None:
            injector.stop()

        app.on_startup.append(start_injector)
        app.on_cleanup.append(stop_injector)
    else:
        app.add_routes([web.post("/inject/{name}", _takes_none), web.delete("/inject/{name}", _takes_none)])
    app.add_routes(module_routes.routes(runtime, served))  # last: one of them takes what is left
    app.on_shutdown.append(_close_sockets)
    app.on_cleanup.append(_stop)
    return app


@takes("anyone")  # there is nothing here that a token would open
async def _takes_none(_: web.Request) -> web.Response:
    return web.json_response({"error": _NO_MODULES}, status=403)


async def _start(app: web.Application) -> None:
    await app[RUNTIME].start()
    app[_ALIASES].append(await start_modules(app[RUNTIME], app[_SERVED]))
    if any(app[RUNTIME].workspace.path.glob("erasing-*")):  # an erasure that was cut off
        from lo_kernel.app.erasing import finish

        app[_FINISHING].append(asyncio.create_task(finish(app[RUNTIME])))


async def _close_sockets(app: web.Application) -> None:
    """Say goodbye, so that clients know to come back."""
    sockets = app[SOCKETS]
    closing = [
        ws.close(code=WSCloseCode.GOING_AWAY, message=b"the app ends; it may come back on the same address")
        for ws in list(sockets)
    ]
    done: Any = asyncio.gather(*closing, return_exceptions=True)
    with contextlib.suppress(TimeoutError):  # a client that doesn't answer can't hold up the end
        await asyncio.wait_for(done, 0.3)


async def _stop(app: web.Application) -> None:
    for aliases in app[_ALIASES]:
        aliases.remove()
    for task in app[_FINISHING]:
        task.cancel()  # the next start begins it again
        await asyncio.wait([task])
    await app[RUNTIME].stop()
