"""JSON for pages: one learner with recent events, what a dashboard's panels are drawn as, and lists of pages.

Names of the roster go to teachers' browsers only: see :func:`lo_kernel.app.security.naming_of`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

import lo_kernel
from lo_kernel.app import status
from lo_kernel.app.security import naming_of, takes
from lo_kernel.engine.events import Sender
from lo_kernel.errors import LOError
from lo_kernel.query.naming import Naming
from lo_kernel.runtime import Runtime

__all__ = ["learner", "routes"]

RECENT: Final = 40
"""Events of a learner that are shown."""

_FIRST_LOOK = 4_000  # events from the archive's end that are looked through first
_LAST_LOOK = 400_000  # and at most: what lies further back is not recent
_CLIP = 300  # characters of an event
_ASIDE = ("event", "source", "auth", "origin", "metadata")  # known from elsewhere, or of no use to a reader


async def learner(
    runtime: Runtime, safe_user_id: str, *, names: Naming, after: int = 0
) -> dict[str, Any] | None:
    """One learner and the newest events, newest first; ``None`` for somebody who was never seen.

    ``after`` is an archive number: only later events are given. Times are seconds since 1970 (UTC).
    """
    seen = runtime.learners.get(safe_user_id)
    profile = await _profile(runtime, safe_user_id, names)
    if seen is None and not profile:
        return None
    recent = await asyncio.to_thread(_recent, runtime, safe_user_id, after) if seen else []
    runtime.reads.record("events", "learner's page", [safe_user_id])
    return {
        "user_id": safe_user_id,
        "profile": profile,
        "first_seen": seen.first_seen if seen else None,
        "last_seen": seen.last_seen if seen else None,
        "events": seen.events if seen else 0,
        "recent": recent,
    }


def routes(runtime: Runtime) -> list[web.RouteDef]:
    """The routes of all of this; ``runtime.dashboards`` is made, and imported, when one is asked."""

    @takes("read")
    async def one_learner(request: web.Request) -> web.StreamResponse:
        after = request.query.get("after", "0")
        found = await learner(
            runtime,
            request.match_info["safe_user_id"],
            names=naming_of(request),
            after=int(after) if after.isdecimal() else 0,
        )
        if found is None:
            return _json({"error": "nobody of this id was seen"}, status=404)
        return _json(found)

    async def erase_learner(request: web.Request) -> web.StreamResponse:
        from lo_kernel.app import erasing

        return await erasing.answer(runtime, request)

    async def held(request: web.Request) -> web.StreamResponse:
        from lo_kernel.app import holding

        return await holding.answer(runtime, request)

    async def replayed(request: web.Request) -> web.StreamResponse:
        from lo_kernel.app import replaying

        return await replaying.answer(runtime, request)

    @takes("read")
    async def state(request: web.Request) -> web.StreamResponse:
        try:
            reducers = runtime.dashboards.reducers(request.match_info["id"])
        except LOError as error:
            return _json({"error": str(error)}, status=404)
        return _json({**status.facts(runtime), "reducers": status.reducer_facts(reducers)})

    @takes("read")
    async def drawings(request: web.Request) -> web.StreamResponse:
        from lo_kernel.app.dashboards import COURSE

        dashboards = runtime.dashboards
        try:
            dashboard = dashboards[request.match_info["id"]]
        except LOError as error:
            return _json({"error": str(error)}, status=404)
        course = request.query.get("course")
        found: list[Any] = []
        for panel, query in zip(dashboard.panels, dashboards.queries(dashboard.id), strict=True):
            given = dict(query.parameters)
            if course and query.takes_course:
                given[COURSE] = course
            try:
                rows = await runtime.live.source(f"{query.dag}.{query.export}", given).rows()
                found.append(panel.drawn().drawing(rows).to_json())
            except LOError as error:
                found.append({"kind": "error", "error": str(error), "columns": []})
        return _json(found)

    @takes("read")
    async def course_dashboards(request: web.Request) -> web.StreamResponse:
        dashboards = runtime.dashboards
        own = [
            {
                "name": board.title,
                "url": f"/dashboards/{board.id}",
                "icon": board.icon,
                "module": board.source,
            }
            for board in (dashboards[name] for name in dashboards)
        ]
        return _json([*own, *dashboards.course_links])

    @takes("read")
    async def student_dashboards(request: web.Request) -> web.StreamResponse:
        return _json(runtime.dashboards.student_links)

    @takes("read")
    async def userinfo(request: web.Request) -> web.StreamResponse:
        # Whoever has a token is let in; there are no accounts.
        return _json({"user_id": "local", "name": "", "email": "", "role": "teacher", "authorized": True})

    @takes("read")
    async def config(request: web.Request) -> web.StreamResponse:
        return _json(
            {
                "name": "lo_kernel",
                "version": lo_kernel.__version__,
                "auth": ["token"],
                "modules": sorted({info.dag for info in runtime.catalog}),
            }
        )

    return [
        web.get("/webapi/learner/{safe_user_id}", one_learner),
        web.delete("/webapi/learner/{safe_user_id}", erase_learner),
        web.get("/webapi/learner/{safe_user_id}/held", held),
        web.post("/webapi/replay", replayed),
        web.get("/webapi/course_dashboards", course_dashboards),
        web.get("/webapi/course_dashboards/", course_dashboards),
        web.get("/webapi/student_dashboards", student_dashboards),
        web.get("/webapi/student_dashboards/", student_dashboards),
        web.get("/dashboards/{id}/state", state),
        web.get("/dashboards/{id}/drawings", drawings),
        web.get("/auth/userinfo", userinfo),
        web.get("/config.json", config),
    ]


async def _profile(runtime: Runtime, safe_user_id: str, names: Naming) -> dict[str, Any]:
    for row in await runtime.rosters.roster(names=names):
        if row["user_id"] == safe_user_id:
            return dict(row["profile"])
    return {}


def _recent(runtime: Runtime, safe_user_id: str, after: int) -> list[dict[str, Any]]:
    """The newest events of a learner; looks further and further back until there are enough."""
    last, look = runtime.archive.last, _FIRST_LOOK
    while True:
        start = max(after, last - look)
        found: deque[dict[str, Any]] = deque(maxlen=RECENT)
        senders: dict[bytes, Sender] = {}
        for record in runtime.archive.read(start):
            key = bytes(record.by)
            sender = senders.get(key)
            if sender is None:
                sender = senders[key] = Sender.decode(key)
            if sender.student == safe_user_id:
                body = msgspec.json.decode(record.body)
                found.append({"n": record.n, "time": record.t, **_shown(body)})
        if len(found) == RECENT or start <= after or look >= _LAST_LOOK:
            return list(reversed(found))
        look *= 10


def _shown(body: Any) -> dict[str, Any]:
    """What an event was, in a line."""
    if not isinstance(body, Mapping):
        return {"event": "", "about": ""}
    rest = {name: value for name, value in body.items() if name not in _ASIDE}
    edits = _edits(rest.pop("bundles", None))
    parts = [f"{name}: {_text(value)}" for name, value in rest.items() if name != "timestamp"]
    text = " · ".join([*edits, *parts])
    about = text if len(text) <= _CLIP else text[: _CLIP - 1] + "…"
    return {"event": str(body.get("event", "")), "source": str(body.get("source", "")), "about": about}


def _edits(bundles: Any) -> list[str]:
    """What ``google_docs_save`` says was typed and deleted."""
    found = []
    for bundle in bundles if isinstance(bundles, list) else []:
        for command in bundle.get("commands", ()) if isinstance(bundle, Mapping) else ():
            if isinstance(command, Mapping) and command.get("ty") == "is":
                found.append(f"typed “{_text(command.get('s', ''))}”")
            elif isinstance(command, Mapping) and command.get("ty") == "ds":
                found.append(f"deleted {_text(command.get('si'))} to {_text(command.get('ei'))}")
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _json(value: Any, status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(
        body=msgspec.json.encode(value), content_type="application/json", status=status, headers=headers
    )
