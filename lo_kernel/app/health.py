"""Whether the app lives, and whether it is ready: for what starts, restarts and load-balances servers.

Anybody may ask, since such programs have no token; the answers name no learner and no content.
"""

from __future__ import annotations

from aiohttp import web

from lo_kernel.app.security import takes
from lo_kernel.runtime import Runtime

__all__ = ["reasons", "routes"]


def reasons(runtime: Runtime) -> list[str]:
    """Why the app is not ready; empty where it is."""
    found = []
    if runtime.started is None:
        return ["the app has not started yet"]
    if not runtime.pipeline.store_up:
        found.append("the store takes no states")
    for registration in runtime.registry:
        if registration.status in ("waiting", "catching up"):
            found.append(f"reducer {registration.id!r} is going through the past")
        elif registration.status == "failed":
            found.append(f"reducer {registration.id!r} has failed")
    found += [
        f"module {name!r} could not be loaded" for name in runtime.modules if runtime.modules[name].error
    ]
    return found


def routes(runtime: Runtime) -> list[web.RouteDef]:
    """``/health/live`` and ``/health/ready``: 200, or 503 with the reasons."""

    @takes("anyone")
    async def live(request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "live"}, headers={"Cache-Control": "no-store"})

    @takes("anyone")
    async def ready(request: web.Request) -> web.StreamResponse:
        why = reasons(runtime)
        answer = {"status": "not ready" if why else "ready", "reasons": why}
        return web.json_response(answer, status=503 if why else 200, headers={"Cache-Control": "no-store"})

    return [web.get("/health/live", live), web.get("/health/ready", ready)]
