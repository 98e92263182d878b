"""Named DAGs: those of installed modules, and one per module for the reducers that are registered."""

from __future__ import annotations

import contextlib
import copy
import html
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import msgspec

from lo_kernel.engine.keys import KeyField
from lo_kernel.errors import QueryError, UnknownQueryError
from lo_kernel.query.dag import Dag, Parameter
from lo_kernel.query.language import PROVENANCE_STUDENT, Node, q
from lo_kernel.query.ports import JSON, Registration, Unsubscribe

__all__ = ["Catalog", "QueryInfo"]


SHOWN_SAMPLE: Final = 120
"""Characters of a sample answer that a list shows."""


@dataclass(frozen=True, slots=True)
class QueryInfo:
    """One predefined query: an export of a named DAG."""

    dag: str
    export: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    sample: JSON = None
    name: str = ""
    """How it is asked for in a notebook: ``my_module.counter``."""

    @property
    def call(self) -> str:
        """Its name with its parameters: ``my_module.counter(course_id=None)``."""
        given = ", ".join(p.name if p.required else f"{p.name}={p.default!r}" for p in self.parameters)
        return f"{self.name}({given})"

    @property
    def example(self) -> str:
        """The sample answer as JSON, at most 120 characters of it; empty where there is none."""
        if self.sample is None:
            return ""
        text = msgspec.json.encode(self.sample).decode()
        return text if len(text) <= SHOWN_SAMPLE else text[: SHOWN_SAMPLE - 1] + "…"

    def __repr__(self) -> str:
        line = f"{self.call}  {self.description}".rstrip()
        return f"{line}\n    {self.example}" if self.example else line


