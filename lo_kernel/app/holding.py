"""All that is held of one learner.

``GET /webapi/learner/{safe_user_id}/held`` is for the command line, which asks the process that owns the
workspace: its reducers have the states.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from lo_kernel.app.security import ACCESS
from lo_kernel.engine.archive import Search, Senders
from lo_kernel.engine.keys import parse_key
from lo_kernel.engine.learners import mentions
from lo_kernel.engine.store import PLAIN
from lo_kernel.runtime import Runtime

__all__ = ["COMMAND_LINE", "USER", "answer", "asked_by", "by_key", "held", "naming"]

COMMAND_LINE = "command line"
FOLLOWER = "a kernel that follows"
USER = "X-LO-User"
"""The header that says who sits at the command line."""


def asked_by(request: web.Request) -> dict[str, str]:
    """Who asks, for the record: the command line says it; a kernel that follows has a record of its own."""
    user = unquote(request.headers.get(USER, ""))
    return {"user": user, "at": COMMAND_LINE} if user else {"user": "", "at": FOLLOWER}


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
    learner = runtime.learners[student]
    profile = [row for row in await runtime.rosters.roster(names=True) if row["user_id"] == student]
    named = mentions([], [student, learner.user_id])

    def events() -> list[Any]:
        found = runtime.archive.search(Search(learner=student), Senders())
        return [{"n": each.n, "t": each.t, "by": each.by, "body": each.body} for each, _ in found]

    await runtime.pipeline.commit()  # what came a moment ago is in the store, too
    keys = await runtime.registry.keys("")
    theirs = await asyncio.to_thread(_of, student, keys)
    values = zip(theirs, await runtime.registry.read(theirs), strict=True)
    own, rest = await asyncio.to_thread(by_key, await runtime.store.keys(PLAIN), named)
    texts = zip(own, await runtime.store.get_many(PLAIN, own), strict=True)
    told = await asyncio.to_thread(naming, rest, await runtime.store.get_many(PLAIN, rest), named)
    runtime.reads.act("export student", learners=[student], **asked)
    return {
        "learner": learner,
        "made_up_name": runtime.made_up.find(student),
        "profile": profile[0]["profile"] if profile else {},
        "events": await asyncio.to_thread(events),
        "rejected": await asyncio.to_thread(_rejected, runtime, [student, learner.user_id]),
        "states": {key: value for key, value in values if value is not None},
        "values": {key: msgspec.json.decode(text) for key, text in texts if text is not None},
        "named_in_values": told,
        "not_here": [
            "states that belong to several learners, such as those of a class",
            "events that others have sent, and values of one's own (named_in_values), that name them",
            "what was set aside as damaged, logs, exports, saved notebooks, histories of what was typed",
        ],
    }


def by_key(keys: list[str], named: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Keys of one's own that name somebody, and the others. A school's are many: in a thread, best."""
    own: list[str] = []
    rest: list[str] = []
    for key in keys:
        (own if named(key) else rest).append(key)
    return own, rest


def naming(keys: Sequence[str], texts: Sequence[bytes | None], named: Callable[[str], bool]) -> list[str]:
    """The keys whose values name somebody inside: in a text, or in a key of an object.

    ``texts`` are the values, as JSON. As long as reading all of it takes: in a thread, best.
    """
    values = zip(keys, texts, strict=True)
    return [
        key
        for key, text in values
        if text is not None and any(named(f'"{each}"') for each in _strings(msgspec.json.decode(text)))
    ]


def _of(student: str, keys: list[str]) -> list[str]:
    """The keys of a learner's states."""
    return [key for key in keys if (parsed := parse_key(key)) is not None and parsed.student == student]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):  # JSON in a text
            with contextlib.suppress(msgspec.MsgspecError, RecursionError):
                yield from _strings(msgspec.json.decode(value))
    elif isinstance(value, dict):
        for name, each in value.items():
            yield str(name)
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _rejected(runtime: Runtime, names: list[str]) -> list[Any]:
    """Frames that were no events, and that name them: those that an erasure takes."""
    from lo_kernel.engine.archive.erasing import lines_naming

    found: list[Any] = []
    for line in lines_naming(runtime.archive.rejected_path, names):
        try:
            found.append(msgspec.json.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):  # half written
            found.append(line.decode("utf-8", "replace"))
    return found


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)
