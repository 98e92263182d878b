"""One source of events: who it is, what it locked, which stream its events count in.

It takes frames as bytes, and knows nothing of websockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import compress
from typing import Any

import msgspec

from lo_kernel.app.blobs import blob_key, fetch_blob, save_blob
from lo_kernel.app.frames import decode_array, elements, kind_of, parse, parse_frame
from lo_kernel.engine.events import Identity, Sender, guest, identify
from lo_kernel.engine.halves import mended
from lo_kernel.engine.streams import Stream
from lo_kernel.errors import EventError, LOError
from lo_kernel.runtime import Runtime

__all__ = [
    "SOFT_LIMIT",
    "SPECIAL",
    "TURN",
    "Close",
    "Fenced",
    "Send",
    "Source",
    "Terminate",
    "Uncounted",
    "all_plain",
]

SOFT_LIMIT = 1 << 20  # bytes of one frame; a larger one is refused and kept
TURN = 64  # events of one source between two turns of the loop
ACK_EVERY = 0.05  # seconds between two acknowledgements
_HELD = 100  # events that wait for an identity before a client counts as a guest
_META_BYTES = 4096  # of an identifying event that go with each event of the connection
_LOCK_BYTES = 16384
_TOLD = 20  # errors a client is told one by one; after that, every hundredth
_STREAM_NAME = 200  # characters
_COMMANDS = frozenset({"bad_lock_fields", "bad_ack", "bad_blob", "store"})  # not counted in a stream

Send = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]
Close = Callable[[int, str], Coroutine[Any, Any, None]]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Terminate(Exception):
    """The client asked for the connection's end."""


class Fenced(Exception):
    """A newer connection goes on with the stream of this one."""

    def __init__(self) -> None:
        super().__init__("the stream goes on by a newer connection")


class Uncounted(Exception):
    """A frame was refused, and how many events of the stream it had can't be known.

    The client has to come back, and go on from the count that it is told; ``code`` is the one to close with.
    """

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(
            "the same frame came again: mend it, or leave it out and go on in a new stream"
            if again
            else "the events of a frame can't be counted: come back, and send what comes after n"
        )
        self.code = {"too_large": 1009, "binary": 1003}.get(reason, 1007)


