"""``lo`` beside the deployed Learning Observer: what has a meaning there, by that system's own parts."""

from __future__ import annotations

import copy
import importlib
import inspect
import re
from collections.abc import Awaitable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lo_kernel.engine.codehash import code_hash
from lo_kernel.engine.keys import EventField, KeyField, reading_of
from lo_kernel.engine.reducers import declaration_of
from lo_kernel.errors import QueryError, ReducerError, UnknownQueryError, UnknownReducerError
from lo_kernel.notebook.jobs import Job
from lo_kernel.notebook.limited import NotThereError

if TYPE_CHECKING:
    from lo_kernel.bridge import LoopBridge
    from lo_kernel.notebook.observer import LearningObserver
    from lo_kernel.read_log import ReadLog

__all__ = ["DeployedObserver"]

_CONTEXT = "org.mitros.writing_analytics"
_STUDENT = re.compile(r"STUDENT:([^,]+)")
_NAMES = ("profile", "name", "full_name", "emailAddress", "email", "photoUrl")
_FROM_OURS = ("url", "port", "errors", "audit")


def _part(name: str) -> Any:
    return importlib.import_module(f"learning_observer.{name}")


class DeployedObserver:
    """``lo`` where the deployed Learning Observer is the app.

    ``lo.url``, ``.port``, ``.kvs``, ``.query``, ``.reducers``, ``.audit``, ``.errors`` and
    `add_reducer_to_lo` work; everything else says what it needs.
    """

    def __init__(self, lo: LearningObserver, bridge: LoopBridge) -> None:
        self._lo = lo
        self._bridge = bridge
        self.kvs = Store(bridge, lo._runtime.reads)
        self.reducers = Reducers()

    @property
    def url(self) -> str:
        """Where the app answers, as in ``http://127.0.0.1:9999/``."""
        return self._lo.url

    @property
    def port(self) -> int:
        """The app's port."""
        return self._lo.port

    @property
    def errors(self) -> Any:
        """What went wrong in the background."""
        return self._lo.errors

    @property
    def audit(self) -> Any:
        """The record of what ran here, and what came of it."""
        return self._lo.audit

    def query(self, query: Any, export: str | None = None, **parameters: Any) -> Job[list[Any]]:
        """Ask a named query (``"module.export"``) or a DAG (an export of it); gives a `Job` with the rows.

        Raises `UnknownQueryError` for a name that isn't there. A query for the learners of a course asks the
        rosters of that system, some of which need a person who is logged in.
        """
        dag, name = self._find(query, export)
        work = _rows(dag, name, parameters, self._lo._runtime.reads)
        return Job(f"query {name}", work, self._bridge, errors=self._lo._runtime.errors)

    def add_reducer(
        self,
        id: str,
        reducer: Any,
        *,
        module: str = "jupyter-helper",
        scope: Any = None,
        context: str | None = None,
        default: Any = None,
        migrate: Any = "restream",
    ) -> Job[str]:
        """Add a reducer to the running system; see `lo_kernel.jupyter_helpers.add_reducer_to_lo`.

        It hears the events to come. That system keeps no archive to run the past from, so ``migrate`` may be
        ``"keep"`` (the states stay) or ``"drop"``; ``"restream"`` counts as ``"keep"``; the result says so.
        """
        if migrate not in ("restream", "keep", "drop"):
            raise ReducerError(
                f"migrate: with the deployed system, expected 'keep' or 'drop', got {migrate!r}"
            )
        given = _as_its_own(reducer, scope)
        entry = {
            "context": context or _CONTEXT,
            "function": given.function,
            "scope": given.scope,
            "default": {} if default is None else default,
            "module": module,
            "id": id,
        }
        reads = self._lo._runtime.reads

        async def work() -> str:
            done = await _add(entry, drop=migrate == "drop")
            reads.act("reducer", id, code=code_hash(reducer), module=module)
            return done

        return Job(f"reducer {id!r}", work(), self._bridge, errors=self._lo._runtime.errors)

    def _find(self, query: Any, export: str | None) -> tuple[dict[str, Any], str]:
        dags = _part("module_loader").execution_dags()
        if isinstance(query, Mapping):
            exports = list(query.get("exports", {}))
            if export is None and len(exports) != 1:
                raise UnknownQueryError(f"export: expected one of {', '.join(exports)}")
            return dict(query), export or exports[0]
        module, _, name = str(query).rpartition(".")
        known = {f"{dag}.{each}": (dag, each) for dag, found in dags.items() for each in found["exports"]}
        found = known.get(str(query)) or next(
            (k for k in known.values() if not module and k[1] == name), None
        )
        if found is None:
            raise UnknownQueryError(f"no query {query!r}; there are: {', '.join(sorted(known)) or 'none'}")
        return dags[found[0]], found[1]

    def _take_notices(self) -> list[str]:
        return self._lo._take_notices()

    def _close(self) -> None:
        self._lo._close()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and (hasattr(type(self._lo), name) or name in vars(self._lo)):
            raise NotThereError(
                f"lo.{name} needs app='embedded': the deployed Learning Observer has no such thing. "
                "Here work: lo." + ", lo.".join((*_FROM_OURS, "kvs", "query", "reducers", "add_reducer"))
            )
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __repr__(self) -> str:
        reducers = ", ".join(self.reducers) or "none"
        return f"Learning Observer (deployed) at {self.url}\n  loop      {self._loop}\n  reducers  {reducers}"

    @property
    def _loop(self) -> str:
        return self._lo._runtime.settings.loop


