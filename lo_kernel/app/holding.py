"""All that is held of one learner.

``GET /webapi/learner/{safe_user_id}/held`` is for the command line, which asks the process that owns the
workspace: its reducers have the states.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from lo_kernel.app.security import ACCESS
from lo_kernel.engine.archive import Search, Senders
from lo_kernel.runtime import Runtime

__all__ = ["COMMAND_LINE", "USER", "answer", "asked_by", "held"]

COMMAND_LINE = "command line"
USER = "X-LO-User"
"""The header that says who sits at the command line."""


def asked_by(request: web.Request) -> dict[str, str]:
    """Who asks from the command line, for the record."""
    return {"user": unquote(request.headers.get(USER, "")), "at": COMMAND_LINE}


async def answer(runtime: Runtime, request: web.Request) -> web.Response:
    """All of it, for the notebook's own token alone, which no cookie is."""
    student = request.match_info["safe_user_id"]
    if request[ACCESS].by_cookie:
        return _json({"error": "this takes the notebook's own token, not a cookie"}, 403)
    if student not in runtime.learners:
        return _json({"error": f"{student!r} is not the safe id of a learner who was seen here"}, 404)
    return _json(await held(runtime, student, asked=asked_by(request)))


async def held(runtime: Runtime, student: str, **asked: Any) -> dict[str, Any]:
    """Profile, events and states of a learner, as JSON data; it goes on record."""
    profile = [row for row in await runtime.rosters.roster(names=True) if row["user_id"] == student]

    def events() -> list[Any]:
        found = runtime.archive.search(Search(learner=student), Senders())
        return [{"n": each.n, "t": each.t, "by": each.by, "body": each.body} for each, _ in found]

    keys = [key for key in await runtime.registry.keys("") if f"STUDENT:{student}" in key.split(",")]
    values = zip(keys, await runtime.registry.read(keys), strict=True)
    states = {key: value for key, value in values if value is not None}
    runtime.reads.act("export student", learners=[student], **asked)
    return {
        "learner": runtime.learners[student],
        "made_up_name": runtime.made_up.find(student),
        "profile": profile[0]["profile"] if profile else {},
        "events": await asyncio.to_thread(events),
        "states": states,
        "not_here": "states that belong to several learners, such as those of a class",
    }


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)
