"""The runtime: one of each part, made in the order in which an event passes them.

It is given to whoever needs a part; nothing in the package is global. ``start`` and ``stop`` run on the
app's loop. The parts that answer questions are made, and their modules imported, when the first one is asked
for: a kernel that starts need not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lo_kernel.app.browser_address import Proxies
from lo_kernel.app.meter import Meter
from lo_kernel.app.security import Security
from lo_kernel.engine.archive import Archive
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.follow import Follower, copy_plain, take_late_stock, take_stock
from lo_kernel.engine.learners import Learners
from lo_kernel.engine.made_up import MadeUpNames
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.reducers import Reducer
from lo_kernel.engine.registry import Registration, Registry
from lo_kernel.engine.replays import Replays
from lo_kernel.engine.store import Store, open_store
from lo_kernel.engine.streams import Streams
from lo_kernel.errors import LOError, NotOwnerError, SettingsError, StoreAwayError
from lo_kernel.modules.listing import Modules
from lo_kernel.read_log import NoReadLog, ReadLog
from lo_kernel.settings import Settings, http_address
from lo_kernel.workspace import Workspace

if TYPE_CHECKING:
    from lo_kernel.app.dashboards import Dashboards
    from lo_kernel.query.catalog import Catalog
    from lo_kernel.query.executor import Executor
    from lo_kernel.query.functions import Functions
    from lo_kernel.query.live import LiveQueries
    from lo_kernel.query.rosters import Rosters

__all__ = ["Runtime"]

_GUARD_EVERY = 0.5  # seconds between two looks at the workspace's lock, where nothing comes in
_LEAVE_WITHIN = 0.3  # seconds that sources may take to go
_LOOK_EVERY = 0.2, 2.0  # seconds between two looks for a store that is away: at first, and at most


class Leaving(Protocol):
    """A connection that events come in by."""

    async def leave(self) -> None:
        """End it."""


@dataclass(frozen=True)
class _Asking:
    """What questions need; all of it, or nothing."""

    functions: Functions
    rosters: Rosters
    catalog: Catalog
    executor: Executor
    live: LiveQueries
    dashboards: Dashboards


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
        self.made_up = MadeUpNames(self.workspace.path)
        self.security = Security(settings, self.workspace)
        self.proxies = Proxies()  # ways to the browser
        self.host, self.port = settings.host, settings.port
        self.started: float | None = None
        self.sources: set[Leaving] = set()  # connections that events come in by
        self.modules = Modules()
        self.adapters: list[Callable[[Any], Any]] = []  # of modules: change an event as it comes in
        self.store = open_store("memory", "")
        self.pipeline = Pipeline(self.archive, self.store, self.errors, self.learners)
        self.registry = Registry(self.pipeline, self.store, self.errors)
        self._asking: _Asking | None = None
        self._making = threading.Lock()
        self.meter = Meter(lambda: self.pipeline.accepted)
        self.registry.on_restored.append(self._restored)
        self._follower: Follower | None = None
        self._owning = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None  # for a store that did not answer at the start
        self._guarding: asyncio.Task[None] | None = None
        self._losing: asyncio.Task[None] | None = None
        self.erasing = asyncio.Lock()  # one learner after another
        self.replays = Replays()  # that go on now

    @property
    def functions(self) -> Functions:
        """What queries may call by name."""
        return self._questions.functions

    @property
    def rosters(self) -> Rosters:
        """Who is in which course."""
        return self._questions.rosters

    @property
    def catalog(self) -> Catalog:
        """The named queries."""
        return self._questions.catalog

    @property
    def executor(self) -> Executor:
        """What runs a query once."""
        return self._questions.executor

    @property
    def live(self) -> LiveQueries:
        """Queries that stay up to date."""
        return self._questions.live

    @property
    def dashboards(self) -> Dashboards:
        """What is shown of the answers, and how."""
        return self._questions.dashboards

    @property
    def _questions(self) -> _Asking:
        if self._asking is None:
            with self._making:  # a cell and the app may be the first at the same time, on two threads
                if self._asking is None:
                    self._asking = self._make_asking()
        return self._asking

    def _make_asking(self) -> _Asking:
        from lo_kernel.app.dashboards import Dashboards
        from lo_kernel.query.catalog import Catalog
        from lo_kernel.query.executor import Executor
        from lo_kernel.query.functions import Functions
        from lo_kernel.query.live import LiveQueries
        from lo_kernel.query.rosters import Rosters

        functions = Functions()
        rosters = Rosters(self.learners, functions, self.made_up, self.errors)
        catalog = Catalog()
        for reducer_id in self.registry.paused:  # their states answer, marked as behind
            paused = self.registry.get(reducer_id)
            catalog.add_reducer(paused, paused.module)
        executor = Executor(self.registry, self.registry, functions, catalog, self.reads)
        live = LiveQueries(executor, self.registry, self._note)
        self.registry.on_live.append(live.reducers_changed)
        self.registry.on_removed.append(live.reducers_changed)
        rosters.watched = lambda: len(live) > 0
        return _Asking(functions, rosters, catalog, executor, live, Dashboards(executor, catalog, functions))

    def _note(self, where: str, error: BaseException) -> None:
        self.errors.add(where, error)

    def bind(self, host: str, port: int) -> None:
        """Say where the app answers; before :meth:`start`."""
        self.host, self.port = host, port
        self.security.bind(host, port)

    @property
    def url(self) -> str:
        """The app's own address, without a token."""
        return http_address(self.host, self.port)

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
        before = self.registry.paused.get(reducer_id)
        old = next((each.code for each in self.registry if each.id == reducer_id), "")
        registration = self.registry.add(reducer_id, function, module=module, **options)
        if before is not None and before.module != module:
            self.catalog.remove_reducer(reducer_id, before.module)
        self.catalog.add_reducer(registration, module)
        replaces = {"replaces": old} if old and old != registration.code else {}
        self.reads.act("reducer", reducer_id, code=registration.code, module=module, **replaces)
        return registration

    def _restored(self, registration: Registration) -> None:
        """What was to replace this one came to nothing."""
        self.catalog.add_reducer(registration, registration.module)

    async def remove_reducer(self, reducer_id: str) -> None:
        """Take a reducer out, of queries too."""
        registration = self.registry.get(reducer_id)
        self.catalog.remove_reducer(reducer_id, registration.module)
        await self.registry.remove(reducer_id)
        self.reads.act("reducer removed", reducer_id)

    async def set_value(self, key: str, value: Any) -> None:
        """Store a value under a key of one's own, on record; not where it would be lost with this process."""
        if self.started is not None and not self.takes_events:
            raise NotOwnerError(
                f"this process follows the workspace, and would lose {key!r} with its end: set it in the one "
                "that owns the workspace, or take it over with await lo.own() once that one has ended"
            )
        await self.registry.set(key, value)
        self.reads.act("value set", texts={"key": key})

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
        try:
            await self._start()
        except BaseException:
            await self.stop()  # the workspace is free again for another try
            raise

    async def _start(self) -> None:
        owner = self.workspace.open()
        self.security.tokens = self.workspace.tokens
        self.archive.open(writable=owner)
        # a follower keeps states of its own, in memory: the store belongs to the owner
        store = open_store(self.settings.store if owner else "memory", str(self.workspace.path), self.errors)
        self.store = self.pipeline.store = self.registry.store = store
        try:
            await store.open()
        except StoreAwayError as error:
            self._begin_without(error)
        else:
            self.archive.at_least(max((row.position for row in await store.rows()), default=0))
            await take_stock(self.pipeline, store)
            await self.registry.load()
        if self.settings.roster:
            try:
                await self.rosters.load(self.settings.roster)
            except SettingsError as error:  # a class without its names is better than no class
                said = str(error).removeprefix("roster: ")
                self.errors.add("roster", f"{said}. Until then everyone is in one course", kind="NotRead")
        if owner:
            self._announce()
        else:
            self._follow()
        self.pipeline.start()
        self.meter.start()
        self.started = self.clock()
        # modules and code stay: a full collection that looks at them too holds the loop for 15 ms and more
        gc.freeze()

    def _announce(self) -> None:
        """Tell others where events go in, and see from now on that they do."""
        self.workspace.announce(self.url, self.port, self.ingest_url)
        self.archive.owned = self._owned
        self._guarding = asyncio.get_running_loop().create_task(self._guard())

    def _follow(self) -> None:
        self._follower = Follower(self.archive, self.pipeline, self.errors, self.workspace.is_owned)
        self._follower.start()

    async def _guard(self) -> None:
        while True:
            await asyncio.sleep(_GUARD_EVERY)
            if not self._owned():
                return
            try:
                self.archive.put_back()
            except LOError as error:
                self.errors.add("archive", error)

    def _owned(self) -> bool:
        """Whether this process owns the workspace still; it begins to follow where it doesn't."""
        before = self.workspace.locked_again
        if not self.workspace.still_owned():
            if self._losing is None and self._follower is None:
                self._losing = asyncio.get_running_loop().create_task(self._lose())
            return False
        if self.workspace.locked_again != before:
            self.errors.add(
                "workspace lock",
                f"the file owner.lock of {self.workspace.path} was removed while this process owns it. It is "
                "made again: nobody had taken the workspace. While a process runs, leave it there",
                kind="Removed",
            )
        return True

    async def _lose(self) -> None:
        """Follow whoever has taken the workspace: the file of its lock was removed."""
        owner = self.workspace.find_owner()
        who = f"process {owner.pid}, which answers at {owner.url}," if owner else "another process"
        self.errors.add(
            "workspace lock",
            f"the file owner.lock of {self.workspace.path} was removed, and {who} has taken the workspace: "
            "this process follows it from now on. What came in here last and was not acknowledged is not in "
            "the archive: clients that ask for acknowledgements send it again, others don't",
            kind="Taken",
        )
        try:
            async with self._owning:
                if self._follower is None:
                    await self._leave()
        finally:
            self._losing = None

    async def _leave(self) -> None:
        self.workspace.disown()
        await self._look_no_more()
        leaving = [asyncio.ensure_future(source.leave()) for source in list(self.sources)]
        if leaving:
            await asyncio.wait(leaving, timeout=_LEAVE_WITHIN)
        try:
            async with self.pipeline.committing:
                await self._hand_over()
        except (OSError, LOError) as error:
            self.errors.add("workspace lock", error)
        self.pipeline.give_room()
        self._follow()

    async def _hand_over(self) -> None:
        """Leave archive and store to another process, and make states of its own from the archive."""
        store = open_store("memory", "")
        await self.archive.give_up()
        await self.store.close()
        self.pipeline.streams = Streams()
        self.archive.open(writable=False)
        await take_stock(self.pipeline, store)
        await self.registry.move(store)
        self.store = self.pipeline.store = store

    def _begin_without(self, error: StoreAwayError) -> None:
        """Take events in, and look for the store until it answers: registrations wait for what it has."""
        self.errors.add("store", error)
        self.pipeline.store_up = False
        self.pipeline.routed = self.pipeline.synced = self.archive.last
        self.registry.loaded.clear()
        self._looking = asyncio.get_running_loop().create_task(self._look_for_store(self.archive.last))

    async def _look_no_more(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
            self._looking = None

    async def _look_for_store(self, began: int) -> None:
        delay = _LOOK_EVERY[0]
        while True:
            await asyncio.sleep(delay)
            delay = min(_LOOK_EVERY[1], delay * 1.5)
            # nobody else asks it before it is known what it has
            store = open_store(self.settings.store, str(self.workspace.path), self.errors)
            try:
                await store.open()
                async with self.pipeline.committing:
                    before = await take_late_stock(self.pipeline, store, began)
                    self.registry.store = store
                    await self.registry.load(began)
                    self.learners.join(before)
                    self.store = self.pipeline.store = store
                break
            except LOError as error:
                self.errors.add("store", error)
                await store.close()
            except BaseException:
                await store.close()
                raise
        self._make_paused_known()
        self.pipeline.wake()

    def _make_paused_known(self) -> None:
        """Have queries find the reducers that the store knows of, and that nobody registered here yet."""
        if self._asking is not None:
            for reducer_id in self.registry.paused:
                if reducer_id not in self.registry:
                    paused = self.registry.get(reducer_id)
                    self._asking.catalog.add_reducer(paused, paused.module)

    @property
    def takes_events(self) -> bool:
        """Whether events come in here: this process owns the workspace, and is done taking it over."""
        return self.workspace.owner and self._follower is None

    async def caught_up(self) -> None:
        """Wait until this process has seen all that its workspace's owner has taken in by now."""
        if self._follower is not None:
            await self._follower.caught_up()

    async def own(self) -> bool:
        """Take over the workspace that this process follows, once its owner has ended.

        Events come in here from then on; reducers go on with what they have. Gives whether this process
        owns it now; raises :class:`NotOwnerError` where another one does. Where store or archive can't be
        taken over, it follows on, and can try again.
        """
        async with self._owning:
            follower = self._follower
            if follower is None:
                return self.workspace.owner
            if not self.workspace.own():
                owner = self.workspace.find_owner()
                who = f"process {owner.pid}, which answers at {owner.url}" if owner else "another process"
                raise NotOwnerError(
                    f"the workspace {self.workspace.path} belongs to {who}: end that one first"
                )
            store = open_store(self.settings.store, str(self.workspace.path), self.errors)
            try:
                await self._take_over(follower, store)
            except BaseException:
                await self._follow_on(follower, store)
                raise
            self._follower = None
            self._make_paused_known()
            self._announce()
            self.errors.forget("workspace")
            self.pipeline.wake()
            return True

    async def _take_over(self, follower: Follower, store: Store) -> None:
        await store.open()
        position = max((row.position for row in await store.rows()), default=0)
        await follower.finish()
        async with self.pipeline.committing:
            self.archive.open(writable=True)
            self.archive.at_least(position)
            await copy_plain(self.store, store)
            await take_stock(self.pipeline, store)
            await self.registry.move(store)
            self.store = self.pipeline.store = store

    async def _follow_on(self, follower: Follower, store: Store) -> None:
        """Go back to following: what was to be taken over couldn't be."""
        await follower.stop()
        await store.close()
        self.archive.close()
        self.workspace.disown()
        with contextlib.suppress(OSError, LOError):
            self.archive.open(writable=False)
            await take_stock(self.pipeline, self.store)
        follower.start()

    async def stop(self) -> None:
        """Commit what is left, close everything, let go of the workspace."""
        gc.unfreeze()
        self.archive.owned = self.workspace.still_owned
        for task in (self._guarding, self._losing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._guarding = self._losing = None
        if self._follower is not None:
            await self._follower.stop()
            self._follower = None
        self.meter.stop()
        await self._look_no_more()
        if self._asking is not None:
            self._asking.dashboards.close()
            self._asking.live.close()
            self._asking.rosters.close()
        if self.started is not None:
            await self.registry.stop()
            await self.pipeline.stop()
        self.archive.close()
        await self.store.close()
        self.workspace.close()
        self.started = None
