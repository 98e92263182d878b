"""Events in: the websocket ``/wsapi/in/`` (format of the deployed Learning Observer).

A client says who it is, then sends events, one JSON object (or an array of them) a text frame. Until its
identity is known, what it sends is held; a client that never says is a guest. One connection is
processed in order. What is no event is kept under ``rejected/``, and the client is told why.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import Any

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from lo_kernel.app.frames import decode_array
from lo_kernel.app.security import offered_protocols, takes
from lo_kernel.app.source import (
    SOFT_LIMIT,
    SPECIAL,
    TURN,
    Close,
    Fenced,
    Send,
    Source,
    Terminate,
    Uncounted,
    all_plain,
)
from lo_kernel.errors import EventError, LOError
from lo_kernel.runtime import Runtime

__all__ = ["HARD_LIMIT", "SOCKETS", "SOFT_LIMIT", "Source", "routes"]

HARD_LIMIT = 16 << 20  # bytes of one frame; a larger one ends the connection (1009)
_READ_LIMIT = 2 * HARD_LIMIT  # up to here it is read to its end, so that the client sees why
_PATIENCE = 5  # seconds that a client's goodbye waits for the disk
_LONG = 10  # of a turn's events, what a frame that goes the long way counts
_OVER = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

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
        if not runtime.takes_events:
            owner = runtime.workspace.find_owner()
            where = owner.url if owner else "the process that owns it"
            return web.json_response(
                {"error": f"this app follows its workspace; events go in at {where}"}, status=421
            )
        # no heartbeat: some clients never read, and so answer no ping; TCP's keepalive finds the dead
        protocols = offered_protocols(request)
        ws = web.WebSocketResponse(max_msg_size=_READ_LIMIT, protocols=protocols, **_AS_BYTES)
        await ws.prepare(request)
        source = Source(runtime, _where_from(request), _sender_of(ws), _closer_of(ws))
        runtime.sources.add(source)
        sockets = request.app[SOCKETS]
        sockets.add(ws)
        try:
            await _receive(ws, source)
        finally:
            await source.end()
            runtime.sources.discard(source)
            sockets.discard(ws)
        return ws

    return [web.get("/wsapi/in/", events_in), web.get("/wsapi/in", events_in)]


async def _receive(ws: web.WebSocketResponse, source: Source) -> None:
    pipeline, clock = source.runtime.pipeline, source.runtime.clock
    special, decode, text = SPECIAL, _decode, WSMsgType.TEXT
    adapters = source.runtime.adapters
    receive = ws.receive  # `async for` would be a coroutine and three comparisons more for each frame
    turn = 0
    # frames that came together are taken together: when no more are there, or when the turn ends
    bodies: list[dict[str, Any]] = []
    raws: list[bytes | msgspec.Raw] = []
    began = 0.0
    call_soon = asyncio.get_running_loop().call_soon

    def take() -> None:
        if bodies:
            some, texts = bodies.copy(), raws.copy()
            bodies.clear()
            raws.clear()
            assert source.sender is not None
            if len(some) == 1:
                pipeline.take(source.sender, some[0], texts[0], began)
            else:
                pipeline.take_array(source.sender, some, texts, began)

    try:
        while True:
            message = await receive()
            if message.type is text:
                data: Any = message.data
                if type(data) is str:
                    data = data.encode("utf-8", "surrogatepass")
                # most frames: one event, its sender known, no stream; all else goes the long way
                sender = source.sender
                short = len(data) <= SOFT_LIMIT and not adapters
                if sender is not None and source.stream is None and short:
                    try:
                        body = decode(data)
                    except (ValueError, RecursionError):
                        body = None
                    if (
                        type(body) is dict
                        and type(name := body.get("event")) is str
                        and name
                        and name not in special
                        and b"\n" not in data
                    ):
                        if not bodies:
                            began = clock()
                            call_soon(take)
                        bodies.append(body)
                        raws.append(data)
                        turn += 1
                        if turn >= TURN:  # a source that never pauses leaves room for others
                            take()
                            turn = 0
                            await asyncio.sleep(0)
                        if pipeline.full:
                            await pipeline.room()
                        continue
                    if type(body) is list and len(body) <= TURN and b"\n" not in data and all_plain(body):
                        if not bodies:
                            began = clock()
                            call_soon(take)
                        bodies += body
                        raws += decode_array(data)
                        turn += len(body)
                        if turn >= TURN:
                            take()
                            turn = 0
                            await asyncio.sleep(0)
                        if pipeline.full:
                            await pipeline.room()
                        continue
                    take()
                    if type(body) is list:
                        await source.receive_array(data, body)
                        turn += len(body)
                        if turn >= TURN:
                            turn = 0
                            await asyncio.sleep(0)
                        continue
                take()
                if len(data) > HARD_LIMIT:
                    await _too_large(ws, source, len(data))
                    return
                await source.receive(data)
                turn += _LONG
                if turn >= TURN:
                    turn = 0
                    await asyncio.sleep(0)
            elif message.type is WSMsgType.BINARY:
                take()
                await source.refuse(
                    message.data,
                    EventError("expected a text frame with JSON, got a binary one", reason="binary"),
                )
            elif message.type in _OVER:
                return
    except Terminate:
        take()
        await source.end()
        with contextlib.suppress(LOError, TimeoutError):  # what came is safe with the archive; states follow
            await asyncio.wait_for(pipeline.sync(), _PATIENCE)
        await ws.close()
    except Fenced as error:
        await ws.close(message=str(error).encode())
    except Uncounted as error:
        await ws.close(code=error.code, message=str(error).encode())
    finally:
        take()


async def _too_large(ws: web.WebSocketResponse, source: Source, size: int) -> None:
    message = f"a frame may have {HARD_LIMIT:,} bytes, not {size:,}"
    source.runtime.errors.add("events in", f"{message}: its connection was closed", kind="over_hard_limit")
    await ws.close(code=WSCloseCode.MESSAGE_TOO_BIG, message=message.encode())


def _closer_of(ws: web.WebSocketResponse) -> Close:
    async def close(code: int, reason: str) -> None:
        await ws.close(code=code, message=reason.encode())

    return close


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