class Store:
    """The deployed system's store: ``await lo.kvs[key]``, ``.keys(prefix)``, ``.set(key, value)``."""

    def __init__(self, bridge: LoopBridge, reads: ReadLog) -> None:
        self._bridge = bridge
        self._reads = reads

    def __getitem__(self, key: str) -> Awaitable[Any]:
        async def get() -> Any:
            self._reads.record("store", reading_of(key)[0], _STUDENT.findall(key))
            return await _part("kvs").KVS()[key]

        return self._bridge.run(get())

    def keys(self, prefix: str = "") -> Awaitable[list[str]]:
        """All keys that start with ``prefix``, sorted."""

        async def keys() -> list[str]:
            found = sorted(key for key in await _part("kvs").KVS().keys() if key.startswith(prefix))
            learners = {learner for key in found for learner in _STUDENT.findall(key)}
            self._reads.record("store", "the list of keys", learners)
            return found

        return self._bridge.run(keys())

    def set(self, key: str, value: Any) -> Awaitable[None]:
        """Store a JSON value."""

        async def put() -> None:
            await _part("kvs").KVS().set(key, value)
            self._reads.act("value set", learners=_STUDENT.findall(key), texts={"key": key})

        return self._bridge.run(put())

    def __repr__(self) -> str:
        return "<store of the deployed system: await lo.kvs[key], await lo.kvs.keys(prefix)>"


class Reducers(Mapping[str, Mapping[str, Any]]):
    """The deployed system's reducers by id, each as the mapping by which it is registered there."""

    def __getitem__(self, reducer_id: str) -> Mapping[str, Any]:
        for each in _part("module_loader").reducers():
            if each.get("id") == reducer_id:
                found: Mapping[str, Any] = each
                return found
        raise UnknownReducerError(f"no reducer {reducer_id!r}; there are: {', '.join(self) or 'none'}")

    def __iter__(self) -> Iterator[str]:
        return iter([str(each.get("id")) for each in _part("module_loader").reducers()])

    def __len__(self) -> int:
        return len(_part("module_loader").reducers())

    def __contains__(self, reducer_id: object) -> bool:
        return reducer_id in list(self)

    def __repr__(self) -> str:
        return "\n".join(f"reducer {name!r} of {self[name]['context']}" for name in self) or "no reducers"


class _Given:
    """A reducer as the deployed system registers one."""

    def __init__(self, function: Any, scope: Any) -> None:
        self.function = function
        self.scope = scope


def _as_its_own(reducer: Any, scope: Any) -> _Given:
    """A reducer in that system's form; one in ours is wrapped by its own decorator."""
    helpers = _part("stream_analytics.helpers")
    student = helpers.Scope([helpers.KeyField.STUDENT])
    takes = len(inspect.signature(reducer).parameters) if callable(reducer) else 0
    if hasattr(reducer, "__wrapped__"):  # by its own decorator
        return _Given(reducer, scope or student)
    if takes != 2:
        raise ReducerError(f"a reducer is a function (event, state) -> (internal, external), got {reducer!r}")
    declared = declaration_of(reducer)
    fields = [_field(helpers, field) for field in (scope or declared.scope)]
    own = helpers.Scope(fields)

    async def reduce(event: Any, state: Any) -> Any:
        result = reducer(event, copy.deepcopy(declared.null_state) if state is None else state)
        return await result if inspect.isawaitable(result) else result

    wrapped = helpers.kvs_pipeline(
        null_state=declared.null_state,
        scope=own,
        module_override=declared.module,
        qualname_override=declared.qualname,
    )(reduce)
    return _Given(wrapped, own)


