"""The page ``/queries``: all queries, their parameters, an answer, and how it is built.

The page asks at the websocket that dashboards ask at (:mod:`lo_kernel.app.protocol`); what stands here is the
list of queries, the drawing of one, and the check of a DAG that somebody wrote in the page, which only the
notebook's own token may do.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from lo_kernel.app.security import ACCESS, takes
from lo_kernel.app.status import reducer_facts
from lo_kernel.errors import LOError, QueryError
from lo_kernel.runtime import Runtime

if TYPE_CHECKING:
    from lo_kernel.query.dag import Dag, Parameter
    from lo_kernel.query.explain import Explanation
    from lo_kernel.query.functions import Functions

__all__ = ["described", "listing", "routes"]

Page = Callable[..., web.Response]

_TYPES: Final = {
    "str": "text",
    "int": "number",
    "float": "number",
    "bool": "yes or no",
    "list": "list",
    "dict": "object",
}
"""How types of Python are called on the page."""

_LEARNER_NAMES: Final = frozenset({"student", "student_id", "user_id", "safe_user_id", "learner"})


def routes(runtime: Runtime, page: Page) -> list[web.RouteDef]:
    """The routes of the page; ``page`` fills a template in."""

    @takes("read")
    async def queries(request: web.Request) -> web.StreamResponse:
        everything = ACCESS in request and request[ACCESS].everything
        return page("queries.html", "", "Queries", {**listing(runtime), "open": everything})

    @takes("read")
    async def queries_json(request: web.Request) -> web.StreamResponse:
        return _json(listing(runtime))

    @takes("read")
    async def drawing(request: web.Request) -> web.StreamResponse:
        try:
            return _json(_drawn(runtime, runtime.executor.explain(request.query.get("query", ""))))
        except LOError as error:
            return _json({"error": str(error)}, status=404)

    async def check(request: web.Request) -> web.StreamResponse:  # marked by nothing: the notebook's alone
        try:
            dag, exports = checked(runtime, await request.read())
            explanation = runtime.executor.explain(dag, _chosen(request, exports))
        except LOError as error:
            return _json({"error": str(error)}, status=400)
        found = [
            {
                "export": name,
                "description": dag.exports[name].description,
                "parameters": described(dag, dag.exports[name].parameters, runtime.functions),
            }
            for name in exports
        ]
        return _json({"exports": found, "drawing": _drawn(runtime, explanation)})

    return [
        web.get("/queries", queries),
        web.get("/queries.json", queries_json),
        web.get("/queries/drawing", drawing),
        web.post("/queries/check", check),
    ]


def listing(runtime: Runtime) -> dict[str, Any]:
    """What the page lists: every query with parameters, description and a sample answer, and the courses."""
    found = []
    for info in runtime.catalog:
        dag = runtime.catalog.get(info.dag)
        found.append(
            {
                "name": info.name,
                "dag": info.dag,
                "export": info.export,
                "description": info.description,
                "parameters": described(dag, info.parameters, runtime.functions),
                "sample": info.sample,
            }
        )
    rosters = runtime.rosters
    return {
        "queries": found,
        "courses": rosters.courses(),
        "any_course": rosters.source != "file",
        "learners": len(runtime.learners),
    }


def described(dag: Dag, parameters: Iterable[Parameter], functions: Functions) -> list[dict[str, Any]]:
    """Parameters for a form: ``{"name", "required", "default", "type", "offer"}``.

    ``type`` is what the default is, else what the function takes that gets the value, else ``any``. ``offer``
    says what the form can offer: ``courses``, ``learners``, or nothing (``""``).
    """
    fed = _fed(dag)
    found = []
    for parameter in parameters:
        takers = fed.get(parameter.name, [])
        offer = ""
        if parameter.name == "course_id" or ("learning_observer.courseroster", "course_id") in takers:
            offer = "courses"
        elif parameter.name in _LEARNER_NAMES:
            offer = "learners"
        found.append(
            {
                "name": parameter.name,
                "required": parameter.required,
                "default": parameter.default,
                "type": "text" if offer else _type(parameter.default, takers, functions),
                "offer": offer,
            }
        )
    return found


def checked(runtime: Runtime, text: bytes) -> tuple[Dag, list[str]]:
    """A DAG from JSON, and its exports; a :class:`QueryError` names node, field and what was expected."""
    from lo_kernel.query.dag import Dag

    try:
        source = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise QueryError(f"a query: expected JSON, got text that isn't: {error}") from None
    if not isinstance(source, dict):
        raise QueryError(f"a query: expected a JSON object of nodes, got {type(source).__name__}")
    dag, exports = runtime.catalog.resolve(source)
    assert isinstance(dag, Dag)
    # Whoever runs it gives the values; here it is looked at without them.
    given = {p.name: p.default or "given" for name in exports for p in dag.exports[name].parameters}
    runtime.executor.prepare(dag, exports, given)
    return dag, exports


def _chosen(request: web.Request, exports: list[str]) -> list[str]:
    chosen = request.query.get("export")
    return [chosen] if chosen in exports else exports


def _fed(dag: Dag) -> dict[str, list[tuple[str, str]]]:
    """Which function's argument each parameter is: ``{"n": [("top", "n")]}``."""
    from lo_kernel.query.dag import Ref

    found: dict[str, list[tuple[str, str]]] = {}
    for node in dag.nodes.values():
        if node.dispatch not in ("call", "map"):
            continue
        given = dict(node.fields.get("kwargs") or node.fields.get("func_kwargs") or {})
        given.update(enumerate(node.fields.get("args") or ()))
        for argument, value in given.items():
            source = dag.nodes.get(value.node) if isinstance(value, Ref) else None
            while source is not None and source.dispatch == "variable":
                inner = source.fields.get("value")
                source = dag.nodes.get(inner.node) if isinstance(inner, Ref) else None
            if source is not None and source.dispatch == "parameter":
                takers = found.setdefault(source.fields["parameter_name"], [])
                takers.append((node.fields["function_name"], argument))
    return found


def _type(default: Any, takers: list[tuple[str, Any]], functions: Functions) -> str:
    if default is not None:
        return _TYPES.get(type(default).__name__, "any")
    for name, argument in takers:
        if name not in functions:
            continue
        parameters = functions.get(name).parameters
        if isinstance(argument, int):
            argument = next(iter(list(parameters)[argument : argument + 1]), "")
        taken = parameters.get(argument)
        if taken is None or taken.annotation is inspect.Parameter.empty:
            continue
        annotation = taken.annotation
        text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
        kinds = [part.partition("[")[0].strip() for part in text.split("|")]
        known = {_TYPES.get(kind, "any") for kind in kinds if kind != "None"}
        if len(known) == 1:
            return known.pop()
    return "any"


def _drawn(runtime: Runtime, explanation: Explanation) -> dict[str, Any]:
    from lo_kernel.query.relational import find_reducer

    reducers = {}
    for name in explanation.order:
        node = explanation.dag.nodes[name]
        if node.dispatch == "keys":
            with contextlib.suppress(LOError):
                reducer = find_reducer(runtime.registry, node.fields["function"])
                reducers[reducer.id] = reducer
    return {
        "reducers": reducer_facts(reducers.values()),
        "svg": explanation.svg(),
        "nodes": explanation.nodes(),
        "seconds": explanation.seconds,
        "dag": explanation.dag.to_json(),
    }


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value),
        content_type="application/json",
        status=status,
        headers={"Cache-Control": "no-store"},
    )
