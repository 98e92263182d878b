"""Running a query: once, or kept up to date.

A :class:`Running` holds the steps of one query with its parameters. The :class:`Executor` checks queries,
starts them, and runs them once for whoever wants one answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lo_kernel.engine.keys import learners_of
from lo_kernel.errors import LOError, QueryError
from lo_kernel.query.behind import Behind, behind
from lo_kernel.query.catalog import Catalog
from lo_kernel.query.dag import HIDDEN_PARAMETERS, Dag, Node, Ref
from lo_kernel.query.explain import Explanation
from lo_kernel.query.functions import FunctionContext, Functions
from lo_kernel.query.joining import JoinStep
from lo_kernel.query.mapping import MapStep
from lo_kernel.query.naming import Naming
from lo_kernel.query.notes import notes_of, without_state
from lo_kernel.query.ports import JSON, ReadLog, Reducers, Registration, StateReader
from lo_kernel.query.relational import KeysStep, SelectStep, find_reducer
from lo_kernel.query.rows import Rows, flat_rows
from lo_kernel.query.steps import CallStep, Change, Dirt, Env, ParameterStep, Step, Timing, ValueStep
from lo_kernel.query.validate import check
from lo_kernel.query.values import check_json, identity, is_error, own, visible

__all__ = ["Executor", "Running"]

_STEPS: dict[str, type[Step]] = {
    "constant": ValueStep,
    "variable": ValueStep,
    "parameter": ParameterStep,
    "call": CallStep,
    "keys": KeysStep,
    "select": SelectStep,
    "join": JoinStep,
    "map": MapStep,
}

_REMEMBERED: Final = 64
"""Queries whose times are kept."""

_TOLD_SECONDS: Final = 0.25
"""How often whoever waits is told how far a reducer is."""

OnWait = Callable[[Registration], None]


class Running:
    """The steps of one query, each after those that it needs."""

    def __init__(self, dag: Dag, exports: Sequence[str], env: Env) -> None:
        self.dag = dag
        self.exports = {name: dag.export(name).returns for name in exports}
        self.env = env
        for name in dag.needed(self.exports.values()):
            node: Node = dag.nodes[name]
            env.steps[name] = _STEPS[node.dispatch](node, env)
        self.steps = list(env.steps.values())
        self.timings: dict[str, Timing] = {}
        """How long each step took the last time."""

    async def run(self) -> None:
        """Make every answer."""
        for step in self.steps:
            since = time.perf_counter()
            await step.run()
            self._timed(step, since)

    async def refresh(self, dirt: Dirt) -> dict[str, Change]:
        """Bring every answer up to date; which rows of each export changed."""
        changes: dict[str, Change] = {}
        for step in self.steps:
            since = time.perf_counter()
            changes[step.node.name] = change = await step.refresh(changes, dirt)
            if change:
                self._timed(step, since)
        return {name: changes[node] for name, node in self.exports.items()}

    def close(self) -> None:
        """Let go of the answers: steps know each other, and would wait for the garbage collector."""
        self.env.steps.clear()
        self.steps.clear()

    def _timed(self, step: Step, since: float) -> None:
        rows = len(step.value) if isinstance(step.value, list) else None
        self.timings[step.node.name] = Timing(time.perf_counter() - since, rows)

    def answer(self, export: str) -> JSON:
        """The answer of an export, with provenance; the query's own, not to be changed."""
        return self.env.steps[self.exports[export]].value

    def concerns(self, keys: frozenset[str]) -> frozenset[str]:
        """Those of ``keys`` that this query reads."""
        found: set[str] = set()
        for step in self.steps:
            if isinstance(step, SelectStep):
                found.update(key for key in keys if key in step.places)
            elif isinstance(step, KeysStep) and step.prefix:
                found.update(key for key in keys if key.startswith(step.prefix))
        return frozenset(found)

    def calls(self, names: frozenset[str]) -> frozenset[str]:
        """Those of the functions ``names`` that this query calls."""
        return frozenset(
            step.node.fields["function_name"] for step in self.steps if step.node.dispatch in ("call", "map")
        ).intersection(names)

    @property
    def parameters(self) -> set[str]:
        """The parameters that it has, by name."""
        return {each.name for export in self.exports for each in self.dag.exports[export].parameters}

    def registrations(self) -> list[Registration]:
        """The reducers whose states this query reads."""
        names = dict.fromkeys(
            step.node.fields["function"] for step in self.steps if isinstance(step, KeysStep)
        )
        return [find_reducer(self.env.reducers, name) for name in names]

    def behind(self) -> dict[str, Behind]:
        """Those of these reducers whose states aren't the newest, and why."""
        with contextlib.suppress(LOError):  # one that is gone: its step says so
            return behind(self.registrations())
        return {}

    def learners(self) -> set[str]:
        """Safe ids of everyone whose data this query has read."""
        found: set[str] = set()
        for step in self.steps:
            if isinstance(step, KeysStep):
                found |= step.students
            elif isinstance(step, SelectStep) and not self._made_by_keys(step.node):
                found |= learners_of(step.places)
            elif isinstance(step, CallStep):
                rows = step.value if isinstance(step.value, list) else [step.value]
                found.update(who for row in rows for name, who in identity(row) if name == "STUDENT")
        return found

    def _made_by_keys(self, node: Node) -> bool:
        """Whether the keys of a ``select`` are as a ``keys`` node made them, which knows whose they are."""
        came = node.fields["keys"]
        while isinstance(came, Ref) and self.dag.nodes[came.node].dispatch == "variable":
            came = self.dag.nodes[came.node].fields["value"]
        return isinstance(came, Ref) and self.dag.nodes[came.node].dispatch == "keys"

    @property
    def read_so_far(self) -> int:
        """How many learners those are whose keys were made; more than before where somebody is new."""
        return sum(len(step.students) for step in self.steps if isinstance(step, KeysStep))


