"""The field's decorators: what they declare, and how a state passes through JSON with each event.

The deployed system writes each state as JSON and reads it again with the next event, so its reducers may
return tuples, or numbers as keys, and find lists and texts. Here a state lives in memory between commits;
:func:`~lo_kernel.engine.states.json_state` after each event makes both the same, whenever a commit comes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from lo_kernel.engine.keys import Scope, ScopeField
from lo_kernel.engine.reducers import declaration_of
from lo_kernel.engine.reducers import kvs_pipeline as declare
from lo_kernel.engine.states import json_state
from lo_kernel.errors import ReducerError, StateError

__all__ = ["field_reducer", "make_decorators"]

_NOT_GIVEN: Any = object()
Process = Callable[[Any, Any], Any]


def make_decorators(pipeline: Process | None) -> dict[str, Any]:
    """``kvs_pipeline`` and ``student_event_reducer``.

    What they give is the reducer itself. Called with metadata alone, it is what ``pipeline`` makes of it and
    the metadata: in the field this gives the function that takes events.
    """

    def kvs_pipeline(
        null_state: Any = None,
        scope: Iterable[ScopeField] | None = None,
        module_override: str | None = None,
        qualname_override: str | None = None,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a reducer; see :func:`lo_kernel.engine.reducers.kvs_pipeline`."""

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            if qualname_override is not None:
                function.__qualname__ = qualname_override
            if module_override is not None:
                function.__module__ = module_override
            reducer = _through_json(function)
            if pipeline is not None:
                reducer.__lo_pipeline__ = pipeline  # type: ignore[attr-defined]
            fields = None if scope is None else Scope(scope)
            first = json_state(null_state) if not callable(null_state) else null_state
            return declare(first, fields, module_override, qualname_override)(reducer)

        return decorate

    def student_event_reducer(null_state: Any = None, **options: Any) -> Any:
        """Declare a reducer with a state per learner."""
        return kvs_pipeline(null_state, **options)

    return {"kvs_pipeline": kvs_pipeline, "student_event_reducer": student_event_reducer}


def field_reducer(function: Any, scope: Iterable[ScopeField] | None = None) -> Any:
    """A function as the field would have it declared, where it isn't."""
    if hasattr(function, "__lo_declaration__") or not callable(function):
        return function
    fields = scope if scope is not None else declaration_of(function).scope
    return make_decorators(None)["kvs_pipeline"](None, fields)(function)


def _through_json(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def reducer(event: Any, state: Any = _NOT_GIVEN) -> Any:
        if state is _NOT_GIVEN:
            return await _pipeline_of(reducer, event)
        result = function(event, state)
        if inspect.isawaitable(result):
            result = await result
        if type(result) is not tuple or len(result) != 2:
            return result  # whoever folds says what is wrong with it
        internal, external = result
        if internal is not False:
            plain = _plain(internal)
            external = plain if external is internal else external
            internal = plain
        if external is not False and external is not internal:
            external = _plain(external)
        return internal, external

    return reducer


def _plain(state: Any) -> Any:
    try:
        return json_state(state)
    except (TypeError, ValueError, RecursionError) as error:
        raise StateError(f"the state can't be written as JSON: {error}") from None


def _pipeline_of(reducer: Any, metadata: Any) -> Any:
    made = getattr(reducer, "__lo_pipeline__", None)
    if made is None:
        raise ReducerError("a reducer takes two arguments, (event, state)")
    return made(reducer, metadata)