class Source:
    """One connection that events come in by.

    ``at`` is what the server knows of where it comes from (origin, agent, ip); ``send`` takes replies,
    ``close`` ends the connection, with a code (RFC 6455, 7.4) and a reason.
    """

    def __init__(self, runtime: Runtime, at: dict[str, Any], send: Send, close: Close | None = None) -> None:
        self.runtime = runtime
        self.at = at
        self.send = send
        self.identity: Identity | None = None
        self.sender: Sender | None = None
        self.source: str | None = None
        self.lock: dict[str, Any] = {}
        self.meta: dict[str, Any] = {}
        self.stream: Stream | None = None
        self.errors = 0
        self._held: list[tuple[dict[str, Any], bytes, float, int | None]] = []
        self._close = close
        self._fenced = False
        self._ack: asyncio.TimerHandle | None = None
        self._acked = 0  # told last
        self._acked_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def receive(self, data: bytes) -> None:
        """Take one frame; raises :class:`Terminate` where the client wants to end, and :class:`Uncounted`."""
        if self._fenced:
            raise Fenced
        try:
            if len(data) > SOFT_LIMIT:
                raise EventError(
                    f"expected a frame of at most {SOFT_LIMIT:,} bytes, got {len(data):,}: send large "
                    "values in parts",
                    reason="too_large",
                )
            try:
                body = parse_frame(data)
            except EventError as error:
                data, body = self._mend(data, error)
            if type(body) is dict:
                await self._take(body, data)
            elif type(body) is not list:
                raise EventError(
                    "expected a JSON object with the field 'event', or an array of them, got "
                    f"{kind_of(body)}",
                    reason="not_an_object",
                )
        except EventError as error:
            await self.refuse(data, error)
            return
        if type(body) is list:
            await self.receive_array(data, body)

    def _mend(self, data: bytes, error: EventError) -> tuple[bytes, Any]:
        """A frame with half characters, without them, and what it says; as it came it is kept beside."""
        whole = mended(data)
        if whole is None:
            raise error
        body = parse_frame(whole)
        runtime = self.runtime
        runtime.archive.keep_as_sent(
            self.sender, data, runtime.clock(), "half_character", "accepted with U+FFFD in the place of each"
        )
        return whole, body

    async def receive_array(self, data: bytes, bodies: list[Any]) -> None:
        """Take the elements of an array, each as if it had come in a frame of its own.

        ``bodies`` are what ``data`` says, and are taken over.
        """
        raws = decode_array(data)
        breaks = b"\n" in data
        if len(raws) <= TURN:
            await self._receive_some(bodies, raws, breaks)
            return
        for start in range(0, len(raws), TURN):
            await self._receive_some(bodies[start : start + TURN], raws[start : start + TURN], breaks)
            await asyncio.sleep(0)
            if self._fenced:
                raise Fenced

    async def _receive_some(self, bodies: list[Any], raws: list[msgspec.Raw], breaks: bool) -> None:
        if self.sender is not None and not breaks and not self.runtime.adapters and all_plain(bodies):
            self._take_array(self.sender, bodies, raws)
        else:
            for raw in raws:
                await self._receive_one(bytes(raw))
        if self.runtime.pipeline.full:
            await self.runtime.pipeline.room()

    def _take_array(
        self, sender: Sender, bodies: Sequence[dict[str, Any]], raws: Sequence[msgspec.Raw]
    ) -> None:
        pipeline, stream, numbers = self.runtime.pipeline, self.stream, None
        if stream is not None:
            given = [stream.next() for _ in bodies]
            numbers = [number for number in given if number is not None]
            if len(numbers) < len(given):  # some are from before a crash, and sent again
                bodies = list(compress(bodies, given))
                raws = list(compress(raws, given))
                self._passed(stream)
        if bodies:
            pipeline.take_array(sender, bodies, raws, self.runtime.clock(), numbers)
            if stream is not None and numbers:
                pipeline.streams.put(stream, numbers[-1])

    async def _receive_one(self, text: bytes) -> None:
        """Take one element of an array, the long way."""
        try:
            item = parse(text)
            if type(item) is not dict:
                raise EventError(
                    f"expected JSON objects in the array, got {kind_of(item)}", reason="not_an_object"
                )
            await self._take(item, text)
        except EventError as error:
            await self.reject(text, error)
        if self._fenced:
            raise Fenced

    async def _take(self, body: dict[str, Any], raw: bytes) -> None:
        name = body.get("event")
        if type(name) is not str or not name:
            raise EventError(
                f"expected a field 'event' that says what happened, a text, got {body.get('event')!r}",
                reason="no_event",
            )
        special = SPECIAL.get(name)
        if special is not None:
            await special(self, body)
            return
        now = self.runtime.clock()
        sender = self.sender
        if sender is not None:
            self._accept(sender, body, raw, now, self._number())
            if self.runtime.pipeline.full:
                await self.runtime.pipeline.room()
            return
        identity = identify(body) or identify(self.lock)
        number = self._number()
        stream = self.stream
        if stream is not None and number is not None and stream.first_held is None:
            stream.first_held = number
        self._held.append((body, raw, now, number))
        if identity is not None:
            await self._known(identity, body)
        elif name == "metadata_finished" or len(self._held) >= _HELD:
            await self._nobody()

    def _number(self) -> int | None:
        """The number of an event in its stream; 0 where it is on disk already, ``None`` without a stream."""
        stream = self.stream
        if stream is None:
            return None
        number = stream.next()
        if number is None:
            self._passed(stream)
        return number or 0

    def _passed(self, stream: Stream) -> None:
        self.runtime.pipeline.streams.passed(stream)
        self.runtime.pipeline.wake()

    def _accept(
        self, sender: Sender, body: dict[str, Any], raw: bytes, time: float, number: int | None
    ) -> None:
        if number == 0:  # from before a crash, and sent again
            return
        if self.runtime.adapters:
            body, raw = self._adapted(body, raw)
        if b"\n" in raw:
            raw = _encode(body)  # a line of the archive has no breaks
        self.runtime.pipeline.take(sender, body, raw, time, number)
        if number is not None and self.stream is not None:
            self.runtime.pipeline.streams.put(self.stream, number)

    def _adapted(self, body: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
        """An event as modules want it; where one of them fails, as it was."""
        for adapt in self.runtime.adapters:
            try:
                adapted = adapt(_decode(raw))
                if type(adapted) is not dict:
                    raise EventError(f"expected an event, got {kind_of(adapted)}", reason="not_an_object")
                body, raw = adapted, _encode(adapted)
            except Exception as error:
                self.runtime.errors.add(f"event adapter '{adapt.__qualname__}'", error, event=body)
        return body, raw

    # -- who it is -----------------------------------------------------------------------------

    async def _known(self, identity: Identity, event: dict[str, Any]) -> None:
        self.identity = identity
        self.meta = _small(event)
        source = event.get("source", self.lock.get("source"))
        self.source = source if isinstance(source, str) else None
        self._renew()
        assert self.sender is not None
        held, self._held = self._held, []
        for body, raw, at, number in held:
            self._accept(self.sender, body, raw, at, number)
        self._released()
        await self.send({"status": "auth", "user_id": identity.user_id})
        if self.runtime.pipeline.full:
            await self.runtime.pipeline.room()

    async def _nobody(self) -> None:
        """The client didn't say who it is: it is a guest, or what it sent is refused."""
        if self.runtime.settings.guests:
            await self._known(guest(), self._held[0][0])
            return
        held, self._held = self._held, []
        error = EventError(
            "expected an event that says who this is (user_id, user_tag, chrome_identity or hash) first; "
            "guests are not taken here",
            reason="no_identity",
        )
        for _, raw, _, number in held:
            self._put_away(raw, error, number)
        self._released()
        await self._complain(error)

    def _released(self) -> None:
        if self.stream is not None:
            self.runtime.pipeline.streams.released(self.stream)

    def _renew(self) -> None:
        if self.identity is not None:
            source = self.lock.get("source", self.source)
            mark = {"stream": self.stream.id} if self.stream is not None else {}
            self.sender = Sender(self.identity, source, self.at, dict(self.lock), self.meta, mark)

    async def end(self) -> None:
        """The connection is over: what was held for want of an identity is kept too."""
        if self._held:
            await self._nobody()
        self._leave_stream()
        if self._ack is not None:
            self._ack.cancel()
        for task in self._tasks:
            task.cancel()

    # -- acknowledgements ----------------------------------------------------------------------

    async def _use_stream(self, wanted: Any) -> None:
        """Count the events from now on in a stream, and tell how many of it are on disk."""
        stream_id = wanted.get("stream") if type(wanted) is dict else None
        if type(stream_id) is not str or not 0 < len(stream_id) <= _STREAM_NAME:
            raise EventError(
                "lock_fields: expected 'ack' with an object whose 'stream' is a text of at most "
                f"{_STREAM_NAME} characters, such as a UUID, got {wanted!r:.100}",
                reason="bad_ack",
            )
        if self._held:
            raise EventError("lock_fields: 'ack' comes before the first event", reason="bad_ack")
        pipeline = self.runtime.pipeline
        stream = await self._open_stream(stream_id)
        if self.stream is not stream:
            self._leave_stream()
            if stream.fence is not None:
                await stream.fence()  # what the connection before this one has still on its way is not taken
            stream.fence, stream.tell = self._fence, None
            self.stream = stream
        else:
            stream.users -= 1
        self._renew()
        # the client goes on from the first count it hears: it has to be that of all that came before
        self._acked = await pipeline.durable(stream)
        if self._fenced:
            raise Fenced
        self._acked_at = asyncio.get_running_loop().time()
        stream.tell = self._acknowledge
        await self.send({"status": "ack", "stream": stream.id, "n": self._acked})

    async def _open_stream(self, stream_id: str) -> Stream:
        """The stream, as soon as its count can be known."""
        pipeline, delay = self.runtime.pipeline, 0.1
        while True:
            try:
                return await pipeline.streams.open(stream_id, pipeline.store)
            except LOError as error:
                pipeline.errors.add("store", error)
                await asyncio.sleep(delay)
                delay = min(1.0, delay * 2)

    def _leave_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            self.runtime.pipeline.streams.close(stream)
            if stream.fence == self._fence:
                stream.tell = stream.fence = None

    async def leave(self) -> None:
        """End the connection: events no longer go in here."""
        if self._close is not None:
            await self._close(
                1012, "another process has this workspace now: come back, it says where events go"
            )

    async def _fence(self) -> None:
        """Take nothing more: the client came back on another connection, and goes on there."""
        self._fenced = True
        await self.end()
        self.sender = None
        if self._close is not None:
            self._spawn(self._close(1000, str(Fenced())))

    def _acknowledge(self) -> None:
        """More is on disk; the client is told now, or when the last time is long enough ago."""
        if self._ack is None:
            loop = asyncio.get_running_loop()
            wait = self._acked_at + ACK_EVERY - loop.time()
            self._ack = loop.call_later(max(0.0, wait), self._send_ack)

    def _send_ack(self) -> None:
        self._ack = None
        stream = self.stream
        if stream is None or stream.synced == self._acked:
            return
        self._acked = stream.synced
        self._acked_at = asyncio.get_running_loop().time()
        self._spawn(self.send({"status": "ack", "stream": stream.id, "n": self._acked}))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- events with a meaning of their own ----------------------------------------------------

    async def _lock_fields(self, body: dict[str, Any]) -> None:
        fields = body.get("fields")
        if type(fields) is not dict:
            raise EventError(
                f"lock_fields: expected 'fields' with an object, got {kind_of(fields)}",
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
        if "ack" in body:
            await self._use_stream(body["ack"])
        else:
            self._renew()

    async def _terminate(self, body: dict[str, Any]) -> None:
        raise Terminate

    async def _save_blob(self, body: dict[str, Any]) -> None:
        await save_blob(self.runtime.pipeline, await self._blob_key(body), body)

    async def _fetch_blob(self, body: dict[str, Any]) -> None:
        data = await fetch_blob(self.runtime.pipeline, await self._blob_key(body))
        await self.send({"status": "fetch_blob", "data": data})

    async def _blob_key(self, body: dict[str, Any]) -> str:
        if self.identity is None:
            identity = identify(body) or identify(self.lock)
            if identity is None:
                raise EventError("a blob belongs to somebody: identify first", reason="bad_blob")
            await self._known(identity, body)
        assert self.identity is not None
        return blob_key(self.identity, {"source": self.source, **body, **self.lock})

    # -- what is no event ----------------------------------------------------------------------

    async def refuse(self, data: bytes, error: EventError) -> None:
        """Keep a frame of which nothing is taken; each event in it counts in the stream, if there is one.

        Raises :class:`Uncounted`.
        """
        if self.stream is None or error.reason in _COMMANDS:
            await self.reject(data, error)
            return
        parts = elements(data, text=error.reason != "binary")
        if parts is None:
            again = self.runtime.pipeline.streams.came_again(self.stream, data)
            self._put_away(data, error, 0 if again else None)
            await self._complain(error, always=True)
            raise Uncounted(error.reason, again=again)
        before = self.errors // 100
        for count, part in enumerate(parts, 1):
            raw = bytes(part)
            self._put_away(raw, error, self._number() if _counts(raw) else None)
            if count % TURN == 0:
                if self.runtime.pipeline.full:
                    await self.runtime.pipeline.room()
                await asyncio.sleep(0)
                if self._fenced:
                    raise Fenced
        if len(parts) > 1:
            error = EventError(f"{error} (an array of {len(parts):,}: each counts)", reason=error.reason)
        await self._complain(error, always=self.errors // 100 > before)
        if self.runtime.pipeline.full:
            await self.runtime.pipeline.room()

    async def reject(self, raw: bytes, error: EventError) -> None:
        """Keep what is no event, and tell the client why."""
        if error.reason in _COMMANDS:  # no event that is missing: the client has to know, and nobody else
            self._put_away(raw, error, None)
        else:
            self._put_away(raw, error, self._number())
        await self._complain(error)
        if self.runtime.pipeline.full:
            await self.runtime.pipeline.room()

    def _put_away(self, raw: bytes, error: EventError, number: int | None) -> None:
        """Keep what is no event, with its number where it came by a stream; 0 where it is kept already."""
        runtime, stream = self.runtime, self.stream
        self.errors += 1
        runtime.errors.add("events in", error, kind=error.reason, event=raw[:200].decode(errors="replace"))
        if number == 0:
            return
        name = stream.id if stream is not None and number is not None else None
        runtime.archive.reject(
            self.sender, raw, runtime.clock(), error.reason, str(error), stream=name, ordinal=number
        )
        if stream is not None and number is not None:
            runtime.pipeline.streams.put(stream, number)
        runtime.pipeline.heavy(len(raw))
        runtime.pipeline.wake()

    async def _complain(self, error: EventError, *, always: bool = False) -> None:
        if always or self.errors <= _TOLD or self.errors % 100 == 0:
            await self.send(
                {"status": "error", "reason": error.reason, "error": str(error), "errors": self.errors}
            )


SPECIAL: dict[str, Callable[[Source, dict[str, Any]], Awaitable[None]]] = {
    "lock_fields": Source._lock_fields,
    "terminate": Source._terminate,
    "save_blob": Source._save_blob,
    "fetch_blob": Source._fetch_blob,
}


def all_plain(bodies: list[Any]) -> bool:
    """Whether all of an array are events, and none has a meaning of its own."""
    try:
        names = {body["event"] for body in bodies}
        return bool("".join(names)) and "" not in names and SPECIAL.keys().isdisjoint(names)
    except (KeyError, TypeError):  # one isn't an object, or says nothing of what happened
        return False


def _counts(raw: bytes) -> bool:
    """Whether something that is refused has a number in its stream: all but what is a command."""
    try:
        body = parse(raw)
    except EventError:
        return True
    name = body.get("event") if type(body) is dict else None
    return type(name) is not str or name not in SPECIAL


def _small(event: dict[str, Any]) -> dict[str, Any]:
    """An identifying event without ``auth``, as far as it is small enough to go with every event."""
    meta = {name: value for name, value in event.items() if name != "auth"}
    if len(_encode(meta)) <= _META_BYTES:
        return meta
    short = {name: value for name, value in meta.items() if isinstance(value, str | int | float)}
    return {name: value for name, value in short.items() if len(str(value)) <= 200}
