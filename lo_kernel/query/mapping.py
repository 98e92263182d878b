"""The ``map`` step: a published function for each row."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Iterable, Mapping
from typing import Final

from lo_kernel.query.dag import Ref
from lo_kernel.query.functions import Function, gave_up, invoke
from lo_kernel.query.paths import MISSING, describe, follow
from lo_kernel.query.ports import JSON
from lo_kernel.query.steps import NOTHING, WHOLE, Change, Dirt, Step, call_error
from lo_kernel.query.values import error_value, is_error, own

__all__ = ["MapStep"]

_AT_ONCE: Final = 16
"""How many rows are in work at the same time with ``parallel``."""
_SLICE: Final = 0.004
"""Seconds after which a plain function on the app's loop lets others on."""


class MapStep(Step):
    """A published function for each row; rows that changed run again, and no others.

    Each row of the answer is what the function gave (a value that is no object under ``output``) with the
    provenance of its row; where the function raised, it is an error, and the other rows stand.
    """

    async def evaluate(self) -> JSON:
        """What the function gives, row by row."""
        values = self.env.resolve(self.node.fields["values"])
        if not isinstance(values, list):
            return self.error(
                f"node {self.node.name!r}, field 'values': expected rows, got {describe(values)}"
            )
        function = self.env.functions.get(self.node.fields["function_name"])
        rows: list[JSON] = [None] * len(values)
        await self._fill(function, values, rows, range(len(values)))
        return rows

    async def refresh(self, changes: Mapping[str, Change], dirt: Dirt) -> Change:
        """Run again for the rows that changed."""
        values_ref = self.node.fields["values"]
        if self.is_dirty(dirt) or not isinstance(values_ref, Ref) or not isinstance(self.value, list):
            return await super().refresh(changes, dirt)
        change = changes[values_ref.node]
        if change is WHOLE or any(changes[name] for name in self.inputs if name != values_ref.node):
            return await self.again()
        if not change:
            return NOTHING
        values = self.env.steps[values_ref.node].value
        self.value.extend([None] * (len(values) - len(self.value)))
        function = self.env.functions.get(self.node.fields["function_name"])
        await self._fill(function, values, self.value, sorted(change))
        return set(change)

    def is_dirty(self, dirt: Dirt) -> bool:
        """Whether the function was replaced."""
        return self.node.fields["function_name"] in dirt.functions

    async def _fill(
        self, function: Function, values: list[JSON], rows: list[JSON], places: Iterable[int]
    ) -> None:
        kwargs = self.env.resolve(self.node.fields.get("func_kwargs") or {})
        if not self.node.fields.get("parallel"):
            since = time.perf_counter()
            for place in places:
                rows[place] = await self._one(function, values[place], kwargs, threads=False)
                if time.perf_counter() - since > _SLICE:
                    await asyncio.sleep(0)
                    since = time.perf_counter()
            return
        waiting = iter(places)

        async def work() -> None:
            for place in waiting:
                rows[place] = await self._one(function, values[place], kwargs, threads=not function.is_async)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())

    async def _one(self, function: Function, row: JSON, kwargs: dict[str, JSON], *, threads: bool) -> JSON:
        path = self.node.fields.get("value_path")
        plain = row if isinstance(row, dict) else {"value": row}
        provenance = {
            "function": function.name,
            "func_kwargs": self.node.fields.get("func_kwargs") or {},
            "value": {key: item for key, item in plain.items() if key != "provenance"},
            "value_path": path,
            "provenance": plain.get("provenance") or {},
        }
        value = follow(row, path)
        if is_error(row) or is_error(value):
            return {**(row if is_error(row) else value), "provenance": provenance}
        if value is MISSING:
            wrong = self.error(
                f"node {self.node.name!r}, field 'value_path': expected {path!r} in each row, "
                f"got {describe(row)}",
                function_name=function.name,
            )
            return {**wrong, "provenance": provenance}
        given, kwargs = own(value), own(kwargs)
        try:
            if threads:
                context = contextvars.copy_context()
                result = await asyncio.to_thread(
                    context.run, _plain, function, given, kwargs, self.env.context
                )
            else:
                result = await invoke(function, [given], kwargs, self.env.context)
        except Exception as error:
            wrong = error_value(
                call_error(function.name, error),
                "map",
                error,
                node=self.node.name,
                function_name=function.name,
            )
            return {**wrong, "provenance": provenance}
        if not function.changes_nothing:
            result = own(result)
        if isinstance(result, dict):
            return {**result, "provenance": provenance}
        return {"output": result, "provenance": provenance}


def _plain(function: Function, value: JSON, kwargs: dict[str, JSON], context: JSON) -> JSON:
    """Call a plain function on a thread."""
    if function.wants_runtime:
        kwargs = {**kwargs, "runtime": context}
    try:
        return function.function(value, **kwargs)
    except Exception:
        raise
    except BaseException as error:
        raise gave_up(function.name, error) from error