class Executor:
    """Runs queries over the states.

    ``await executor.run("my_module", ["counter"], {"course_id": "1"})`` gives ``{"counter": [row, ...]}``.
    """

    def __init__(
        self,
        reader: StateReader,
        reducers: Reducers,
        functions: Functions,
        catalog: Catalog,
        reads: ReadLog | None = None,
    ) -> None:
        self.reader = reader
        self.reducers = reducers
        self.functions = functions
        self.catalog = catalog
        self.reads = reads
        self._timings: dict[tuple[bytes, tuple[str, ...]], Mapping[str, Timing]] = {}  # the newest last

    def prepare(
        self,
        query: Any,
        exports: Sequence[str] | None = None,
        parameters: Mapping[str, JSON] | None = None,
        *,
        names: Naming = False,
        strict: bool = False,
    ) -> Running:
        """Check a query and lay out its steps; nothing runs yet.

        ``query`` is the name of a DAG (or of one of its exports), a DAG or a node. Raises
        :class:`QueryError`, which names node and field; with ``strict``, for parameters that the query
        doesn't have too.
        """
        dag, chosen = self.catalog.resolve(query, exports, dags_first=not strict)
        if not chosen:
            there = ", ".join(dag.exports) or "none"
            name = f"query {dag.name!r}" if dag.name else "query"
            raise QueryError(f"{name}: expected an export to answer, got none; there are: {there}")
        given = {key: value for key, value in (parameters or {}).items() if key not in HIDDEN_PARAMETERS}
        check_json(given, "parameters")
        given = own(given)  # whoever asks may go on with theirs
        open_query = not isinstance(query, str)  # a named one of the field's runs as it does there
        check(dag, chosen, self.functions, self.reducers, given, strict=strict, paths=open_query)
        env = Env(self.reader, self.reducers, self.functions, given, FunctionContext(names))
        return Running(dag, chosen, env)

    def explain(self, query: Any, exports: Sequence[str] | None = None) -> Explanation:
        """A query as a picture, with the times of its last run; as :meth:`prepare` takes it."""
        dag, chosen = self.catalog.resolve(query, exports)
        same = _same(dag)
        timings: dict[str, Timing] = {}
        for (ran, _), found in self._timings.items():
            if ran == same:
                timings.update(found)
        return Explanation(dag, chosen, timings)

    async def run(
        self,
        query: Any,
        exports: Sequence[str] | None = None,
        parameters: Mapping[str, JSON] | None = None,
        *,
        names: Naming = False,
        provenance: bool = False,
        on_wait: OnWait | None = None,
        newest: bool = True,
    ) -> dict[str, JSON]:
        """The answers, by export: ``{"counter": [{"count": 2, ...}, ...]}``.

        Without ``exports``, all of the DAG. A reducer that is still going through the past is waited for;
        ``on_wait`` is told of it meanwhile. Without ``newest``, one that is to replace another isn't: that
        one answers. An error inside one value is a value in its place.
        """
        running = await self._waited(
            lambda: self.prepare(query, exports, parameters, names=names), on_wait, newest
        )
        await self.start(running)
        answers = {name: running.answer(name) for name in running.exports}
        running.close()
        return answers if provenance else {name: visible(value) for name, value in answers.items()}

    async def rows(
        self,
        query: Any,
        parameters: Mapping[str, JSON] | None = None,
        *,
        names: Mapping[str, str] | None = None,
        on_wait: OnWait | None = None,
        newest: bool = True,
        whole_errors: bool = False,
    ) -> Rows:
        """The answer of one export as flat rows: ``[{"student": "tc-testcase-u0", "count": 2}, ...]``.

        ``names`` (by safe id) adds a column ``name``. A parameter that the query doesn't have is an error
        here. It waits as :meth:`run` does. With ``whole_errors``, an answer that as a whole is an error is
        raised as :class:`QueryError`; without, it is the one row.
        """
        running = await self._waited(lambda: self.prepare_one(query, parameters), on_wait, newest)
        await self.start(running)
        (export,) = running.exports
        answer = running.answer(export)
        if whole_errors and is_error(answer):
            running.close()
            raise QueryError(str(answer["error"]))
        rows = flat_rows(
            answer, names, running.behind(), notes=notes_of(running), last=without_state(running, answer)
        )
        running.close()
        return rows

    def prepare_one(self, query: Any, parameters: Mapping[str, JSON] | None = None) -> Running:
        """Check a query that has one answer, as rows need it; see :meth:`prepare`, with ``strict``."""
        running = self.prepare(query, None, parameters, strict=True)
        if len(running.exports) != 1:
            raise QueryError(
                f"expected a query with one answer, got {running.dag.name or 'one'} with several; name one: "
                + ", ".join(repr(f"{running.dag.name}.{name}".strip(".")) for name in running.exports)
            )
        return running

    async def _waited(self, prepare: Callable[[], Running], on_wait: OnWait | None, newest: bool) -> Running:
        """A query whose reducers are through the past; laid out again where they weren't before."""
        running = prepare()
        if await self.wait(running, on_wait, newest=newest):
            running.close()
            running = prepare()
        return running

    async def wait(self, running: Running, on_wait: OnWait | None = None, *, newest: bool = False) -> bool:
        """Wait for the reducers that are still going through the past; ``on_wait`` hears of it meanwhile.

        With ``newest`` also for those that are to replace another, which can answer; where such a one comes
        to nothing, that other stays and answers. Gives whether there was one to wait for.
        """
        waited = False
        for registration in running.registrations():
            if getattr(registration, "answering", False) and not (
                newest and getattr(registration, "replacing", False)
            ):
                continue
            waited = True
            ready = asyncio.ensure_future(registration.ready())
            try:
                if on_wait is not None:
                    await asyncio.sleep(0)
                while on_wait is not None and not ready.done():
                    on_wait(_last(registration))
                    await asyncio.wait([ready], timeout=_TOLD_SECONDS)
                await ready
            except Exception:
                if not (newest and self._answers_instead(registration)):
                    raise
            finally:
                ready.cancel()
        return waited

    def _answers_instead(self, registration: Registration) -> bool:
        """Whether there are states that answer in the place of one that came to nothing."""
        with contextlib.suppress(LOError):
            return bool(getattr(self.reducers.get(registration.id), "answering", False))
        return False

    async def start(self, running: Running, *, record: bool = True) -> None:
        """Make every answer, remember how long it took, and put on record whose data that was.

        Without ``record``, whoever calls sees to that.
        """
        await running.run()
        key = _same(running.dag), tuple(running.exports)
        self._timings.pop(key, None)
        self._timings[key] = running.timings
        while len(self._timings) > _REMEMBERED:
            del self._timings[next(iter(self._timings))]
        if record:
            self.record(running, running.learners())

    def record(self, running: Running, learners: Iterable[str]) -> None:
        """Put on record that this query has read these learners' data."""
        if self.reads is not None:
            name = running.dag.name or "an open query"
            self.reads.record("query", f"{name}: {', '.join(running.exports)}", sorted(learners))


def _same(dag: Dag) -> bytes:
    """The same for the same query; short, however long the query is."""
    if dag.name:
        return dag.name.encode()
    return hashlib.blake2b(msgspec.json.encode(dag.json, order="deterministic"), digest_size=20).digest()


def _last(registration: Registration) -> Registration:
    """The newest of those that were to replace it."""
    while (successor := getattr(registration, "successor", None)) is not None:
        registration = successor
    return registration
