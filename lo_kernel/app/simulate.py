"""A class that types, over the real websocket: each learner is a client that knows only PROTOCOL.md.

What the learners write and when is decided by :mod:`lo_kernel.app.typists`; this module sends it. Nothing
here touches the app otherwise, so the same class can be let loose on a deployed Learning Observer.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from lo_kernel.app.typists import Typist, typists
from lo_kernel.errors import AccessError, LOError

__all__ = ["SOURCE", "SimulationProgress", "SimulationResult", "simulate_class"]

SOURCE = "org.mitros.writing_analytics"
_ORIGIN = "lo_kernel_simulation"

_CONNECT_AT_ONCE = 50  # so that a large class does not overrun a server's queue of new connections
_HANDSHAKE = 15.0  # seconds for one connection to be made
_GOODBYE = 3.0  # seconds that the server has to close after `terminate`
_CLOSE = aiohttp.ClientWSTimeout(ws_close=0.5)  # a server that is gone answers no goodbye
_PATIENCE = 10.0  # seconds after the end of the class in which a lost server may come back for what is left
_BACKOFF = (0.1, 5.0)  # seconds between attempts to connect again: first and longest
_PROGRESS_EVERY = 0.2  # seconds

OnProgress = Callable[["SimulationProgress"], None]


@dataclass(frozen=True, slots=True)
class SimulationProgress:
    """How far a simulated class is.

    ``connected`` of the ``students`` are connected now; ``events`` were sent in ``elapsed`` of ``seconds``
    (``None``: it goes on until it is cancelled). ``finished`` students have said goodbye.
    """

    students: int
    connected: int
    finished: int
    events: int
    elapsed: float
    seconds: float | None


@dataclass(frozen=True, slots=True, repr=False)
class SimulationResult:
    """What a simulated class sent.

    ``events`` counts the ``google_docs_save`` events, as ``events_per_learner`` (by ``user_id``) does; the
    two identifying frames of a connection and the ``terminate`` at the end come on top. ``unsent`` were
    due, but the server was gone. The same ``seed`` sends the same again.
    """

    students: int
    events: int
    seconds: float
    events_per_learner: dict[str, int]
    seed: int
    reconnects: int = 0
    unsent: int = 0

    def __repr__(self) -> str:
        parts = [
            f"{self.events:,} events from {self.students} learners in {self.seconds:.1f} s, seed {self.seed}"
        ]
        if self.reconnects:
            parts.append(f"{self.reconnects} reconnects")
        if self.unsent:
            parts.append(f"{self.unsent} not sent: the server was gone")
        return f"<simulated class: {', '.join(parts)}>"


def simulate_class(
    ingest_url: str | Callable[[], str],
    *,
    students: int = 30,
    seconds: float | None = None,
    seed: int | None = None,
    source: str = SOURCE,
    speed: float = 1.0,
    prefix: str = "sim",
    on_progress: OnProgress | None = None,
) -> Coroutine[Any, Any, SimulationResult]:
    """Let a class type, each learner over a websocket of its own.

    ``students`` learners type for ``seconds`` (``None``: until cancelled). ``ingest_url`` is the address of
    ``/wsapi/in/``, token included, or gives it for each connection, where it may change. Learners are
    ``sim-01``, ``sim-02`` and so on (``sim`` is the ``prefix``): fast and slow ones, ones that pause, and
    ones that are hardly there. A ``seed`` fixes what is written and when; which events are due in
    ``seconds`` does not depend on how busy the machine is. ``speed`` 2.0 makes all of it happen twice as
    fast. ``on_progress`` is called with a :class:`SimulationProgress` a few times a second, and last when
    all is done.

    A connection that is lost is made again, with growing pauses. Cancelling ends it at once.

    Wrong arguments raise :class:`ValueError` here and not when the result is awaited. Awaiting raises
    :class:`LOError` where nobody answers at the address, and :class:`AccessError` where the token is not
    taken.

    >>> simulate_class("http://127.0.0.1:9999/")
    Traceback (most recent call last):
        ...
    ValueError: ingest_url: expected an address that starts with ws:// or wss://, got 'http://127.0.0.1:9999/'
    """
    address = ingest_url if callable(ingest_url) else lambda: ingest_url
    if not (url := address()).startswith(("ws://", "wss://")):
        raise ValueError(
            f"ingest_url: expected an address that starts with ws:// or wss://, got {_masked(url)!r}"
        )
    if isinstance(students, bool) or not isinstance(students, int) or students < 1:
        raise ValueError(f"students: expected a whole number from 1, got {students!r}")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds: expected a number above 0, or None for no end, got {seconds!r}")
    if not speed > 0:
        raise ValueError(f"speed: expected a number above 0 (1.0: as people type), got {speed!r}")
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    classroom = _Class(address, typists(students, seed, prefix), seconds, seed, source, speed, on_progress)
    return classroom.run()


class _Class:
    """One run: the state that its learners share."""

    def __init__(
        self,
        address: Callable[[], str],
        learners: list[Typist],
        seconds: float | None,
        seed: int,
        source: str,
        speed: float,
        on_progress: OnProgress | None,
    ) -> None:
        self.url = ""  # of the newest connection
        self.seconds = seconds
        self.seed = seed
        self.source = source
        self.speed = speed
        self.sent = dict.fromkeys((learner.user_id for learner in learners), 0)
        self.connected = 0
        self.finished = 0
        self.reconnects = 0
        self.unsent = 0
        self.ever_connected = False
        self._address = address
        self._learners = learners
        self._on_progress = on_progress
        self._gate = asyncio.Semaphore(_CONNECT_AT_ONCE)
        self._begin = 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._begin

    @property
    def deadline(self) -> float | None:
        """When, in seconds since the start, a learner without a server gives up."""
        return None if self.seconds is None else self.seconds + _PATIENCE

    async def run(self) -> SimulationResult:
        self._begin = time.monotonic()
        # The default connector allows 100 connections, and a larger class would wait for the first to leave.
        connector = aiohttp.TCPConnector(limit=0)
        session = aiohttp.ClientSession(connector=connector)
        reporter = asyncio.create_task(self._report()) if self._on_progress else None
        try:
            async with asyncio.TaskGroup() as group:
                for learner in self._learners:
                    group.create_task(_Learner(self, learner, session).run())
        except BaseExceptionGroup as several:
            raise _first(several) from None
        finally:
            if reporter is not None:
                reporter.cancel()
                with suppress(asyncio.CancelledError):
                    await reporter
            await session.close()
        self._tell()
        return SimulationResult(
            students=len(self._learners),
            events=sum(self.sent.values()),
            seconds=round(self.elapsed, 3),
            events_per_learner=dict(self.sent),
            seed=self.seed,
            reconnects=self.reconnects,
            unsent=self.unsent,
        )

    async def connect(self, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        async with self._gate, asyncio.timeout(_HANDSHAKE):
            self.url = self._address()
            return await session.ws_connect(self.url, max_msg_size=0, timeout=_CLOSE)

    async def _report(self) -> None:
        while True:
            self._tell()
            await asyncio.sleep(_PROGRESS_EVERY)

    def _tell(self) -> None:
        if self._on_progress is None:
            return
        self._on_progress(
            SimulationProgress(
                students=len(self._learners),
                connected=self.connected,
                finished=self.finished,
                events=sum(self.sent.values()),
                elapsed=self.elapsed,
                seconds=self.seconds,
            )
        )


class _Learner:
    """One learner: a schedule of events, and the connection that carries them."""

    def __init__(self, classroom: _Class, typist: Typist, session: aiohttp.ClientSession) -> None:
        self._class = classroom
        self._typist = typist
        self._session = session

    async def run(self) -> None:
        schedule = self._schedule()
        waiting: dict[str, Any] | None = None  # an event whose sending failed
        pause = _BACKOFF[0]
        while True:
            try:
                websocket = await self._class.connect(self._session)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self._check(error)
                if self._too_late():
                    self._class.unsent += (waiting is not None) + sum(1 for _ in schedule)
                    break
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # not all of them in step
                pause = min(pause * 2, _BACKOFF[1])
                continue
            self._class.ever_connected = True
            self._class.connected += 1
            listener = asyncio.create_task(self._listen(websocket))
            try:
                done, waiting, sent_any = await self._talk(websocket, listener, schedule, waiting)
            finally:
                self._class.connected -= 1
                listener.cancel()
                try:
                    with suppress(asyncio.CancelledError):
                        await listener
                finally:
                    await websocket.close()
            if done:
                break
            # A server that takes the connection and drops it at once is given the growing pauses too.
            pause = _BACKOFF[0] if sent_any else min(pause * 2, _BACKOFF[1])
            self._class.reconnects += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        self._class.finished += 1

    def _schedule(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """(seconds since the start of the class, event) as they are due."""
        speed, seconds = self._class.speed, self._class.seconds
        typed = float("inf") if seconds is None else seconds * speed
        for due, event in self._typist.until(typed):
            yield due / speed, event

    async def _talk(
        self,
        websocket: aiohttp.ClientWebSocketResponse,
        listener: asyncio.Task[None],
        schedule: Iterator[tuple[float, dict[str, Any]]],
        waiting: dict[str, Any] | None,
    ) -> tuple[bool, dict[str, Any] | None, bool]:
        """Send what is due until the connection is lost: (all sent, what is left over, any sent)."""
        user_id, sent_any = self._typist.user_id, False
        try:
            await self._send(websocket, {"event": "test_framework_fake_identity", "user_id": user_id})
            await self._send(websocket, {"event": "metadata_finished"})
            while True:
                if waiting is None:
                    due, waiting = next(schedule, (0.0, None))
                    if waiting is None:
                        break
                    await self._until(due, listener)
                if listener.done():
                    listener.result()  # a refusal is raised here; an ordinary close is not one
                    return False, waiting, sent_any
                await self._send(websocket, waiting)
                self._class.sent[user_id] += 1
                waiting, sent_any = None, True
        except (aiohttp.ClientError, OSError):
            return False, waiting, sent_any
        await self._until(self._class.seconds or 0.0, listener)
        with suppress(aiohttp.ClientError, OSError):  # all is said: no reason to connect again for a goodbye
            await self._send(websocket, {"event": "terminate"})
            await asyncio.wait([listener], timeout=_GOODBYE)
        return True, None, sent_any

    async def _until(self, due: float, listener: asyncio.Task[None]) -> None:
        """Wait until ``due`` seconds since the start, or until the connection is lost."""
        left = due - self._class.elapsed
        if left > 0:
            await asyncio.wait([listener], timeout=left)

    async def _send(self, websocket: aiohttp.ClientWebSocketResponse, event: dict[str, Any]) -> None:
        frame = {**event, "source": self._class.source, "origin": _ORIGIN}
        if event["event"] == "google_docs_save":
            frame["timestamp"] = int(time.time() * 1000)
        await websocket.send_str(json.dumps(frame, separators=(",", ":")))

    async def _listen(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        """Take what the server says until it closes; a block-list entry raises."""
        async for message in websocket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            with suppress(ValueError, TypeError, AttributeError):
                said = json.loads(message.data)
                if said.get("status") == "blocklist":
                    raise AccessError(
                        f"the server does not take events of {self._typist.user_id}: "
                        f"{said.get('message') or said.get('action')}"
                    )

    def _check(self, error: BaseException) -> None:
        """Raise where trying again is of no use: a refusal, or an address at which nobody ever answered."""
        address = _masked(self._class.url)
        if isinstance(error, aiohttp.WSServerHandshakeError) and error.status in (401, 403):
            raise AccessError(
                f"{address} refused the connection ({error.status}): expected a token that may send events; "
                "use lo.ingest_url, which carries one, or the address that `lo-kernel status` prints"
            ) from None
        if self._class.ever_connected:
            return
        if isinstance(error, aiohttp.WSServerHandshakeError) and error.status == 421:
            raise LOError(
                f"{address} takes no events: the app there follows its workspace, and the owner takes them. "
                "Where the owner has ended, `await lo.own()` takes the workspace over; then try again"
            ) from None
        if isinstance(error, aiohttp.WSServerHandshakeError):
            raise LOError(
                f"{address} answered with status {error.status} and not with a websocket: expected the "
                "address of /wsapi/in/ of a running app; lo.ingest_url is one"
            ) from None
        reason = (
            "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        )
        raise LOError(
            f"can't connect to {address} ({_masked(reason)}): is the app running there? In a notebook use "
            "lo.ingest_url; in a terminal start the app with `lo-kernel` and see `lo-kernel status`"
        ) from None

    def _too_late(self) -> bool:
        return self._class.deadline is not None and self._class.elapsed > self._class.deadline


def _masked(address: str) -> str:
    """An address without its query, which holds the token."""
    return address.split("?", 1)[0]


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error to tell: thirty learners without a server all have the same to say."""
    error = several.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