class Catalog:
    """The named DAGs.

    >>> catalog = Catalog()
    >>> catalog.add("demo", {"greeting": "hello"})
    >>> catalog
    demo.greeting()
    """

    def __init__(self) -> None:
        self._sources: dict[str, Mapping[str, JSON]] = {}
        self._dags: dict[str, Dag] = {}
        self._reducers: dict[str, dict[str, Registration]] = {}
        self._listeners: list[Callable[[str], None]] = []
        self.page: Callable[[], str] | None = None
        """Gives the address of the page that shows them, for the HTML of this list."""

    def add(self, name: str, source: Any) -> None:
        """Add a DAG under ``name``, or replace it; a module's ``EXECUTION_DAG`` as it is.

        Raises :class:`QueryError`, which names node and field.
        """
        dag = Dag.read(source, name=name, other=self.node_of)
        self._sources[name] = dag.to_json()
        self._rebuild(name)

    def add_reducer(self, registration: Registration, module: str) -> None:
        """Make or extend the DAG named after ``module``: an export of the reducer's id, and ``<id>_export``.

        The answer is the class roster joined with each learner's state, a row for each learner; one without
        a state has the null state's fields. The parameter ``course_id`` may be left out. Where the scope
        has more than the learner, a row for each state that there is.
        """
        self._reducers.setdefault(module, {})[registration.id] = registration
        self._rebuild(module)

    def remove_reducer(self, reducer_id: str, module: str) -> None:
        """Take the exports of a reducer away."""
        if self._reducers.get(module, {}).pop(reducer_id, None) is not None:
            self._rebuild(module)

    def remove(self, name: str) -> None:
        """Take a DAG away, with all its exports."""
        self._sources.pop(name, None)
        self._reducers.pop(name, None)
        self._rebuild(name)

    def get(self, name: str) -> Dag:
        """The DAG of this name; an error that lists what there is otherwise."""
        dag = self._dags.get(name)
        if dag is None:
            raise UnknownQueryError(
                f"there is no query {name!r}; there are: {', '.join(sorted(self._dags)) or 'none'}"
            )
        return dag

    def resolve(
        self, query: Any, exports: Sequence[str] | None = None, *, dags_first: bool = False
    ) -> tuple[Dag, list[str]]:
        """A DAG and the exports that are meant.

        ``query`` is a DAG, a node, or a name: the id of a reducer, of a DAG, ``dag.export``, or an export
        that only one DAG has. An id is what was registered under it, whatever an installed module calls so;
        a full name is the export, also where the module's reducer has the same for its id. With
        ``dags_first``, as who asks over the wire names DAGs, a DAG of this name comes before. Without
        ``exports``, all of the DAG (each once, where one has two names).
        """
        if not isinstance(query, str):
            dag = query if isinstance(query, Dag) else Dag.read(query, other=self.node_of)
            return dag, list(exports) if exports is not None else _each_once(dag)
        dags = self._dags.copy()  # others may ask on threads of their own
        own = None if exports is not None else self._registered(query, dags)
        if query in dags and (own is None or dags_first):
            dag = dags[query]
            return dag, list(exports) if exports is not None else _each_once(dag)
        if exports is None:
            for name, dag in dags.items():
                if query.startswith(f"{name}.") and query[len(name) + 1 :] in dag.exports:
                    return dag, [query[len(name) + 1 :]]
            if own is not None:
                return dags[own], [query]
            having = [dag for dag in dags.values() if query in dag.exports]
            if len(having) == 1:
                return having[0], [query]
            if having:
                names = ", ".join(f"{dag.name}.{query}" for dag in having)
                raise UnknownQueryError(f"several queries are called {query!r}; say which: {names}")
            raise UnknownQueryError(
                f"there is no query {query!r}; there are: {', '.join(info.name for info in self) or 'none'}"
            )
        self.get(query)
        raise AssertionError  # get raises

    def node_of(self, variable: str) -> tuple[Dag, str] | None:
        """The DAG and the node that a variable such as ``other_dag.node`` names; None where there is none."""
        for name, dag in self._dags.copy().items():
            if not variable.startswith(f"{name}."):
                continue
            for node in (variable[len(name) + 1 :], variable):
                if node in dag.nodes or node in dag.exports:
                    return dag, dag.exports[node].returns if node in dag.exports else node
        return None

    def subscribe(self, listener: Callable[[str], None]) -> Unsubscribe:
        """Call ``listener`` with the name of a DAG that was added, replaced or taken away."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def __iter__(self) -> Iterator[QueryInfo]:
        for name, dag in sorted(self._dags.copy().items(), key=itemgetter(0)):
            for export in _each_once(dag):
                found = dag.exports[export]
                yield QueryInfo(
                    name,
                    export,
                    found.description,
                    found.parameters,
                    copy.deepcopy(found.sample),
                    _asked(dag, export),
                )

    def __contains__(self, name: object) -> bool:
        return name in self._dags

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no queries"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{html.escape(info.call)}</code></td><td>{html.escape(info.description)}</td>"
            f"<td><code>{html.escape(info.example)}</code></td></tr>"
            for info in self
        )
        if not rows:
            return "<em>no queries</em>"
        head = "".join(f"<th>{title}</th>" for title in ("query", "what it answers", "sample answer"))
        link = html.escape(self.page()) if self.page is not None else ""
        page = (
            f'<p><a href="{link}" target="_blank" rel="noopener">Run them in a page</a></p>' if link else ""
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{page}"

    def _registered(self, reducer_id: str, dags: Mapping[str, Dag]) -> str | None:
        """The module of the reducer of this id, where there is one."""
        modules = [name for name, reducers in self._reducers.copy().items() if reducer_id in reducers]
        return next((name for name in modules if name in dags and reducer_id in dags[name].exports), None)

    def _rebuild(self, name: str) -> None:
        """Read a DAG anew, and those that have taken nodes of it in; one that can't be stays as it was."""
        self._read(name)
        waiting, done = [name], {name}
        while waiting:
            changed = waiting.pop()
            for other in [each for each, dag in self._dags.items() if dag.concerns(changed)]:
                if other not in done:
                    done.add(other)
                    with contextlib.suppress(QueryError):
                        self._read(other)
                        waiting.append(other)
        for each in done:
            for listener in list(self._listeners):
                listener(each)

    def _read(self, name: str) -> None:
        source = copy.deepcopy(dict(self._sources.get(name) or {"execution_dag": {}, "exports": {}}))
        reducers = self._reducers.get(name, {})
        for registration in reducers.values():
            nodes, exports = _reducer_dag(registration, source["execution_dag"], reducers)
            source["execution_dag"].update(nodes)
            source["exports"].update(exports)
        if source["execution_dag"]:
            self._dags[name] = Dag.read(source, name=name, other=self.node_of)
        else:
            self._dags.pop(name, None)


