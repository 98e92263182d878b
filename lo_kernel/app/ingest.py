"""Events in: the websocket ``/wsapi/in/`` (format of the deployed Learning Observer).

A client says who it is, then sends events, one JSON object (or an array of them) a text frame. Until its
identity is known, what it sends is held; a client that never says is a guest. One connection is
processed in order. What is no event is kept under ``rejected/``, and the client is told why.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from lo_kernel.app.security import offered_protocols, takes
from lo_kernel.engine.events import Identity, Sender, guest, identify
from lo_kernel.engine.states import decode_state
from lo_kernel.engine.store import PLAIN, Commit
from lo_kernel.errors import EventError
from lo_kernel.runtime import Runtime

__all__ = ["HARD_LIMIT", "SOFT_LIMIT", "Source", "routes"]

SOFT_LIMIT = 1 << 20  # bytes of one frame; a larger one is refused and kept
HARD_LIMIT = 16 << 20  # bytes of one frame; a larger one ends the connection (1009)
_HELD = 100  # events that wait for an identity before a client counts as a guest
_META_BYTES = 4096  # of an identifying event that go with each event of the connection
_LOCK_BYTES = 16384
_TOLD = 20  # errors a client is told one by one; after that, every hundredth

Send = Callable[[dict[str, Any]], Awaitable[None]]

_decode = msgspec.json.Decoder().decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Terminate(Exception):
    """The client asked for the connection's end."""


