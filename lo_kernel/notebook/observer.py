"""``lo``: the Learning Observer as a notebook sees it.

Everything here may be called from a cell, from a thread that a cell started, or from the app's own loop;
what has to happen on the app's loop gets there through the bridge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import LOError, ReducerError
from lo_kernel.notebook.errors_view import Errors
from lo_kernel.notebook.events import Events
from lo_kernel.notebook.files import FileVerbs
from lo_kernel.notebook.jobs import Job
from lo_kernel.notebook.persons import PersonVerbs

if TYPE_CHECKING:
    from pathlib import Path

    from lo_kernel.app.dashboards import Dashboard
    from lo_kernel.engine.errorlog import ErrorEntry
    from lo_kernel.engine.keys import Scope
    from lo_kernel.engine.reducers import Reducer
    from lo_kernel.engine.registry import Registration
    from lo_kernel.modules.listing import Modules
    from lo_kernel.notebook.audit_view import AuditView
    from lo_kernel.notebook.cards import AppFacts
    from lo_kernel.notebook.dashboards_view import DashboardList, DashboardPage
    from lo_kernel.notebook.export.report import ExportReport
    from lo_kernel.notebook.job_display import JobDisplays
    from lo_kernel.notebook.live_display import LiveDisplay, LiveDisplays
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


class KeyValueStore:
    """The store: ``await lo.kvs[key]``, ``await lo.kvs.keys()``, ``await lo.kvs.set(key, value)``.

    A state's key is ``Internal,<module>.<function>,STUDENT:<safe id>``; keys that a reducer owns are
    read-only. A key that holds nothing gives ``None``.
    """

    def __init__(self, runtime: Runtime, bridge: LoopBridge) -> None:
        self._runtime = runtime
        self._bridge = bridge

    def __getitem__(self, key: str) -> Awaitable[Any]:
        if not isinstance(key, str):
            raise LOError(f"a key is a text such as 'Internal,my_module.count,STUDENT:tc-u0', got {key!r}")
        return self._bridge.run(self._get(key))

    async def _get(self, key: str) -> Any:
        from lo_kernel.engine.keys import parse_key

        parsed = parse_key(key)
        student = parsed.student if parsed is not None else None
        self._runtime.reads.record("store", key.split(",STUDENT:")[0], [student] if student else [])
        return (await self._runtime.registry.read([key]))[0]

    def keys(self, prefix: str = "") -> Awaitable[list[str]]:
        """All keys that start with ``prefix``, sorted."""
        return self._bridge.run(self._runtime.registry.keys(prefix))

    def set(self, key: str, value: Any) -> Awaitable[None]:
        """Store a JSON value under a key of one's own."""
        return self._bridge.run(self._runtime.registry.set(key, value))

    def __repr__(self) -> str:
        return f"<store {self._runtime.store.name}: await lo.kvs[key], await lo.kvs.keys(prefix)>"


class Reducers(Mapping[str, "Registration"]):
    """The reducers by id; ``lo.reducers[id]``, ``await lo.reducers.remove(id)``."""

    def __init__(self, runtime: Runtime, bridge: LoopBridge) -> None:
        self._runtime = runtime
        self._bridge = bridge

    def __getitem__(self, reducer_id: str) -> Registration:
        return self._runtime.registry.get(reducer_id)

    def __iter__(self) -> Iterator[str]:
        return iter([registration.id for registration in self._runtime.registry])

    def __len__(self) -> int:
        return len(self._runtime.registry)

    def __contains__(self, reducer_id: object) -> bool:
        return reducer_id in self._runtime.registry

    def remove(self, reducer_id: str) -> Job[None]:
        """Take a reducer out, its states with it; the events stay."""
        self._runtime.registry.get(reducer_id)
        work = self._runtime.remove_reducer(reducer_id)
        return Job(f"removing {reducer_id!r}", work, self._bridge, on_error=self._runtime.errors.add)

    def __repr__(self) -> str:
        lines = [repr(registration)[1:-1] for registration in self._runtime.registry]
        for row in self._runtime.registry.paused.values():
            if row.id not in self._runtime.registry:
                lines.append(repr(self._runtime.registry.get(row.id))[1:-1])
        return "\n".join(lines) or "no reducers yet: declare one with @lo.reducer(...)"


