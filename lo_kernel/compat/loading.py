"""``module_loader`` and ``interactive_development``: reducers by hand, and hot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from lo_kernel.engine.keys import KeyField, Scope
from lo_kernel.errors import UnknownReducerError
from lo_kernel.query.language import q

if TYPE_CHECKING:
    from lo_kernel.compat.field import Field

__all__ = ["interactive_development", "module_loader"]

RESTREAM: Final = "restream_prior_data"
DROP: Final = "drop_data"
PROCESS: Final = "process_reducer_function"


def module_loader(field: Field) -> dict[str, Any]:
    """``module_loader``."""
    removing: dict[str, Any] = {}

    def reducers() -> list[dict[str, Any]]:
        """The reducers, as mappings."""
        return [field.described(each) for each in field.runtime.registry.all()]

    def add_reducer(reducer: Mapping[str, Any], string_id: str | None = None) -> list[dict[str, Any]]:
        """Register a reducer, or put it in the place of the one with its id; gives all of them."""
        task = removing.pop(reducer.get("id") or string_id or "", None)
        if task is not None:  # removed and added in one go: it is replaced
            task.cancel()
        field.bridge.call(lambda: field.add(reducer, string_id))
        return reducers()

    def remove_reducer(reducer_id: str) -> None:
        """Take a reducer out, its states with it, as soon as the loop comes round."""
        field.runtime.registry.get(reducer_id)
        removing[reducer_id] = field.bridge.start(field.runtime.remove_reducer(reducer_id))

    def execution_dags() -> dict[str, Any]:
        """The named queries as JSON."""
        catalog = field.runtime.catalog
        return {name: catalog.get(name).to_json() for name in dict.fromkeys(info.dag for info in catalog)}

    def load_execution_dags(component_name: str, module: Any) -> None:
        """Add the ``EXECUTION_DAG`` of a module, under a name."""
        dag = getattr(module, "EXECUTION_DAG", None)
        if dag is not None:
            field.bridge.call(lambda: field.runtime.catalog.add(component_name, dag))

    def load_modules() -> None:
        """Do nothing: the app has loaded them."""

    return {
        "add_reducer": add_reducer,
        "course_dashboards": lambda: list(field.runtime.dashboards.course_links),
        "execution_dags": execution_dags,
        "load_execution_dags": load_execution_dags,
        "load_modules": load_modules,
        "reducers": reducers,
        "remove_reducer": remove_reducer,
        "student_dashboards": lambda: list(field.runtime.dashboards.student_links),
    }


def interactive_development(field: Field) -> dict[str, Any]:
    """``interactive_development``: a reducer loaded hot, any number of times.

    All migrations work: ``RESTREAM_PRIOR_DATA`` goes through the archive, ``DROP_DATA`` begins with nothing,
    ``PROCESS_REDUCER_FUNC`` makes each new state from an old one with ``process`` (without it, old states
    stay). Without a migration, old states stay too.
    """

    def construct_reducer(
        reducer_id: str,
        reducer_func: Any,
        module: str = "jupyter-helper",
        scope: Any = None,
        default: Any = None,
        context: str | None = None,
    ) -> dict[str, Any]:
        """The mapping that :func:`hot_load_reducer` takes."""
        return {
            "context": context or "org.mitros.writing_analytics",
            "function": reducer_func,
            "scope": scope or Scope([KeyField.STUDENT]),
            "default": default,
            "module": module,
            "id": reducer_id,
        }

    async def hot_load_reducer(
        reducer: Mapping[str, Any],
        reload: bool = False,
        migration_function: str | Callable[[Any], Any] | None = None,
        process: Callable[[Any], Any] | None = None,
    ) -> None:
        """Add a reducer, or with ``reload`` replace it; done when it has seen what it has to."""
        if not callable(migration_function) and migration_function not in (None, RESTREAM, DROP, PROCESS):
            raise KeyError(
                f"migration_function: expected {RESTREAM!r}, {DROP!r}, {PROCESS!r}, a function of an old "
                f"state or None, got {migration_function!r}"
            )
        known = reducer["id"] in field.runtime.registry
        if known and not reload:
            raise RuntimeError(
                f"the reducer {reducer['id']!r} is there already: hot_load_reducer(..., reload=True) "
                "replaces it"
            )
        if not reload and migration_function not in (None, RESTREAM):
            raise RuntimeError(
                f"migration_function={migration_function!r}: a reducer that is added has no states to "
                "migrate; give reload=True, or leave it out"
            )
        migrate: Any = {RESTREAM: "restream", DROP: "drop"}.get(str(migration_function), "keep")
        if callable(migration_function):
            migrate = migration_function
        elif migration_function == PROCESS and process is not None:
            migrate = process
        elif migration_function is None and not known:
            migrate = "restream"
        await field.bridge.run(_load(field, reducer, migrate))

    async def remove_reducer_results_from_kvs(reducer_id: str) -> None:
        """Let a reducer begin with nothing."""
        registration = field.runtime.registry.get(reducer_id)
        await field.bridge.run(_load(field, field.described(registration), "drop"))

    return {
        "DROP_DATA": DROP,
        "MIGRATION_POLICY": dict.fromkeys((RESTREAM, DROP, PROCESS)),
        "MODULE_NAME": "jupyter-helper",
        "PROCESS_REDUCER_FUNC": PROCESS,
        "RESTREAM_PRIOR_DATA": RESTREAM,
        "construct_reducer": construct_reducer,
        "hot_load_reducer": hot_load_reducer,
        "remove_reducer_results_from_kvs": remove_reducer_results_from_kvs,
    }


async def _load(field: Field, reducer: Mapping[str, Any], migrate: Any) -> None:
    runtime, reducer_id = field.runtime, reducer["id"]
    if migrate == "drop":  # with the same code too, which otherwise goes on with what it has
        try:
            await runtime.remove_reducer(reducer_id)
        except UnknownReducerError:
            if reducer_id in runtime.registry.paused:
                await runtime.registry.remove(reducer_id)
    registration = field.add(reducer, migrate=migrate)
    default = reducer.get("default")
    if isinstance(default, dict) and "event_count" in default:
        _add_event_count(field, registration.module, reducer_id)
    await asyncio.shield(asyncio.ensure_future(registration.ready()))


def _add_event_count(field: Field, module: str, reducer_id: str) -> None:
    """The export ``event_count``, which the field's notebooks ask for whatever the reducer is called."""
    catalog = field.runtime.catalog
    if module in catalog and "event_count" in catalog.get(module).exports:
        return
    course = q.parameter("course_id")
    keys = q.keys(reducer_id, STUDENTS=q.roster(course), STUDENTS_path="user_id")
    node = q.select(keys, {"event_count": "event_count"})
    export = {"returns": "event_count", "parameters": ["course_id"]}
    catalog.add(module, {"execution_dag": {"event_count": node}, "exports": {"event_count": export}})