class Source:
    """One connection that events come in by.

    ``at`` is what the server knows of where it comes from (origin, agent, ip); ``send`` takes replies.
    """

    def __init__(self, runtime: Runtime, at: dict[str, Any], send: Send) -> None:
        self.runtime = runtime
        self.at = at
        self.send = send
        self.identity: Identity | None = None
        self.sender: Sender | None = None
        self.source: str | None = None
        self.lock: dict[str, Any] = {}
        self.meta: dict[str, Any] = {}
        self.events = 0
        self.errors = 0
        self._held: list[tuple[dict[str, Any], bytes, float]] = []

    async def receive(self, data: bytes) -> None:
        """Take one frame; raises :class:`Terminate` where the client wants to end."""
        try:
            if len(data) > SOFT_LIMIT:
                raise EventError(
                    f"expected a frame of at most {SOFT_LIMIT:,} bytes, got {len(data):,}: send large "
                    "values in parts",
                    reason="too_large",
                )
            body = _parse(data)
            if type(body) is dict:
                await self._take(body, data)
                return
            if type(body) is not list:
                raise EventError(
                    f"expected a JSON object with the field 'event', or an array of them, got {_kind(body)}",
                    reason="not_an_object",
                )
        except EventError as error:
            await self._reject(data, error)
            return
        for raw in _decode_array(data):
            text = bytes(raw)
            try:
                item = _parse(text)
                if type(item) is not dict:
                    raise EventError(
                        f"expected JSON objects in the array, got {_kind(item)}", reason="not_an_object"
                    )
                await self._take(item, text)
            except EventError as error:
                await self._reject(text, error)

    async def _take(self, body: dict[str, Any], raw: bytes) -> None:
        name = body.get("event")
        if type(name) is not str or not name:
            raise EventError(
                f"expected a field 'event' that says what happened, a text, got {body.get('event')!r}",
                reason="no_event",
            )
        special = _SPECIAL.get(name)
        if special is not None:
            await special(self, body)
            return
        if b"\n" in raw:
            raw = _encode(body)  # a line of the archive has no breaks
        now = self.runtime.clock()
        if self.sender is None:
            identity = identify(body) or identify(self.lock)
            self._held.append((body, raw, now))
            if identity is not None:
                await self._known(identity, body)
            elif name == "metadata_finished" or len(self._held) >= _HELD:
                await self._nobody()
            return
        self.events += 1
        await self.runtime.pipeline.accept(self.sender, body, raw, now)

    # -- who it is -----------------------------------------------------------------------------

    async def _known(self, identity: Identity, event: dict[str, Any]) -> None:
        self.identity = identity
        self.meta = _small(event)
        source = event.get("source", self.lock.get("source"))
        self.source = source if isinstance(source, str) else None
        self._renew()
        await self.send({"status": "auth", "user_id": identity.user_id})
        held, self._held = self._held, []
        for body, raw, time in held:
            assert self.sender is not None
            self.events += 1
            await self.runtime.pipeline.accept(self.sender, body, raw, time)

    async def _nobody(self) -> None:
        """The client didn't say who it is: it is a guest, or what it sent is refused."""
        if self.runtime.settings.guests:
            await self._known(guest(), self._held[0][0])
            return
        held, self._held = self._held, []
        for _, raw, _ in held:
            await self._reject(
                raw,
                EventError(
                    "expected an event that says who this is (user_id, user_tag, chrome_identity or hash) "
                    "first; guests are not taken here",
                    reason="no_identity",
                ),
            )

    def _renew(self) -> None:
        if self.identity is not None:
            source = self.lock.get("source", self.source)
            self.sender = Sender(self.identity, source, self.at, dict(self.lock), self.meta)

    async def end(self) -> None:
        """The connection is over: what was held for want of an identity is kept too."""
        if self._held:
            await self._nobody()

    # -- events with a meaning of their own ----------------------------------------------------

    async def _lock_fields(self, body: dict[str, Any]) -> None:
        fields = body.get("fields")
        if type(fields) is not dict:
            raise EventError(
                f"lock_fields: expected 'fields' with an object, got {_kind(fields)}",
                reason="bad_lock_fields",
            )
        lock = {**self.lock, **fields}
        lock.pop("auth", None)
        lock.pop("event", None)
        if len(_encode(lock)) > _LOCK_BYTES:
            raise EventError(
                f"lock_fields: expected at most {_LOCK_BYTES:,} bytes of fields", reason="bad_lock_fields"
            )
        self.lock = lock
        self._renew()

    async def _terminate(self, body: dict[str, Any]) -> None:
        raise Terminate

    async def _save_blob(self, body: dict[str, Any]) -> None:
        if "blob" not in body:
            raise EventError("save_blob: expected a field 'blob'", reason="bad_blob")
        await self.runtime.store.commit([Commit(PLAIN, {await self._blob_key(body): _encode(body["blob"])})])

    async def _fetch_blob(self, body: dict[str, Any]) -> None:
        text = (await self.runtime.store.get_many(PLAIN, [await self._blob_key(body)]))[0]
        data = None if text is None else decode_state(text)
        await self.send({"status": "fetch_blob", "data": data})

    async def _blob_key(self, body: dict[str, Any]) -> str:
        if self.identity is None:
            identity = identify(body) or identify(self.lock)
            if identity is None:
                raise EventError("a blob belongs to somebody: identify first", reason="no_identity")
            await self._known(identity, body)
        assert self.identity is not None
        source = {**body, **self.lock}.get("source", self.source)
        activity = body.get("activity", self.lock.get("activity"))
        if not isinstance(source, str) or not isinstance(activity, str):
            raise EventError(
                f"a blob is kept per learner, source and activity: expected both as texts, got {source!r} "
                f"and {activity!r}",
                reason="bad_blob",
            )
        return f"Blob,{self.identity.safe_user_id},{source},{activity}"

    # -- what is no event ----------------------------------------------------------------------

    async def _reject(self, raw: bytes, error: EventError) -> None:
        runtime = self.runtime
        runtime.archive.reject(self.sender, raw, runtime.clock(), error.reason, str(error))
        runtime.pipeline.wake()
        runtime.errors.add("events in", error, kind=error.reason, event=raw[:200].decode(errors="replace"))
        self.errors += 1
        if self.errors <= _TOLD or self.errors % 100 == 0:
            await self.send(
                {"status": "error", "reason": error.reason, "error": str(error), "errors": self.errors}
            )


