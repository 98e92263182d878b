"""``stream_analytics`` (with ``helpers``, ``fields``, ``time_on_task``) and ``adapters``."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lo_kernel.compat.decorators import make_decorators
from lo_kernel.engine.keys import EventField, KeyField, Scope, ScopeField, state_key
from lo_kernel.engine.reducers import declaration_of
from lo_kernel.errors import ReducerError

if TYPE_CHECKING:
    from lo_kernel.compat.field import Field

__all__ = ["adapter", "adapters", "fields", "helpers", "stream_analytics", "time_on_task"]

KeyStateType = enum.Enum("KeyStateType", "INTERNAL EXTERNAL")

_FIELDS = {"EventField": EventField, "KeyField": KeyField, "KeyStateType": KeyStateType, "Scope": Scope}


def fields(field: Field) -> dict[str, Any]:
    """``stream_analytics.fields``."""
    return {**_FIELDS, "KeyFields": [each.name for each in KeyField], "ScopeFieldError": ReducerError}


def helpers(field: Field) -> dict[str, Any]:
    """``stream_analytics.helpers``."""
    from lo_kernel.compat.replaying import pipeline_of
    from lo_kernel.compat.system import log_event

    return {
        **_FIELDS,
        **make_decorators(lambda reducer, metadata: pipeline_of(field, reducer, metadata)),
        "fully_qualified_function_name": _function_name,
        "make_key": _make_key,
        "debug_log": log_event(field)["debug_log"],
    }


def stream_analytics(field: Field) -> dict[str, Any]:
    """``stream_analytics`` itself. A reducer counts from the moment it is added; there is nothing to init."""

    def init() -> None:
        """Do nothing."""

    def reducer_modules(source: str) -> list[dict[str, Any]]:
        """The reducers of a context."""
        of_context = [each for each in field.runtime.registry.all() if each.context == source]
        return [{"reducer": each.function, "scope": each.scope} for each in of_context]

    return {"init": init, "reducer_modules": reducer_modules}


def time_on_task(field: Field) -> dict[str, Any]:
    """``stream_analytics.time_on_task``: the folds that count seconds between events."""
    return {
        "default_time_on_task_state": _no_time,
        "apply_time_on_task": _add_time,
        "default_binned_time_on_task_state": _no_bins,
        "apply_binned_time_on_task": _add_binned_time,
        "get_time_bin": _bin_of,
    }


def adapters(field: Field) -> dict[str, Any]:
    """``adapters``."""
    return {}


def adapter(field: Field) -> dict[str, Any]:
    """``adapters.adapter``: functions that change events as they come in, before they are archived."""

    def add_common_migrator(migrator: Callable[[Any], Any], file: str = "") -> None:
        """Let ``migrator(event)``, the client's event, give the one that is taken."""
        known = field.runtime.adapters
        same = (migrator.__module__, migrator.__qualname__)
        known[:] = [each for each in known if (each.__module__, each.__qualname__) != same]
        known.append(migrator)

    return {"add_common_migrator": add_common_migrator, "common_transformers": field.runtime.adapters}


def _function_name(function: Any) -> str:
    return declaration_of(function).key_name


def _make_key(function: Any, key_dict: Mapping[ScopeField, Any], state_type: Any) -> str:
    values = {each.key_name: str(value) for each, value in key_dict.items()}
    return state_key(state_type.name.capitalize(), _function_name(function), values)


def _no_time() -> dict[str, Any]:
    return {"saved_ts": None, "total_time_on_task": 0}


def _add_time(internal_state: Any, current_timestamp: Any, time_delta_threshold: Any) -> Any:
    """Add what passed since the event before, at most the threshold."""
    state = _no_time() if internal_state is None else internal_state
    before = current_timestamp if state["saved_ts"] is None else state["saved_ts"]
    state["saved_ts"] = current_timestamp
    if current_timestamp is not None:
        state["total_time_on_task"] += min(time_delta_threshold, current_timestamp - before)
    return state


def _no_bins() -> dict[str, Any]:
    return {"saved_ts": None, "binned_time_on_task": {}, "current_bin": None}


def _bin_of(timestamp: float, bin_size: int) -> int:
    return int(timestamp // bin_size * bin_size)


def _add_binned_time(
    internal_state: Any, current_timestamp: Any, time_delta_threshold: Any, bin_size: int
) -> Any:
    """The same, by bins of time; what reaches over a bin's end counts in the next one."""
    state = _no_bins() if internal_state is None else internal_state
    before = current_timestamp if state["saved_ts"] is None else state["saved_ts"]
    start = _bin_of(before, bin_size) if state["current_bin"] is None else state["current_bin"]
    end = start + bin_size
    until = before + min(time_delta_threshold, current_timestamp - before)
    bins = state["binned_time_on_task"]
    bins.setdefault(str(start), 0)
    if until >= end:
        bins[str(start)] += end - before
        bins[str(end)] = bins.get(str(end), 0) + until - end
    else:
        bins[str(start)] += min(time_delta_threshold, current_timestamp - before)
    state["saved_ts"] = current_timestamp
    state["current_bin"] = _bin_of(current_timestamp, bin_size)
    return state