class LearningObserver(FileVerbs, PersonVerbs):
    """A running Learning Observer; in a notebook it is ``lo``. Show it for an overview."""

    def __init__(self, runtime: Runtime, bridge: LoopBridge, kernel: Any = None) -> None:
        self._runtime = runtime
        self._bridge = bridge
        self._kernel = kernel
        self.kvs = KeyValueStore(runtime, bridge)
        self.reducers = Reducers(runtime, bridge)
        self.events = Events(runtime, bridge)
        self.errors = Errors(runtime.errors)
        self._displays: LiveDisplays | None = None
        self._jobs: JobDisplays | None = None
        self._unsaid: list[str] = []
        self._exported: Path | None = None
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

    def _needs_app(self) -> None:
        if self._runtime.started is None:
            raise LOError(
                f"this works with the app 'embedded'; this kernel runs {self._runtime.settings.app!r}. "
                "What went wrong at its start, if anything did, is in lo.errors"
            )

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
            try:
                await registration.ready()
            except asyncio.CancelledError:  # the job was: the old reducer stays in place
                registration.cancel()
                raise
            if job is not None:
                job.progress(registration.done, registration.total, runtime.heard_by(registration))
            return registration

        job = self._job(f"reducer {id!r}", work(), about=f"reducer {id!r}")
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
                job.progress(state.events, 0, f"events from {state.students} learners{here}")

        work = simulate_class(
            self._runtime.ingest_url,
            students=students,
            seconds=seconds,
            seed=seed,
            source=source,
            speed=speed,
            on_progress=progress,
        )
        job = self._job("simulated class", work)
        return job

    # -- queries -------------------------------------------------------------------------------

    def query(self, query: Any, **parameters: Any) -> Job[Any]:
        """The answer of a query as rows: ``await lo.query("event_count")``.

        ``query`` is the id of a reducer, the name of a query, or a DAG made with ``lo.q``; ``parameters``
        are what it asks for. The rows print as a table, and ``.to_frame()`` makes a frame of them.
        """
        runtime = self._runtime
        runtime.executor.prepare_one(query, parameters)
        name = query if isinstance(query, str) else "a query"
        job: Job[Any] | None = None

        def waits_for(registration: Any) -> None:
            if job is not None:
                job.progress(
                    registration.done, registration.total, f"waits for the reducer {registration.id!r}"
                )

        rows = runtime.executor.rows(query, parameters, names=self._names, on_wait=waits_for)
        job = self._job(f"query {name}", rows)
        return job

    def explain(self, query: Any) -> Any:
        """A query as a picture: its nodes, what each needs, and how long each took in its last run.

        JupyterLab shows it drawn, a console as text.
        """
        return self._runtime.executor.explain(query)

    @property
    def q(self) -> Any:
        """Builders for queries (:class:`lo_kernel.query.language.Q`)."""
        from lo_kernel.query.language import q

        return q

    @property
    def queries(self) -> Any:
        """The queries there are, with their parameters."""
        return self._runtime.catalog

    def publish(self, name: str) -> Callable[[Any], Any]:
        """Make a function usable in queries: ``@lo.publish("my_module.longest")``."""
        return self._runtime.functions.publish(name)

    def watch(self, query: Any, **parameters: Any) -> AsyncIterator[Any]:
        """What changes in a query's answer: ``async for rows in lo.watch("event_count"): ...``.

        All rows come first, then, each time something changes, the rows that changed.
        """
        self._runtime.executor.prepare_one(query, parameters)
        return self._bridge.iterate(lambda: self._runtime.live.watch(query, parameters))

    @property
    def modules(self) -> Modules:
        """The installed LO modules: version, reducers, queries and dashboards of each, and what went wrong.

        They were loaded when the app started. One that could not be is listed with its error, and what of
        the others isn't served here is named.
        """
        return self._runtime.modules

    # -- dashboards ----------------------------------------------------------------------------

    def dashboard(
        self,
        what: Any,
        chart: Any = None,
        *,
        title: str | None = None,
        field: str | None = None,
        course: str | None = None,
        id: str | None = None,
        embed: str | None = None,
        **parameters: Any,
    ) -> LiveDisplay | DashboardPage:
        """A live chart of a reducer or a query, and its page: ``lo.dashboard("event_count")``.

        ``what`` is a reducer or its id, the name of a query, a DAG, or a list of them (or of pairs ``(query,
        chart)``), whose charts lie in a grid. ``chart`` is left out (the answer's shape decides), ``"bar"``,
        ``"line"``, ``"heatmap"``, ``"table"``, ``"number"``, ``"text"``, ``"histogram"``, ``"categories"``, a
        Vega-Lite specification or an Altair chart, whose data the rows become. ``field`` is the column to
        show, ``course`` whose learners; other arguments go to the query.

        The chart stands under the cell and changes in place while events come in, until the cell runs again,
        ``.stop()``, or an hour without a change. Its page is ``/dashboards/<id>``; ``embed="page"`` shows
        that in the notebook instead, where it survives a reload of the browser.
        """
        from lo_kernel.app.dashboards import Dashboard

        named = [self._named(each) for each in what] if isinstance(what, list) else self._named(what)
        board = Dashboard.of(
            named, chart, title=title, field=field, course=course, id=id, parameters=parameters
        )
        return self._shown(self._bridge.call(lambda: self._runtime.dashboards.add(board)), embed)

    def overview(
        self, course: str | None = None, *, context: str | None = None, embed: str | None = None
    ) -> LiveDisplay | DashboardPage:
        """A class overview, with nothing to be written: activity, time on task, idle now, amount written.

        Its reducers (:mod:`lo_kernel.overview`) are registered and go through the past first. ``course`` is
        whose learners are shown, ``context`` the ``source`` of the events that count.
        """
        from lo_kernel.app.overview import add_overview

        def add() -> Dashboard:
            return add_overview(self._runtime, context=context, course=course)[0]

        return self._shown(self._bridge.call(add), embed)

    @property
    def dashboards(self) -> DashboardList:
        """The dashboards there are, with links to their pages."""
        from lo_kernel.notebook.dashboards_view import DashboardList

        return DashboardList(self._runtime)

    def _shown(self, board: Dashboard, embed: str | None) -> LiveDisplay | DashboardPage:
        from lo_kernel.notebook.dashboards_view import DashboardPage, live_chart

        if embed not in (None, "page"):
            raise LOError(f"embed: expected 'page' or nothing, got {embed!r}")
        if embed == "page":
            return DashboardPage(self._runtime, board)
        return live_chart(self._runtime, self._live_displays(), board)

    def _named(self, what: Any) -> Any:
        """A reducer's function by its id; what a query goes by stays as it is."""
        if isinstance(what, tuple) and len(what) == 2:
            return self._named(what[0]), what[1]
        return self._id_of(what) if callable(what) else what

    def _live_displays(self) -> LiveDisplays:
        from lo_kernel.notebook.live_display import KernelScreen, LiveDisplays

        if self._displays is None:
            if self._kernel is None:
                raise LOError("a chart needs a notebook or a console around it")
            self._displays = LiveDisplays(
                KernelScreen(self._kernel),
                self._bridge,
                lambda chart, error: self._runtime._note(f"chart '{chart}'", error),
            )
        return self._displays

    def _close(self) -> None:
        """The kernel ends: charts leave a true picture in the notebook. Twice is harmless."""
        if self._displays is not None:
            self._displays.close()

    def _id_of(self, function: Any) -> str:
        for registration in self._runtime.registry:
            if registration.function is function:
                return registration.id
        raise LOError(
            f"{getattr(function, '__name__', function)!r} is not registered: add it with lo.add_reducer(id, "
            "function), or write @lo.reducer(...) above it"
        )

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

    # -- into production -----------------------------------------------------------------------

    def export(
        self,
        name: str,
        path: str | Path = ".",
        *,
        reducers: Sequence[Any] | None = None,
        queries: Sequence[Any] | Mapping[str, Any] | None = None,
        dashboards: Sequence[Any] | None = None,
        sample: int = 150,
        proof: bool | str = True,
        overwrite: bool = False,
    ) -> Job[ExportReport]:
        """Make an installable package of what this notebook executed: ``lo.export("my_module")``.

        ``reducers`` are functions or ids (default: those of this notebook that are registered), ``queries``
        names, DAGs or ``{name: DAG}``, ``dashboards`` ids (default: those that show exported reducers only).
        They come with all that they reach: helpers, constants, classes, imports. What can't be shipped raises
        :class:`~lo_kernel.errors.ExportError` at once, with cell, line and a way out.

        The package goes to ``path/name``; again, it is updated, and the result shows what changed. It is
        proved before it is put there: built, installed into an environment of its own, tested there on a
        recorded ``sample`` of so many events (with other ids). ``proof="index"`` proves it in an environment
        that shares nothing and installs from pip's index; ``False`` leaves the proof out. ``overwrite`` gives
        up changes that were made to the package by hand. Gives a :class:`Job`.
        """
        from lo_kernel.notebook.export.session import SessionExport

        self._needs_app()
        shell = getattr(self._kernel, "shell", None)
        if shell is None:
            raise LOError("an export needs a notebook or a console around it; for a file: lo-kernel export")
        work = SessionExport(
            self._runtime,
            shell,
            name,
            path,
            reducers=reducers,
            queries=queries,
            dashboards=dashboards,
            sample=sample,
            proof=proof,
            overwrite=overwrite,
        )
        self._exported = work.prepared.place.folder
        job: Job[ExportReport] | None = None

        def progress(done: int, total: int, note: str) -> None:
            if job is not None:
                job.progress(done, total, note)

        job = self._job(f"export {name}", work.go(progress))
        return job

    def inject(
        self,
        url: str,
        module: str | Path | None = None,
        *,
        token: str = "",
        migrate: str = "restream",
        rollback: bool = False,
    ) -> Job[dict[str, Any]]:
        """Put an exported module into a running server: ``lo.inject("https://host:9999", token=...)``.

        ``module`` is the folder of an export, by default the last one of this notebook. The server takes it
        where it was started with ``--allow-inject``, by the token in its workspace (``injected/token``), over
        TLS or on this machine. ``migrate`` says what becomes of its reducers' states there: ``"restream"``,
        ``"drop"``, ``"keep"``, or the name of a function in the module's reducers. ``rollback=True`` takes
        the newest version out again. Gives a :class:`Job`; its result says what is in now.
        """
        from pathlib import Path

        from lo_kernel.app.packing import pack
        from lo_kernel.app.sending import check_target, send
        from lo_kernel.errors import InjectError

        check_target(url, token)
        what = self._exported if module is None else module
        if what is None:
            raise InjectError("which module? Export one first, with lo.export(...), or name its folder")
        if not rollback:
            pack(Path(what))
        return self._job(
            f"injecting {Path(what).name}", send(url, token, what, migrate=migrate, rollback=rollback)
        )

    # -- display -------------------------------------------------------------------------------

    def _job(self, name: str, work: Coroutine[Any, Any, T], *, about: str = "") -> Job[T]:
        def show(job: Job[T]) -> None:
            if self._kernel is None:
                print(repr(job))
            else:
                self._job_displays().show(job, about)

        return Job(name, work, self._bridge, on_error=self._failed, on_show=show)

    def _failed(self, name: str, error: BaseException) -> None:
        if not self._runtime.errors.of(name):  # a reducer has said so itself
            self._runtime.errors.add(name, error)

    def _job_displays(self) -> JobDisplays:
        from lo_kernel.notebook.job_display import JobDisplays
        from lo_kernel.notebook.live_display import KernelScreen

        if self._jobs is None:
            self._jobs = JobDisplays(KernelScreen(self._kernel), self._bridge, self._runtime.errors)
        return self._jobs

    def _went_wrong(self, entry: ErrorEntry) -> None:
        # events that come before the first reducer is written are no news
        if entry.kind != "NoReducer" or len(self._runtime.registry):
            self._unsaid.append(str(entry))

    def _take_notices(self) -> list[str]:
        """What went wrong since the last call, a line each: the kernel shows it after a cell."""
        notices, self._unsaid = self._unsaid, []
        return notices[:_NOTICES] + (
            [f"and {len(notices) - _NOTICES} more"] if len(notices) > _NOTICES else []
        )

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
                behind=max(0, runtime.archive.last - row.position),
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
            owner="this kernel" if runtime.workspace.owner else "another process, followed here",
            events=runtime.archive.last,
            learners=len(runtime.learners),
            connections=len(runtime.sources),
            reducers=reducers,
            errors=[
                str(entry) for entry in runtime.errors if entry.kind != "NoReducer" or len(runtime.registry)
            ],
        )

    def __repr__(self) -> str:
        from lo_kernel.notebook.cards import observer_text

        return observer_text(self._facts())

    def _repr_html_(self) -> str:
        from lo_kernel.notebook.cards import observer_html

        return observer_html(self._facts())