_SPECIAL: dict[str, Callable[[Source, dict[str, Any]], Awaitable[None]]] = {
    "lock_fields": Source._lock_fields,
    "terminate": Source._terminate,
    "save_blob": Source._save_blob,
    "fetch_blob": Source._fetch_blob,
}


def _parse(data: bytes) -> Any:
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(
            f"expected one JSON object per frame, got {_excerpt(data)}, which is not JSON: {error}",
            reason="not_json",
        ) from None


def _excerpt(data: bytes) -> str:
    text = data[:60].decode(errors="replace")
    return repr(text + ("..." if len(data) > 60 else ""))


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", str: "a text", dict: "an object", list: "an array"}
    return names.get(type(value), "a number")


def _small(event: dict[str, Any]) -> dict[str, Any]:
    """An identifying event without ``auth``, as far as it is small enough to go with every event."""
    meta = {name: value for name, value in event.items() if name != "auth"}
    if len(_encode(meta)) <= _META_BYTES:
        return meta
    short = {name: value for name, value in meta.items() if isinstance(value, str | int | float)}
    return {name: value for name, value in short.items() if len(str(value)) <= 200}


# decode_text=False (aiohttp 3.14): frames stay the bytes that the archive writes
_AS_BYTES: dict[str, Any] = (
    {"decode_text": False}
    if "decode_text" in inspect.signature(web.WebSocketResponse.__init__).parameters
    else {}
)


def routes(runtime: Runtime) -> list[web.RouteDef]:
    """The routes by which events come in."""

    @takes("ingest")
    async def events_in(request: web.Request) -> web.StreamResponse:
        if not runtime.workspace.owner:
            owner = runtime.workspace.find_owner()
            where = owner.url if owner else "the process that owns it"
            return web.json_response(
                {"error": f"this app follows its workspace; events go in at {where}"}, status=421
            )
        ws = web.WebSocketResponse(
            max_msg_size=HARD_LIMIT, heartbeat=30, protocols=offered_protocols(request), **_AS_BYTES
        )
        await ws.prepare(request)
        source = Source(runtime, _where_from(request), _sender_of(ws))
        runtime.sources.add(source)
        sockets = request.app[SOCKETS]
        sockets.add(ws)
        try:
            await _receive(ws, source)
            await source.end()
        finally:
            runtime.sources.discard(source)
            sockets.discard(ws)
        return ws

    return [web.get("/wsapi/in/", events_in), web.get("/wsapi/in", events_in)]


async def _receive(ws: web.WebSocketResponse, source: Source) -> None:
    async for message in ws:
        if message.type is WSMsgType.TEXT:
            data: Any = message.data
            if type(data) is str:
                data = data.encode("utf-8", "surrogatepass")
            try:
                await source.receive(data)
            except Terminate:
                await source.end()
                await source.runtime.pipeline.commit()
                await ws.close()
                return
        elif message.type is WSMsgType.BINARY:
            await source._reject(
                message.data,
                EventError("expected a text frame with JSON, got a binary one", reason="binary"),
            )


def _sender_of(ws: web.WebSocketResponse) -> Send:
    async def send(message: dict[str, Any]) -> None:
        if not ws.closed:
            try:
                await ws.send_str(_encode(message).decode())
            except ConnectionError:  # it went while we spoke: its events are taken all the same
                await asyncio.sleep(0)

    return send


def _where_from(request: web.Request) -> dict[str, Any]:
    """What the server knows of a client, under the deployed system's names."""
    headers = request.headers
    return {
        "origin": headers.get("Origin", "")[:500],
        "agent": headers.get("User-Agent", "")[:500],
        "ip": headers.get("X-Real-IP", "")[:100],
        "executable": "lo_kernel",
    }


SOCKETS: web.AppKey[set[Any]] = web.AppKey("lo_sockets", set[Any])
"""All open websockets of an app, so that its end can close them."""