def _reducer_dag(
    registration: Registration, taken: Mapping[str, JSON], ids: Container[str]
) -> tuple[dict[str, Node], dict[str, JSON]]:
    """Nodes and exports of a reducer, beside the nodes ``taken``; ``ids`` are all of the module."""
    reducer = registration.id
    roster = "roster" if taken.get("roster", q.roster()) == q.roster() else "learning_observer.roster"
    roster, joined = _free(roster, ids), _free(f"{reducer}_join_roster", ids)
    scope = registration.scope
    nodes: dict[str, Node] = {}
    if KeyField.STUDENT in scope:
        nodes[roster] = q.roster()
        keys = q.keys(reducer, STUDENTS=q.variable(roster), STUDENTS_path="user_id")
        nodes[reducer] = q.select(keys, q.ALL)
        nodes[joined] = q.join(q.variable(reducer), q.variable(roster), PROVENANCE_STUDENT, "user_id")
        of_whom = "each learner of a class"
    else:
        nodes[reducer] = q.select(q.keys(reducer), q.ALL)
        joined = reducer
        of_whom = "each " + " and ".join(name.partition(".")[2] or name.lower() for name in scope.names)
    if scope - {KeyField.STUDENT} and KeyField.STUDENT in scope:
        others = (name.partition(".")[2] or name.lower() for name in scope.names if name != "STUDENT")
        of_whom += ", by " + " and ".join(others)
    sample = _sample(registration)
    export = {
        "returns": joined,
        "description": f"The latest state of {reducer} for {of_whom}.",
        "sample": sample,
        "parameters": ["course_id"] if KeyField.STUDENT in scope else [],
    }
    again = f"{reducer}_export"
    return nodes, {reducer: export, **({} if again in ids else {again: export})}


def _free(name: str, ids: Container[str]) -> str:
    """``name``, or another where a reducer is called so, whose node has the name."""
    while name in ids:
        name += "_"
    return name


def _sample(registration: Registration) -> list[JSON]:
    state = registration.default
    row = {"user_id": "tc-testcase-u0"} if KeyField.STUDENT in registration.scope else {}
    return [{**(state if isinstance(state, dict) else {}), **row}]


def _each_once(dag: Dag) -> list[str]:
    """Exports, without those that are only another name of one.

    That is its ``_export`` name; and, of a reducer whose id has the module's name before it, the query that
    comes with it, where the module brings the same.
    """
    return [name for name in dag.exports if not (_is_second(dag, name) or _is_brought(dag, name))]


def _is_second(dag: Dag, name: str) -> bool:
    first = dag.exports.get(name.removesuffix("_export")) if name.endswith("_export") else None
    return first is not None and first.returns == dag.exports[name].returns


def _is_brought(dag: Dag, name: str) -> bool:
    brought = dag.exports.get(name.removeprefix(f"{dag.name}.")) if name.startswith(f"{dag.name}.") else None
    return brought is not None and dag.meaning(brought.returns) == dag.meaning(dag.exports[name].returns)


def _asked(dag: Dag, export: str) -> str:
    """The name of an export; the module's own stands before it once."""
    own = f"{dag.name}."
    return export if export.startswith(own) and export.removeprefix(own) not in dag.exports else own + export
