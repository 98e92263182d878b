"""``lo``: the Learning Observer as a notebook sees it.

Everything here may be called from a cell, from a thread that a cell started, or from the app's own loop;
what has to happen on the app's loop gets there through the bridge.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import ReducerError
from lo_kernel.notebook.chart_verbs import ChartVerbs
from lo_kernel.notebook.errors_view import Errors
from lo_kernel.notebook.events import Events
from lo_kernel.notebook.files import FileVerbs
from lo_kernel.notebook.jobs import Job
from lo_kernel.notebook.persons import PersonVerbs
from lo_kernel.notebook.production import ProductionVerbs
from lo_kernel.notebook.query_verbs import QueryVerbs
from lo_kernel.notebook.reducers_view import Reducers
from lo_kernel.notebook.store_view import KeyValueStore

if TYPE_CHECKING:
    from lo_kernel.engine.errorlog import ErrorEntry
    from lo_kernel.engine.keys import Scope
    from lo_kernel.engine.reducers import Reducer
    from lo_kernel.engine.registry import Registration
    from lo_kernel.modules.listing import Modules
    from lo_kernel.notebook.audit_view import AuditView
    from lo_kernel.notebook.cards import AppFacts
    from lo_kernel.runtime import Runtime

__all__ = ["LearningObserver", "Secret"]

_NOTICES = 5  # of what went wrong, shown after one cell

F = TypeVar("F", bound="Reducer")
T = TypeVar("T")


class Secret(str):
    """A text with a token in it: shown masked, used and printed whole.

    >>> Secret("ws://127.0.0.1:9999/wsapi/in/?token=abcdef")
    'ws://127.0.0.1:9999/wsapi/in/?token=…' (print it to see it whole)
    """

    def __repr__(self) -> str:
        head, found, _ = self.partition("token=")
        return f"{(head + found if found else '') + '…'!r} (print it to see it whole)"


class LearningObserver(FileVerbs, PersonVerbs, QueryVerbs, ChartVerbs, ProductionVerbs):
    """A running Learning Observer; in a notebook it is ``lo``. Show it for an overview."""

    def __init__(self, runtime: Runtime, bridge: LoopBridge, kernel: Any = None) -> None:
        super().__init__(runtime, bridge, kernel)
        self.kvs = KeyValueStore(runtime, bridge, self._job)
        self.reducers = Reducers(runtime, bridge)
        self.events = Events(runtime, bridge)
        self.errors = Errors(runtime.errors, self._saw)
        self._seen: list[ErrorEntry] = []
        self._unsaid: list[ErrorEntry] = []
        runtime.errors.subscribe(self._went_wrong)

    # -- where it is ---------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the app answers, as in ``http://127.0.0.1:9999/``."""
        return self._runtime.url

    @property
    def port(self) -> int:
        """The app's port."""
        return self._runtime.port

    @property
    def token(self) -> Secret:
        """The notebook's own token, good for everything."""
        return Secret(self._runtime.security.tokens.get("notebook", ""))

    @property
    def ingest_url(self) -> Secret:
        """The websocket address, token included, that a source of events needs."""
        return Secret(self._runtime.ingest_url)

    def own(self) -> Job[bool]:
        """Take over the workspace that this kernel follows, once its owner has ended.

        Events come in here from then on; reducers go on with what they have.
        """
        return self._job("taking the workspace over", self._runtime.own())

    # -- reducers ------------------------------------------------------------------------------

    def reducer(
        self,
        id: str | None = None,
        *,
        context: str | None = None,
        scope: Scope | None = None,
        null_state: Any = None,
        default: Any = None,
        module: str = "jupyter-helper",
        migrate: Any = "restream",
    ) -> Callable[[F], F]:
        """Declare a reducer and register it, in one line above the function.

        ``id`` is its name in queries, by default the function's own. Running the cell again replaces it.
        The other arguments are those of :func:`lo_kernel.jupyter_helpers.add_reducer_to_lo`.
        """
        if callable(id):
            raise ReducerError("the decorator needs parentheses: write @lo.reducer() above the function")

        def declare(function: F) -> F:
            from lo_kernel.engine.reducers import kvs_pipeline

            declared = function
            if not hasattr(function, "__lo_declaration__"):
                declared = kvs_pipeline(null_state=null_state, scope=scope)(function)
            self.add_reducer(
                id or function.__name__,
                declared,
                module=module,
                scope=scope,
                context=context,
                default=default,
                migrate=migrate,
            )
            return declared

        return declare

    def add_reducer(
        self,
        id: str,
        reducer: Reducer,
        *,
        module: str = "jupyter-helper",
        scope: Scope | None = None,
        context: str | None = None,
        default: Any = None,
        migrate: Any = "restream",
    ) -> Job[Registration]:
        """Register a reducer; see :func:`lo_kernel.jupyter_helpers.add_reducer_to_lo`."""
        runtime = self._runtime
        self._needs_app()
        runtime.registry.check(id, reducer, context=context, scope=scope, default=default, migrate=migrate)
        job: Job[Registration] | None = None

        def progress(done: int, total: int) -> None:
            if job is not None:
                job.progress(done, total)

        def register() -> Registration:
            return runtime.add_reducer(
                id,
                reducer,
                module=module,
                scope=scope,
                context=context,
                default=default,
                migrate=migrate,
                on_progress=progress,
            )

        # at once, so that the lines below in the same cell know it
        registration = self._bridge.call(register)

        async def work() -> Registration:
            there = await registration.ready(lambda: job.replace() if job is not None else None)
            if job is not None and not job.replaced:
                job.progress(registration.done, registration.total, runtime.heard_by(registration))
            return there

        # cancelled, also before it could begin, it leaves the old reducer in place
        job = self._job(f"reducer {id!r}", work(), about=f"reducer {id!r}", on_cancel=registration.cancel)
        return job

    # -- events --------------------------------------------------------------------------------

    def simulate(
        self,
        students: int = 30,
        seconds: float | None = None,
        seed: int | None = None,
        *,
        source: str = "org.mitros.writing_analytics",
        speed: float = 1.0,
    ) -> Job[Any]:
        """Let a class type: ``students`` learners, for ``seconds`` (``None``: until it is cancelled).

        They write text with pauses, bursts and corrections, as ``google_docs_save`` events over the real
        websocket. The same ``seed`` gives the same class. Gives a :class:`Job`.
        """
        from lo_kernel.app.simulate import simulate_class

        self._needs_app()
        job: Job[Any] | None = None

        def progress(state: Any) -> None:
            if job is not None:
                here = f", {state.connected} connected" if state.finished < state.students else ""
                none = "" if state.events else "0 "  # a card leaves out a count of nothing
                learners = "1 learner" if state.students == 1 else f"{state.students:,} learners"
                job.progress(state.events, 0, f"{none}events from {learners}{here}")

        runtime = self._runtime
        work = simulate_class(
            lambda: runtime.ingest_url,  # another one where the workspace has a new owner
            students=students,
            seconds=seconds,
            seed=seed,
            source=source,
            speed=speed,
            on_progress=progress,
        )
        job = self._job("simulated class", work if runtime.takes_events else self._seen_here(work))
        return job

    async def _seen_here(self, work: Coroutine[Any, Any, T]) -> T:
        """What a work gives that has the owner take events in, once these have come here, too."""
        result = await work
        await self._runtime.caught_up()
        return result

    @property
    def modules(self) -> Modules:
        """The installed LO modules: version, reducers, queries and dashboards of each, and what went wrong.

        They were loaded when the app started. One that could not be is listed with its error, and what of
        the others isn't served here is named.
        """
        return self._runtime.modules

    # -- the record ----------------------------------------------------------------------------

    @property
    def audit(self) -> AuditView:
        """The record: what ran in this workspace, what came of it, and whose data it read.

        Show it for the newest entries; ``.tail()``, ``.cells()``, ``.of(student)``, ``.by(user)`` and
        ``.since(time)`` give rows, ``.verify()`` checks that nothing was changed.
        """
        from lo_kernel.notebook.audit_view import AuditView

        record = getattr(self._kernel, "record", None)
        return AuditView(record.reader if record is not None else None)

    # -- display -------------------------------------------------------------------------------

    def _went_wrong(self, entry: ErrorEntry) -> None:
        if self._is_news(entry):
            self._unsaid.append(entry)
        if len(self._unsaid) > self._runtime.errors.limit:  # nobody has run a cell for long
            held = {id(each) for each in self._runtime.errors}
            self._unsaid = [each for each in self._unsaid if id(each) in held]

    def _is_news(self, entry: ErrorEntry) -> bool:
        """Events that come before there is a first reducer are none; one that was cancelled isn't there."""
        registry = self._runtime.registry
        return entry.kind != "NoReducer" or any(each.status != "cancelled" for each in registry)

    def _saw(self, entries: list[ErrorEntry]) -> None:
        """The cell shows these itself: nothing below it has to say them again."""
        unsaid = {id(entry) for entry in self._unsaid}
        self._seen += [entry for entry in entries if id(entry) in unsaid]

    def _take_notices(self) -> list[str]:
        """What went wrong since the last call, a line each: the kernel shows it after a cell."""
        unsaid, self._unsaid = self._unsaid, []
        seen, self._seen = {id(entry) for entry in self._seen}, []
        for job in self._underway:
            job.unheard()  # a cell that waited for it has ended
        # not those of a reducer that was mended since, or that a cell got itself by awaiting a job
        held = {id(entry) for entry in self._runtime.errors}
        notices = [str(entry) for entry in unsaid if id(entry) in held and id(entry) not in seen]
        return notices[:_NOTICES] + (
            [f"and {len(notices) - _NOTICES} more"] if len(notices) > _NOTICES else []
        )

    def _problems(self) -> list[ErrorEntry]:
        """What is on the card, or behind it, of what went wrong."""
        return [entry for entry in self._runtime.errors if self._is_news(entry)]

    def _facts(self) -> AppFacts:
        from lo_kernel.notebook.cards import AppFacts, ReducerFacts

        runtime = self._runtime
        reducers = [
            ReducerFacts(
                id=each.id,
                context=each.context,
                status=each.status,
                events=each.events,
                errors=each.errors,
                last_error=each.last_error,
            )
            for each in runtime.registry
        ]
        reducers += [
            ReducerFacts(
                id=row.id,
                context=row.context,
                status="paused",
                events=0,
                paused=runtime.registry.get(row.id).paused_text,
            )
            for row in runtime.registry.paused.values()
            if row.id not in runtime.registry
        ]
        return AppFacts(
            url=self.url,
            link=f"{self.url}?token={runtime.security.ticket()}",
            loop=runtime.settings.loop,
            store=runtime.store.name,
            workspace=str(runtime.workspace.path),
            owner=self._whose(),
            events=self.events.count(),
            learners=len(runtime.learners),
            connections=len(runtime.sources) if runtime.workspace.owner else None,
            reducers=reducers,
            errors=[str(entry) for entry in self._problems()],
        )

    def _whose(self) -> str:
        workspace = self._runtime.workspace
        if workspace.owner:
            return "this kernel"
        if workspace.is_owned():
            return "another process, followed here"
        return "nobody: the process that owned it has ended, and await lo.own() takes it over"

    def __repr__(self) -> str:
        from lo_kernel.notebook.cards import FOLDED, observer_text

        self._saw(self._problems()[-FOLDED:])
        return observer_text(self._facts())

    def _repr_html_(self) -> str:
        from lo_kernel.notebook.cards import FOLDED, observer_html

        self._saw(self._problems()[-FOLDED:])
        return observer_html(self._facts())