def _field(helpers: Any, field: Any) -> Any:
    """A field of a scope in that system's words; one of its own stays as it is."""
    if isinstance(field, EventField):
        return helpers.EventField(field.event)
    return helpers.KeyField[field.name] if isinstance(field, KeyField) else field


async def _add(entry: dict[str, Any], *, drop: bool) -> str:
    loader, store = _part("module_loader"), _part("kvs")
    function = entry["function"]
    if drop:
        kvs, name = store.KVS(), f"{function.__module__}.{function.__qualname__}"
        for key in await kvs.keys():
            if f",{name}," in key:
                await (kvs.remove(key) if hasattr(kvs, "remove") else kvs.set(key, None))
    loader.remove_reducer(entry["id"])
    loader.add_reducer(entry)
    _part("stream_analytics").init()  # open connections take it up with their next event
    dags = loader.execution_dags()
    dag = dags.setdefault(entry["module"], {"module": entry["module"], "execution_dag": {}, "exports": {}})
    nodes, exported = _class_query(entry["id"])
    dag["execution_dag"].update(nodes)
    dag["exports"].update(exported)
    past = "; its states were dropped" if drop else "; it hears events from now on: there is no archive here"
    return f"reducer {entry['id']!r} of {entry['context']}{past}"


def _class_query(reducer_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The nodes that join a course's learners with their states, exported under the reducer's id."""
    q = _part("communication_protocol.query")
    roster, states = f"{reducer_id}_roster", f"{reducer_id}_states"
    nodes = {
        roster: q.call("learning_observer.courseroster")(
            runtime=q.parameter("runtime"), course_id=q.parameter("course_id", required=True)
        ),
        states: q.select(
            q.keys(reducer_id, STUDENTS=q.variable(roster), STUDENTS_path="user_id"),
            fields=q.SelectFields.All,
        ),
        reducer_id: q.join(
            LEFT=q.variable(states),
            RIGHT=q.variable(roster),
            LEFT_ON="provenance.provenance.value.user_id",
            RIGHT_ON="user_id",
        ),
    }
    return nodes, {reducer_id: {"returns": reducer_id, "parameters": ["course_id"]}}


async def _rows(
    dag: Mapping[str, Any], export: str, parameters: Mapping[str, Any], reads: ReadLog
) -> list[Any]:
    ask = _part("communication_protocol.integration").prepare_dag_execution(dag, [export])
    answers = await ask(runtime=_part("runtime").Runtime(_request()), **parameters)
    rows: list[Any] = []
    for answer in answers.values():
        if hasattr(answer, "__aiter__"):
            rows += [row async for row in answer]
        elif isinstance(answer, list):
            rows += answer
        else:
            rows.append(answer)
    for row in rows:
        if complaint := _complaint(row):
            raise QueryError(f"the deployed system: {complaint}")
    learners: set[str] = set()
    rows = [_nameless(row, learners) for row in rows]
    reads.record("query", export, sorted(learners))
    return rows


def _nameless(value: Any, learners: set[str]) -> Any:
    """A copy without names, which stay out of notebooks; whose data it is goes to ``learners``."""
    if isinstance(value, Mapping):
        if isinstance(who := value.get("user_id"), str):
            learners.add(who)
        return {name: _nameless(each, learners) for name, each in value.items() if name not in _NAMES}
    if isinstance(value, list | tuple):
        return [_nameless(each, learners) for each in value]
    return value


def _request() -> Any:
    """Who asks: the notebook, which is a user without a session in that system's sense."""
    from aiohttp.test_utils import make_mocked_request

    sessions = importlib.import_module("aiohttp_session")
    user = {"user_id": "lo_kernel", "safe_user_id": "lo_kernel", "role": "teacher", "authorized": True}
    request: Any = make_mocked_request("GET", "/")
    request["user"] = user
    request[sessions.SESSION_KEY] = sessions.Session(None, data={"user": user}, new=False, max_age=None)
    return request


def _complaint(row: Any) -> str:
    """What an answer that is an error says, in its own words; empty for a row."""
    while isinstance(row, dict) and isinstance(row.get("error"), dict):
        row = row["error"]
    if not (isinstance(row, dict) and isinstance(row.get("error"), str)):
        return ""
    about = row.get("error_provenance")
    cause = about.get("error", "") if isinstance(about, dict) else ""
    return f"{row['error']} {cause}".strip()
