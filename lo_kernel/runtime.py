"""The runtime: one of each part, made in the order in which an event passes them.

It is given to whoever needs a part; nothing in the package is global. ``start`` and ``stop`` run on the
app's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from lo_kernel.app.security import Security
from lo_kernel.engine.archive import Archive
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Sender
from lo_kernel.engine.learners import Learners
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.reducers import Reducer
from lo_kernel.engine.registry import Registration, Registry
from lo_kernel.engine.store import open_store
from lo_kernel.query.catalog import Catalog
from lo_kernel.query.executor import Executor
from lo_kernel.query.functions import Functions
from lo_kernel.query.live import LiveQueries
from lo_kernel.query.rosters import Rosters
from lo_kernel.settings import Settings
from lo_kernel.workspace import Workspace

__all__ = ["NoReadLog", "ReadLog", "Runtime"]

_FOLLOW_EVERY = 0.05  # seconds between two looks of a follower


class ReadLog(Protocol):
    """Where reads of learners' data are put on record."""

    def record(self, kind: str, what: str, learners: Iterable[str]) -> None:
        """Note that ``what`` (a reducer, a query) was read, and of whom (safe ids)."""


class NoReadLog:
    """A read log that keeps nothing."""

    def record(self, kind: str, what: str, learners: Iterable[str]) -> None:
        """Keep nothing."""


class Runtime:
    """All parts of one LO app.

    >>> runtime = Runtime(Settings(store="memory"))
    >>> runtime.bind("127.0.0.1", 9999)
    >>> runtime.url
    'http://127.0.0.1:9999/'
    """

    def __init__(
        self, settings: Settings, *, reads: ReadLog | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.reads: ReadLog = reads if reads is not None else NoReadLog()
        self.errors = ErrorLog(clock=clock)
        self.workspace = Workspace(settings.workspace_path)
        self.archive = Archive(self.workspace.path, self.errors)
        self.learners = Learners()
        self.security = Security(settings, self.workspace)
        self.host, self.port = settings.host, settings.port
        self.started: float | None = None
        self.sources: set[object] = set()  # connections that events come in by
        self.store = open_store("memory", "")
        self.pipeline = Pipeline(self.archive, self.store, self.errors, self.learners)
        self.registry = Registry(self.pipeline, self.store, self.errors)
        self.functions = Functions()
        self.rosters = Rosters(self.learners, self.functions)
        self.catalog = Catalog()
        self.executor = Executor(self.registry, self.registry, self.functions, self.catalog, self.reads)
        self.live = LiveQueries(self.executor, self.registry, self._note)
        self.registry.on_live.append(self.live.reducers_changed)
        self._follower: asyncio.Task[None] | None = None

    def _note(self, where: str, error: BaseException) -> None:
        self.errors.add(where, error)

    def bind(self, host: str, port: int) -> None:
        """Say where the app answers; before :meth:`start`."""
        self.host, self.port = host, port
        self.security.bind(host, port)

    @property
    def url(self) -> str:
        """The app's own address, without a token."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{host}:{self.port}/"

    @property
    def ingest_url(self) -> str:
        """The websocket address that a source of events needs, token included.

        A follower's is the owner's: that is where events go in.
        """
        if not self.workspace.owner:
            owner = self.workspace.find_owner()
            if owner is not None:
                return owner.ingest_url
        address = "ws" + self.url.removeprefix("http") + "wsapi/in/"
        return f"{address}?token={self.security.tokens.get('ingest', '')}"

    def add_reducer(self, reducer_id: str, function: Reducer, *, module: str, **options: Any) -> Registration:
        """Register a reducer and make it known to queries; options as :meth:`Registry.add` takes them."""
        registration = self.registry.add(reducer_id, function, module=module, **options)
        self.catalog.add_reducer(registration, module)
        return registration

    async def remove_reducer(self, reducer_id: str) -> None:
        """Take a reducer out, of queries too."""
        registration = self.registry.get(reducer_id)
        self.catalog.remove_reducer(reducer_id, registration.module)
        await self.registry.remove(reducer_id)

    def heard_by(self, registration: Registration) -> str:
        """A note on contexts in the archive that a reducer doesn't hear; empty where there are none."""
        others = sorted(set(self.pipeline.unrouted) - {registration.context})
        if not others or registration.events:
            return ""
        named = ", ".join(repr(name) for name in others[:5])
        return (
            f"it hears context {registration.context!r}, and has seen no event yet; events came for {named}"
        )

    async def start(self) -> None:
        """Open workspace, archive and store, take up what they hold, and begin to commit."""
        owner = self.workspace.open()
        self.security.tokens = self.workspace.tokens
        self.archive.open(writable=owner)
        # a follower keeps states of its own, in memory: the store belongs to the owner
        store = open_store(self.settings.store if owner else "memory", str(self.workspace.path))
        await store.open()
        self.store = self.pipeline.store = self.registry.store = store
        await self.learners.load(store)
        await self.registry.load()
        if self.settings.roster:
            await self.rosters.load(self.settings.roster)
        await self._learn()
        if owner:
            self.pipeline.routed = self.pipeline.synced = self.archive.last
            self.workspace.announce(self.url, self.port, self.ingest_url)
        else:
            self._follower = asyncio.get_running_loop().create_task(self._follow())
        self.pipeline.start()
        self.started = self.clock()

    async def _learn(self) -> None:
        """Bring the list of learners up to the archive's end."""
        senders: dict[bytes, Sender] = {}
        cursor = self.archive.cursor(self.learners.position)
        while records := cursor.read():
            for record in records:
                key = bytes(record.by)
                sender = senders.get(key) or senders.setdefault(key, Sender.decode(key))
                self.learners.seen(sender.identity, record.t)
            self.pipeline.routed = self.archive.last = max(self.archive.last, records[-1].n)
            await asyncio.sleep(0)
        cursor.close()
        self.pipeline.routed = max(self.pipeline.routed, self.learners.position)

    async def _follow(self) -> None:
        """Route what the owner archives, as it grows."""
        cursor = self.archive.cursor(self.pipeline.routed)
        senders: dict[bytes, Sender] = {}
        with contextlib.closing(cursor):
            while True:
                records = cursor.read()
                if not records:
                    await asyncio.sleep(_FOLLOW_EVERY)
                    continue
                for record in records:
                    key = bytes(record.by)
                    sender = senders.get(key) or senders.setdefault(key, Sender.decode(key))
                    body = msgspec.json.decode(record.body)
                    context = sender.context(body)
                    event = sender.event(body, record.t)
                    self.archive.last = record.n
                    self.pipeline.accepted += 1
                    await self.pipeline.route(record.n, context, sender, event, record.t)
                await asyncio.sleep(0)

    async def stop(self) -> None:
        """Commit what is left, close everything, let go of the workspace."""
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follower
        self.live.close()
        if self.started is not None:
            await self.registry.stop()
            await self.pipeline.stop()
        self.archive.close()
        await self.store.close()
        self.workspace.close()
        self.started = None
