"""A WSGI application (PEP 3333) behind an aiohttp route: one call on a thread for each request."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

__all__ = ["respond"]

_BY_AIOHTTP = ("content-length", "transfer-encoding", "connection")


async def respond(app: Callable[..., Any], request: web.Request) -> web.Response:
    """The application's response to a request."""
    environ = _environ(request, await request.read())
    status, headers, body = await asyncio.to_thread(_call, app, environ)
    kept = CIMultiDict((name, value) for name, value in headers if name.lower() not in _BY_AIOHTTP)
    return web.Response(body=body, status=int(status.split(" ", 1)[0]), headers=kept)


def _environ(request: web.Request, body: bytes) -> dict[str, Any]:
    host, _, port = request.host.partition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode().decode("latin-1"),  # as PEP 3333 has texts
        "QUERY_STRING": request.query_string,
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.remote or "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            environ[f"HTTP_{key}"] = value
    return environ


def _call(app: Callable[..., Any], environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    said: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        said.append((status, headers))
        return written.append

    result = app(environ, start_response)
    try:
        written.extend(result)
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()
    status, headers = said[-1]
    return status, headers, b"".join(written)
