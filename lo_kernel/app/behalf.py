"""On whose behalf something is read: a middleware behind the guard says it to the read log."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from lo_kernel.app.security import ACCESS

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

    from lo_kernel.read_log import ReadLog

__all__ = ["on_behalf"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def on_behalf(reads: ReadLog) -> Middleware:
    """What aiohttp is given; after the guard, which has found out the kind of token."""

    @web.middleware
    async def behalf(request: web.Request, handler: Handler) -> web.StreamResponse:
        client = request[ACCESS].kind if ACCESS in request else "no"
        stays = request.headers.get("Upgrade", "").lower() == "websocket"
        with reads.on_behalf(client, _path(request), secrets.token_hex(4) if stays else ""):
            return await handler(request)

    return behalf


def _path(request: web.Request) -> str:
    """What was asked for, without learners' ids: of what an address may name, only the dashboard is told."""
    resource = request.match_info.route.resource
    if resource is None:
        return "unknown"
    return resource.canonical.replace("{id}", request.match_info.get("id", ""))
