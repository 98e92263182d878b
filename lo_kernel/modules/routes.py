"""The addresses of modules: ``/views``, ``/ajax``, files of theirs, and Dash pages.

The routes are there from the start, and look up what modules have when they are asked.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from lo_kernel.app.security import takes

if TYPE_CHECKING:
    from lo_kernel.modules.served import Served
    from lo_kernel.runtime import Runtime

__all__ = ["find_file", "routes"]


def routes(runtime: Runtime, served: Served) -> list[web.RouteDef]:
    """The routes; they belong behind all others, since the last one takes what nobody else does."""

    @takes("read")
    async def view(request: web.Request) -> web.StreamResponse:
        about = request.match_info
        key = (request.method, about["module"], about["suburl"].strip("/"))
        found = served.views.get(key)
        if found is None:
            return _json({"error": f"the module {key[1]!r} has no view {key[2]!r} for {key[0]}"}, 404)
        if found.handler is None:
            return _json(found.data)
        return await _answer(request, found.handler, f"view '{key[1]}/{key[2]}'")

    @takes("read")
    async def ajax(request: web.Request) -> web.StreamResponse:
        key = (request.match_info["module"], request.match_info["call"])
        call = served.ajax.get(key)
        if call is None:
            return _json({"error": f"the module {key[0]!r} has no call {key[1]!r}"}, 404)
        return await _answer(request, call, f"call '{key[0]}/{key[1]}'")

    @takes("read")
    async def dash(request: web.Request) -> web.StreamResponse:
        if served.dash is None:
            raise web.HTTPNotFound(text="there are no Dash pages here; lo.modules says why")
        from lo_kernel.modules.wsgi import respond

        return await respond(served.dash, request)

    @takes("read")
    async def file(request: web.Request) -> web.StreamResponse:
        found = find_file(served.folders, request.path.lstrip("/"))
        if found is None:
            raise web.HTTPNotFound
        return web.FileResponse(found)

    async def _answer(request: web.Request, handler: Any, what: str) -> web.StreamResponse:
        try:
            result = handler(request)
            if inspect.isawaitable(result):
                result = await result
            return result if isinstance(result, web.StreamResponse) else _json(result)
        except web.HTTPException:
            raise
        except Exception as error:
            runtime.errors.add(what, error)
            return _json({"error": f"{type(error).__name__}: {error}"}, 500)

    return [
        web.route("*", "/views/{module}/{suburl:.+}", view),
        web.route("*", "/ajax/{module}/{call}", ajax),
        web.route("*", "/{module}/dash/{path:.*}", dash),
        web.route("*", "/_dash-{path:.*}", dash),
        web.get("/dash/assets/{path:.*}", dash),
        web.get("/{module}/{path:.*}", file),
    ]


def find_file(folders: Mapping[str, Path], path: str) -> Path | None:
    """The file at an address, among folders by the start of theirs (``*``: any one part); no way leads out.

    >>> find_file({}, "static/modules/my_module/page.html") is None
    True
    """
    for start, folder in folders.items():
        depth = start.count("/")
        parts = path.split("/")
        if not fnmatchcase("/".join(parts[:depth]) + "/", start):
            continue
        inside = "/".join(parts[depth:])
        for name in (inside or "index.html", f"{inside}.html"):
            found = (folder / name).resolve()
            if found.is_file() and found.is_relative_to(folder.resolve()):
                return found
    return None


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)
