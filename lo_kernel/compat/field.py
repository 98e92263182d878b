"""What the modules of names stand on: a runtime, the way to its loop, and the field's settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lo_kernel.engine.reducers import declaration_of
from lo_kernel.engine.registration import Registration

if TYPE_CHECKING:
    from lo_kernel.bridge import LoopBridge
    from lo_kernel.runtime import Runtime

__all__ = ["Field"]

_DEFAULTS = {"time_on_task_threshold": 60, "binned_time_on_task_bin_size": 600, "verbose": False}


class Field:
    """The app, as the field's names see it."""

    def __init__(self, runtime: Runtime, bridge: LoopBridge) -> None:
        self.runtime = runtime
        self.bridge = bridge
        self.settings: dict[str, Any] = {}
        self.defaults: dict[str, Any] = dict(_DEFAULTS)
        self.checks: list[Callable[[], Any]] = []
        """What modules want run before the server takes events."""

    def setting(self, module: str, name: str | None = None, default: Any = None) -> Any:
        """A setting of a module; without a name, all of them.

        What :attr:`settings` has under ``modules``; else what ``pmss`` was told as the field's default.
        """
        of_module = (self.settings.get("modules") or {}).get(module) or {}
        if name is None:
            return of_module or default
        if name in of_module:
            return of_module[name]
        pmss = sys.modules.get("pmss")
        for field in getattr(getattr(pmss, "schema", None), "fields", ()):
            if field.get("name") == name and field.get("default") is not None:
                return field["default"]
        return self.defaults.get(name, default)

    def registration_of(self, function: Any) -> Registration | None:
        """The registration of a function: the same one, or what writes the same keys."""
        registry = self.runtime.registry
        found = next((each for each in registry.all() if each.function is function), None)
        return found or registry.by_key_name(declaration_of(function).key_name)

    def described(self, registration: Registration) -> dict[str, Any]:
        """A reducer as the field lists it."""
        function = registration.function
        return {
            "context": registration.context,
            "function": function,
            "scope": registration.scope,
            "default": registration.default,
            "module": registration.module,
            "id": registration.id,
            "string_id": f"{function.__module__}.{getattr(function, '__name__', registration.id)}",
        }

    def add(self, reducer: Mapping[str, Any], string_id: str | None = None, **options: Any) -> Registration:
        """Register a reducer that the field describes as a mapping; only on the app's loop."""
        from lo_kernel.compat.decorators import field_reducer

        function = field_reducer(reducer["function"], reducer.get("scope"))
        module = reducer.get("module") or "jupyter-helper"
        name = module if isinstance(module, str) else module.__name__.removesuffix(".module")
        return self.runtime.add_reducer(
            reducer.get("id") or string_id or declaration_of(function).key_name,
            function,
            module=name,
            context=reducer.get("context"),
            scope=reducer.get("scope"),
            default=reducer.get("default"),
            **options,
        )
