"""Queries over the wire: the websocket ``/wsapi/communication_protocol`` and the rosters under ``/webapi``.

A client sends ``{"name": {"execution_dag": ..., "target_exports": [...], "kwargs": {...}}, ...}``; the next
message replaces it. It gets lists of ``{"op", "path", "value"}``. ``update``: the value's fields are merged
into what is at the path. ``error``: a value with ``error`` and ``function``, under the row's path or the
query's name. ``delete``: the row is gone (or starts anew, where an update follows). ``complete``, only for
who sets ``mark_complete``: the answer is there. ``progress``, only for who sets ``progress``: a reducer is
still going through the past.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from aiohttp import WSMsgType, web

from lo_kernel.app.ingest import SOCKETS
from lo_kernel.app.security import ACCESS, naming_of, offered_protocols, takes
from lo_kernel.errors import LOError, QueryError

if TYPE_CHECKING:
    from lo_kernel.query.executor import Running
    from lo_kernel.query.live import LiveQueries
    from lo_kernel.query.naming import Naming
    from lo_kernel.query.ports import JSON
    from lo_kernel.query.rosters import Rosters
    from lo_kernel.query.subscription import Subscription

__all__ = ["QueryConnection", "routes"]

STALLED_SECONDS: Final = 30.0
"""How long a reader may take nothing before it is cut off."""

MESSAGE_BYTES: Final = 1024 * 1024
MAX_QUERIES: Final = 100
_PROGRESS_SECONDS: Final = 0.5

Send = Callable[[bytes], Awaitable[None]]


class Asked(Protocol):
    """Who answers; a part is made, and its modules imported, when it is first looked at."""

    @property
    def live(self) -> LiveQueries:
        """The queries."""

    @property
    def rosters(self) -> Rosters:
        """The courses."""


def routes(asked: Asked, *, stalled: float = STALLED_SECONDS) -> list[web.RouteDef]:
    """The routes for queries and rosters; ``stalled`` is in seconds."""

    @takes("read")
    async def communication_protocol(request: web.Request) -> web.StreamResponse:
        """Answer queries, and push what changes."""
        # Compression would be made anew for each reader; an update is encoded once for all.
        ws = web.WebSocketResponse(
            heartbeat=2 * stalled,
            compress=False,
            max_msg_size=MESSAGE_BYTES,
            protocols=offered_protocols(request),
        )
        await ws.prepare(request)

        async def send(frame: bytes) -> None:
            try:
                async with asyncio.timeout(stalled):
                    await ws.send_frame(frame, WSMsgType.TEXT)
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()  # a close would wait for the reader too
                raise ConnectionResetError("the reader took nothing for too long") from None

        sockets = request.app.get(SOCKETS)
        if sockets is not None:
            sockets.add(ws)
        connection = QueryConnection(
            asked.live, send, open_queries=_everything(request), names=naming_of(request)
        )
        try:
            async for frame in ws:
                if frame.type == WSMsgType.TEXT:
                    await connection.receive(frame.data)
                elif frame.type == WSMsgType.BINARY:
                    await connection.refuse("expected a text frame of JSON, got a binary one")
        except ConnectionResetError:
            pass
        finally:
            await connection.close()
            if sockets is not None:
                sockets.discard(ws)
        return ws

    @takes("read")
    async def courselist(request: web.Request) -> web.Response:
        """The courses."""
        return _json(asked.rosters.courses())

    @takes("read")
    async def courseroster(request: web.Request) -> web.Response:
        """The learners of a course."""
        try:
            rows = await asked.rosters.roster(request.match_info["course_id"], names=naming_of(request))
        except LOError as error:
            return _json({"error": str(error)}, status=404)
        reads = asked.live.executor.reads
        if reads is not None:
            reads.record("roster", "the roster of a course", [str(row["user_id"]) for row in rows])
        return _json(rows)

    return [
        web.get("/wsapi/communication_protocol", communication_protocol),
        web.get("/webapi/courselist/", courselist),
        web.get("/webapi/courselist", courselist),
        web.get("/webapi/courseroster/{course_id}", courseroster),
        web.get("/webapi/courseroster/{course_id}/", courseroster),
    ]


class QueryConnection:
    """One client and its queries. ``send`` takes a frame, and waits while the client is slow."""

    def __init__(
        self, live: LiveQueries, send: Send, *, open_queries: bool = False, names: Naming = False
    ) -> None:
        self.live = live
        self.send = send
        self.open_queries = open_queries
        self.names = names
        self._tasks: set[asyncio.Task[None]] = set()

    async def receive(self, text: str | bytes) -> None:
        """Take a message: its queries replace the ones before."""
        try:
            queries = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            await self.refuse(f"expected JSON, got text that isn't: {error}")
            return
        if not isinstance(queries, dict) or len(queries) > MAX_QUERIES:
            await self.refuse(
                f"expected an object of at most {MAX_QUERIES} named queries "
                '{"name": {"execution_dag": ..., "target_exports": [...], "kwargs": {...}}}, '
                f"got {type(queries).__name__}"
            )
            return
        await self._stop()
        for name, query in queries.items():
            task = asyncio.get_running_loop().create_task(self._answer(name, query))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def refuse(self, text: str, path: str = "request") -> None:
        """Send an error that the client can show."""
        from lo_kernel.query.values import error_value

        await self.send(_message("error", path, error_value(text, "query")))

    async def close(self) -> None:
        """End all queries."""
        await self._stop()

    async def _stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, name: str, query: JSON) -> None:
        with contextlib.suppress(ConnectionResetError):
            try:
                await self._run(name, query)
            except LOError as error:
                await self.refuse(str(error), name)
            except ConnectionResetError:
                raise
            except Exception as error:
                if self.live.on_error is not None:
                    self.live.on_error(f"query {name!r}", error)
                await self.refuse(f"{type(error).__name__}: {error}", name)

    async def _run(self, name: str, query: JSON) -> None:
        dag, exports, kwargs = self._read(query)
        for absent in exports[1]:
            await self.refuse(absent, name)
        if exports[0] is not None and not exports[0]:
            return
        stamp = kwargs.get("option_hash")
        stamps = {x: {f"option_hash_{x}": stamp} for x in exports[0] or ()} if stamp is not None else None
        once, tell = _delay(kwargs) < 0, _flag(query, kwargs, "progress")
        waited = once and await self._newest(name, dag, exports[0], kwargs, tell=tell)
        async with self.live.subscribe(
            dag, exports[0], kwargs, names=self.names, stamps=stamps
        ) as subscription:
            if tell:
                await self._progress(name, subscription)
            if waited:
                await subscription.settled()
                subscription.anew()
            first = await anext(subscription)
            for frame in first.frames:
                await self.send(frame)
            if _flag(query, kwargs, "mark_complete"):
                await self.send(_message("complete", name, {}))
            if once:
                return
            async for update in subscription:
                for frame in update.frames:
                    await self.send(frame)

    def _read(self, query: JSON) -> tuple[Any, tuple[list[str] | None, list[str]], dict[str, JSON]]:
        """The query, its exports (those that are there, errors for the others), its parameters."""
        if not isinstance(query, dict):
            raise QueryError(f"expected an object with 'execution_dag', got {query!r:.80}")
        kwargs = query.get("kwargs") or {}
        if not isinstance(kwargs, dict):
            raise QueryError(f"field 'kwargs': expected an object, got {kwargs!r:.80}")
        _delay(kwargs)
        dag: Any = query.get("execution_dag")
        catalog = self.live.executor.catalog
        if isinstance(dag, str):
            dag_read = catalog.get(dag)
        elif isinstance(dag, dict):
            if not self.open_queries:
                raise QueryError(
                    "field 'execution_dag': expected the name of a predefined query, got a DAG, which only "
                    "the notebook's own token may send; there are: "
                    + ", ".join(sorted({i.dag for i in catalog}))
                )
            if "exports" in query and "exports" not in dag:
                dag = {"execution_dag": dag, "exports": query["exports"]}
            dag, _ = catalog.resolve(dag, [])
            dag_read = dag
        else:
            raise QueryError(f"field 'execution_dag': expected the name of a query or a DAG, got {dag!r:.80}")
        targets = query.get("target_exports")
        if targets is None:
            return dag, (None, []), kwargs
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
            raise QueryError(f"field 'target_exports': expected a list of names, got {targets!r:.80}")
        if not targets:
            raise QueryError(
                "field 'target_exports': expected at least one name (or no such field, for all), got []; "
                "there are: " + (", ".join(dag_read.exports) or "none")
            )
        there, absent = [], []
        for target in targets:
            try:
                dag_read.export(target)
                there.append(target)
            except QueryError as error:
                absent.append(str(error))
        return dag, (there, absent), kwargs

    async def _newest(
        self, name: str, dag: Any, exports: list[str] | None, kwargs: dict[str, JSON], *, tell: bool
    ) -> bool:
        """Wait for reducers that are to replace others: who asks once wants the newest."""
        executor = self.live.executor
        if not any(getattr(registration, "replacing", False) for registration in executor.reducers):
            return False  # nearly always; laying the query out twice would cost
        running = executor.prepare(dag, exports, kwargs, names=self.names)
        wait = asyncio.ensure_future(executor.wait(running, newest=True))
        try:
            await asyncio.sleep(0)
            while not wait.done():
                if tell:
                    await self._tell_progress(name, running)
                await asyncio.wait([wait], timeout=_PROGRESS_SECONDS)
            return await wait
        finally:
            wait.cancel()
            running.close()

    async def _progress(self, name: str, subscription: Subscription) -> None:
        while not (subscription.started or subscription.waiting):
            await self._tell_progress(name, subscription.running)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(subscription.ready(), _PROGRESS_SECONDS)

    async def _tell_progress(self, name: str, running: Running) -> None:
        for registration in running.registrations():
            about = {
                "reducer": registration.id,
                "done": getattr(registration, "done", None),
                "total": getattr(registration, "total", None),
            }
            await self.send(_message("progress", name, about))


def _message(op: str, path: str, value: JSON) -> bytes:
    from lo_kernel.query.updates import message

    return message(op, path, value)


def _flag(query: Mapping[str, JSON], kwargs: Mapping[str, JSON], name: str) -> bool:
    return bool(query.get(name) or kwargs.get(name))


def _delay(kwargs: Mapping[str, JSON]) -> float:
    delay = kwargs.get("rerun_dag_delay", 0)
    if not isinstance(delay, int | float):
        raise QueryError(
            f"field 'kwargs.rerun_dag_delay': expected seconds, or -1 for once, got {delay!r:.80}"
        )
    return float(delay)


def _everything(request: web.Request) -> bool:
    return ACCESS in request and request[ACCESS].everything


def _json(value: JSON, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)
