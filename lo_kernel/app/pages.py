"""Pages and JSON for a person or a monitor: home, status."""

from __future__ import annotations

import html
from typing import Any

from aiohttp import web

from lo_kernel.app.security import takes
from lo_kernel.runtime import Runtime

__all__ = ["routes", "status"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Learning Observer</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ text-align: left; padding: .3rem .6rem .3rem 0; }}
th {{ font-weight: 600; border-bottom: 1px solid #8888; }} dd {{ margin: 0 0 .5rem; }}
</style></head><body>
<h1>Learning Observer</h1>
<p>Workspace <b>{workspace}</b>, {events:,} events from {learners:,} learners,
{sources:,} sources connected.</p>
<h2>Reducers</h2>
<table><thead><tr><th>id</th><th>context</th><th>status</th><th>events</th><th>errors</th></tr></thead>
<tbody>{reducers}</tbody></table>
</body></html>
"""


def status(runtime: Runtime) -> dict[str, Any]:
    """What is going on, as JSON data; times are seconds since 1970 (UTC), sizes are bytes."""
    return {
        "workspace": runtime.workspace.name,
        "owner": runtime.workspace.owner,
        "started": runtime.started,
        "events": runtime.archive.last,
        "events_on_disk": runtime.pipeline.synced,
        "rejected": runtime.archive.rejected,
        "learners": len(runtime.learners),
        "sources": len(runtime.sources),
        "store": {"kind": runtime.store.name, "up": runtime.pipeline.store_up, "bytes": runtime.store.size()},
        "archive": {"bytes": runtime.archive.size()},
        "reducers": [
            {
                "id": reducer.id,
                "context": reducer.context,
                "status": reducer.status,
                "events": reducer.events,
                "errors": reducer.errors,
            }
            for reducer in runtime.registry
        ],
        "errors": [str(entry) for entry in runtime.errors],
    }


def routes(runtime: Runtime) -> list[web.RouteDef]:
    """The routes of the pages."""

    @takes("read")
    async def home(request: web.Request) -> web.StreamResponse:
        facts = status(runtime)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in reducer.values()) + "</tr>"
            for reducer in facts["reducers"]
        )
        page = _PAGE.format(
            workspace=html.escape(facts["workspace"]),
            events=facts["events"],
            learners=facts["learners"],
            sources=facts["sources"],
            reducers=rows or "<tr><td colspan=5>none yet</td></tr>",
        )
        return web.Response(text=page, content_type="text/html")

    @takes("read")
    async def admin_status(request: web.Request) -> web.StreamResponse:
        return web.json_response(status(runtime))

    return [web.get("/", home), web.get("/admin/status", admin_status)]
