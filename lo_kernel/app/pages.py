"""Pages for a person: home, queries, and one for each dashboard; and the routes of all that they need.

A page is the same text for everyone, filled in with what it is about; all that changes comes to it
afterwards. Every address in it is relative, so that it works behind a proxy that puts a prefix before it. No
script and no style stands in the page itself, and none comes from another site.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from string import Template
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from lo_kernel.app import queries_page, webapi
from lo_kernel.app.assets import Assets
from lo_kernel.app.security import takes
from lo_kernel.app.status import metrics, status
from lo_kernel.app.templates import MANY
from lo_kernel.errors import LOError
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

__all__ = ["content_security_policy", "routes", "status"]

_VEGA = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
_OWN = {
    "home.html": ("live.js", "text.js", "theme.js"),
    "missing.html": ("live.js", "theme.js"),
    "queries.html": (
        "live.js",
        "learners.js",
        "files.js",
        "text.js",
        "theme.js",
        "query_answer.js",
        "query_form.js",
    ),
    "dashboard.html": (
        "live.js",
        "draw.js",
        "learners.js",
        "detail.js",
        "files.js",
        "text.js",
        "theme.js",
    ),
}
"""What the script of each page imports, so that all of it is fetched at once."""


def content_security_policy(settings: Settings) -> str:
    """What a page may load, and who may show it inside another: Jupyter on this machine, and the public host.

    >>> "script-src 'self';" in content_security_policy(Settings())
    True
    """
    local = [f"{scheme}://{host}:*" for scheme in ("http", "https") for host in ("127.0.0.1", "localhost")]
    names = [name.strip() for name in settings.allowed_hosts.split(",")]
    public = urlsplit(settings.public_url).hostname or ""
    hosts = [f"{scheme}://{name}:*" for name in (*names, public) if name for scheme in ("http", "https")]
    # A notebook in VS Code is a page of this scheme.
    ancestors = ["'self'", *local, *hosts, "vscode-webview:"]
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            f"frame-ancestors {' '.join(dict.fromkeys(ancestors))}",
        )
    )


def routes(runtime: Runtime) -> list[web.RouteDef]:
    """The routes of the pages, and of all that they ask for."""
    assets = Assets()
    policy = content_security_policy(runtime.settings)

    def page(template: str, up: str, title: str, data: Any, status: int = 200) -> web.Response:
        own = {name.replace(".", "_").replace("-", "_"): up + assets[name].path for name in assets.names}
        text = Template(assets.text(template)).substitute(
            own,
            up=up or "./",
            title=html.escape(title),
            data=_inside_html(data),
            preload="\n".join(
                f'<link rel="modulepreload" href="{up}{assets[name].path}">' for name in _OWN[template]
            ),
        )
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
        return web.Response(text=text, content_type="text/html", status=status, headers=headers)

    @takes("read")
    async def home(request: web.Request) -> web.StreamResponse:
        return page("home.html", "", "Learning Observer", overview(runtime))

    @takes("read")
    async def overview_json(request: web.Request) -> web.StreamResponse:
        return web.json_response(overview(runtime), headers={"Cache-Control": "no-store"})

    @takes("read")
    async def dashboard(request: web.Request) -> web.StreamResponse:
        try:
            board = runtime.dashboards[request.match_info["id"]]
        except LOError as error:
            return page("missing.html", "../", "No such dashboard", {"error": str(error)}, status=404)
        data = {
            **board.to_json(),
            "courses": runtime.rosters.courses(),
            "queries": [query.to_json() for query in runtime.dashboards.queries(board.id)],
            "vega": ["../" + assets[name].path for name in _VEGA],
            "many": MANY,
        }
        return page("dashboard.html", "../", board.title, data)

    @takes("read")
    async def admin_status(request: web.Request) -> web.StreamResponse:
        return web.json_response(status(runtime), headers={"Cache-Control": "no-store"})

    @takes("read")
    async def prometheus(request: web.Request) -> web.StreamResponse:
        text = metrics(runtime)
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    return [
        web.get("/", home),
        web.get("/home.json", overview_json),
        web.get("/dashboards/{id}", dashboard),
        web.get("/admin/status", admin_status),
        web.get("/metrics", prometheus),
        *queries_page.routes(runtime, page),
        *webapi.routes(runtime),
        *assets.routes(),
    ]


def overview(runtime: Runtime) -> dict[str, Any]:
    """What the home page shows."""
    now = status(runtime)
    boards = [runtime.dashboards[name] for name in runtime.dashboards]
    return {
        **{name: now[name] for name in ("version", "workspace", "owner", "learners", "active", "sources")},
        **{name: now[name] for name in ("events", "events_per_second", "reducers")},
        "docs": documentation(),
        "modules": [runtime.modules[name].to_json() for name in runtime.modules],
        "courses": runtime.rosters.courses(),
        "dashboards": [
            {
                "id": board.id,
                "title": board.title,
                "url": f"dashboards/{board.id}",
                "panels": len(board.panels),
                "source": board.source,
            }
            for board in boards
        ],
        "links": [
            {"title": link["name"], "url": str(link["url"]).lstrip("/"), "source": link.get("module", "")}
            for link in runtime.dashboards.course_links
        ],
    }


def documentation() -> str:
    """Address of the documentation, as the installed package names it; empty where it names none."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        addresses = metadata("lo-kernel").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    named = dict(tuple(part.strip() for part in line.split(",", 1)) for line in addresses if "," in line)
    return str(named.get("Documentation", ""))


def _inside_html(data: Mapping[str, Any]) -> str:
    """JSON that can stand in a page: nothing in it ends the element that it stands in."""
    text = msgspec.json.encode(data).decode()
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
